//! Files that a configuration names: certificates, keys, lists of units, key sets. Opened and parsed by the check.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::model_rollout::JwtKeys;
use super::read::{plain, read_text};

/// Most bytes of a PEM file or a key set.
const KEY_BYTES_MAX: u64 = 4 << 20;
/// Most bytes of a list of units.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// A PEM chain; the error is a clause without its subject.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = bytes(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Err(_) => Err("is no PEM file".to_owned()),
        Ok(all) if all.is_empty() => Err("holds no certificate in PEM form".to_owned()),
        Ok(all) => Ok(all),
    }
}

/// Authorities that can be trusted.
pub(crate) fn authorities(path: &Path) -> Result<(), String> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|_| "holds a certificate that is no authority".to_owned())?;
    }
    Ok(())
}

/// A PEM private key.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = bytes(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| "holds no private key in PEM form".to_owned())
}

/// A PEM file with an ed25519 private key (PKCS#8), as it stands there.
pub(crate) fn signing_key(path: &Path) -> Result<Arc<[u8]>, String> {
    let wrong = || "holds no ed25519 private key in PEM form (PKCS#8)".to_owned();
    let pem = bytes(path)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| wrong())?;
    aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| wrong())?;
    Ok(pem.into())
}

/// Whether the key belongs to the leaf; `Err` names what is wrong with either.
pub(crate) fn belongs(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<(), String> {
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
        .map_err(|_| "holds a key of a kind that TLS does not use".to_owned())?;
    match rustls::sign::CertifiedKey::new(chain, key).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err("does not belong to the certificate".to_owned()),
        Err(_) => Err("stands beside a certificate that cannot be read".to_owned()),
    }
}

/// Units, one a line; empty lines and lines that begin with `#` are passed over.
pub(crate) fn units(path: &Path) -> Result<Arc<HashSet<Box<str>>>, String> {
    let text = read_text(path, LIST_BYTES_MAX)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(Arc::new(lines.map(Box::from).collect()))
}

/// Keys that verify a JWT: a JSON Web Key Set, or a public key in PEM.
pub(crate) fn jwt_keys(path: &Path) -> Result<JwtKeys, String> {
    let text = read_text(path, KEY_BYTES_MAX)?;
    if text.contains("-----BEGIN") {
        let public = ["PUBLIC KEY", "CERTIFICATE"].iter().any(|kind| text.contains(&format!("{kind}-----")));
        return if public { Ok(JwtKeys::Pem(text.into_bytes().into())) } else { Err("holds no public key".to_owned()) };
    }
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&text)
        .map_err(|_| "is neither a JSON Web Key Set nor a public key in PEM form".to_owned())?;
    if set.keys.is_empty() { Err("holds no key".to_owned()) } else { Ok(JwtKeys::Jwks(Arc::new(set))) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be opened ({})", plain(&error)))?;
    let mut bytes = Vec::new();
    file.take(KEY_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| format!("cannot be read ({})", plain(&error)))?;
    Ok(bytes)
}
