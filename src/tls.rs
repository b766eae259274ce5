//! Keys and certificates, for every side: what listeners show, what endpoints are verified against.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{HttpVersion, ServerTls, TlsVersion, UpstreamTls};

/// Why a certificate, key or authority cannot be used; names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or holds no PEM of the kind.
    #[error("{path}: {why}")]
    File {
        /// Which file.
        path: String,
        /// Why not.
        why: String,
    },
    /// rustls refuses the combination.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
    /// The client authorities cannot verify anybody.
    #[error("client_ca: {0}")]
    ClientCa(String),
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match least {
        TlsVersion::V12 => rustls::ALL_VERSIONS,
        TlsVersion::V13 => &ONLY_13,
    }
}

fn file_error(path: &Path, why: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.display().to_string(), why: why.to_string() }
}

/// Reads a PEM chain, the leaf first.
///
/// # Errors
/// Unreadable, or no certificate in it.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path)
        .map_err(|e| file_error(path, e))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| file_error(path, e))?;
    if all.is_empty() {
        return Err(file_error(path, "no certificate in PEM form is in it"));
    }
    Ok(all)
}

/// Reads a PEM private key.
///
/// # Errors
/// Unreadable, or no key in it.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| file_error(path, e))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|e| file_error(path, e))?;
    }
    Ok(store)
}

/// What a listener shows; ALPN offers h2, http/1.1 and http/1.0 where `alpn` is set. One ticketer serves all workers.
///
/// # Errors
/// A file that cannot be used.
pub fn server(tls: &ServerTls, alpn: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions(tls.min_version))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider())
                .build()
                .map_err(|e| TlsError::ClientCa(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(certificates(&tls.certificate)?, private_key(&tls.key)?)?;
    if alpn {
        // The last for clients that name it alone (`curl --http1.0`): without a common protocol there is no handshake.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    }
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// How `https://` endpoints are verified and spoken to.
///
/// # Errors
/// A file that cannot be used.
pub fn client(tls: &UpstreamTls, http: HttpVersion) -> Result<Arc<ClientConfig>, TlsError> {
    let store = match &tls.ca {
        Some(path) => roots(path)?,
        None => {
            let mut store = RootCertStore::empty();
            let (_good, _bad) = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(tls.min_version.unwrap_or(TlsVersion::V12)))?
        .with_root_certificates(store);
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?)?,
    };
    config.alpn_protocols = match http {
        HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}
