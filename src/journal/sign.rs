//! Signed checkpoints: an ed25519 signature over the chain's head, written behind every batch of records.
//!
//! The chain alone shows that somebody changed a record and left the rest. Who can write the files can also compute the
//! chain anew; without the key he cannot sign it. A signature covers every entry before it, so one that holds vouches
//! for the whole journal up to there. What no signature shows is that entries behind the last one are gone: compare
//! with a copy of the head that is kept elsewhere.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::journal::chain::{Hash, hex};
use crate::names::Wall;

/// What stands before an ed25519 key of 32 bytes in its DER form (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What is signed begins with this, so that the signature is good for nothing else.
const CONTEXT: &[u8] = b"serin journal checkpoint 1\0";
/// Digits of a key's name.
const NAME_DIGITS: usize = 16;

/// A signature over the chain up to an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// When the entry was made that it covers last.
    pub at: Wall,
    /// That entry's number: the one before this.
    pub of: u64,
    /// That entry's hash, in hexadecimal.
    pub hash: String,
    /// The key's name: the first 16 hexadecimal digits of the SHA-256 of the 32 bytes of its public half.
    pub key: String,
    /// 64 bytes, in base64.
    pub signature: String,
}

impl Signature {
    fn message(&self) -> Vec<u8> {
        [CONTEXT, self.of.to_le_bytes().as_slice(), self.hash.as_bytes(), self.at.0.to_le_bytes().as_slice()].concat()
    }
}

/// Why a key cannot be used. Never shows any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the private key that is wanted.
    #[error("holds no ed25519 private key in PEM form (PKCS#8); openssl genpkey -algorithm ed25519 makes one")]
    Private,
    /// Not the public key that is wanted.
    #[error("holds no ed25519 public key in PEM form; openssl pkey -in KEY -pubout writes it")]
    Public,
}

/// Signs.
pub struct Signer {
    pair: Ed25519KeyPair,
    name: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.name)
    }
}

impl Signer {
    /// From a private key in PEM form.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::Private)?;
        let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| KeyError::Private)?;
        let name = name_of(pair.public_key().as_ref());
        Ok(Self { pair, name })
    }

    /// The key's name, as signatures say it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signs the chain up to this entry. `None`: the library refuses, which it has no reason to.
    pub(crate) fn sign(&self, of: u64, hash: &Hash, at: Wall) -> Option<Signature> {
        let unsigned = Signature { at, of, hash: hex(hash), key: self.name.clone(), signature: String::new() };
        let signature = self.pair.try_sign(&unsigned.message()).ok()?;
        Some(Signature { signature: STANDARD.encode(signature.as_ref()), ..unsigned })
    }
}

/// Verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    key: [u8; 32],
    name: String,
}

impl Verifier {
    /// From a public key in PEM form.
    ///
    /// # Errors
    /// [`KeyError::Public`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyError::Public)?;
        let key: Option<[u8; 32]> = der.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
        let key = key.ok_or(KeyError::Public)?;
        Ok(Self { name: name_of(&key), key })
    }

    /// The key's name, as signatures say it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn made(&self, signature: &Signature) -> bool {
        let Ok(bytes) = STANDARD.decode(&signature.signature) else { return false };
        UnparsedPublicKey::new(&ED25519, self.key).verify(&signature.message(), &bytes).is_ok()
    }
}

/// Whether one of these keys made a signature; else what is wrong with it.
pub(crate) fn check(signature: &Signature, keys: &[Verifier]) -> Result<(), String> {
    match keys.iter().find(|key| key.name == signature.key) {
        Some(key) if key.made(signature) => Ok(()),
        Some(_) => {
            Err("its signature is wrong: an entry up to here was changed, or it was not signed with the key".to_owned())
        }
        None => {
            let given: Vec<&str> = keys.iter().map(Verifier::name).collect();
            Err(format!("it is signed with the key {}, and the keys given are {}", signature.key, given.join(", ")))
        }
    }
}

fn name_of(public: &[u8]) -> String {
    let hash: Hash = Sha256::digest(public).into();
    hex(&hash).chars().take(NAME_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example keys of RFC 8410, section 10.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn the_keys_of_the_rfc_are_read_and_belong_together() {
        let (signer, verifier) =
            (Signer::from_pem(PRIVATE.as_bytes()).unwrap(), Verifier::from_pem(PUBLIC.as_bytes()).unwrap());
        assert_eq!(signer.name(), verifier.name());
        assert_eq!(signer.name().len(), NAME_DIGITS);
        let good = signer.sign(7, &[3; 32], Wall(1)).unwrap();
        assert_eq!(check(&good, std::slice::from_ref(&verifier)), Ok(()));
        for wrong in [
            Signature { of: 8, ..good.clone() },
            Signature { at: Wall(2), ..good.clone() },
            Signature { hash: hex(&[4; 32]), ..good.clone() },
            Signature { signature: STANDARD.encode([0; 64]), ..good.clone() },
            Signature { signature: "no base64".to_owned(), ..good.clone() },
        ] {
            assert!(check(&wrong, std::slice::from_ref(&verifier)).unwrap_err().contains("wrong"), "{wrong:?}");
        }
        let other = Signature { key: "0123456789abcdef".to_owned(), ..good };
        let why = check(&other, std::slice::from_ref(&verifier)).unwrap_err();
        assert!(why.contains("0123456789abcdef") && why.contains(verifier.name()), "{why}");
    }

    #[test]
    fn a_key_of_another_kind_is_refused_and_never_shown() {
        let ecdsa = rcgen::KeyPair::generate().unwrap();
        assert_eq!(Signer::from_pem(ecdsa.serialize_pem().as_bytes()).err(), Some(KeyError::Private));
        assert_eq!(Verifier::from_pem(ecdsa.public_key_pem().as_bytes()), Err(KeyError::Public));
        assert_eq!(Signer::from_pem(PUBLIC.as_bytes()).err(), Some(KeyError::Private));
        assert_eq!(Verifier::from_pem(PRIVATE.as_bytes()), Err(KeyError::Public));
        assert_eq!(Signer::from_pem(b"nonsense").err(), Some(KeyError::Private));
        let shown = format!("{:?}", Signer::from_pem(PRIVATE.as_bytes()).unwrap());
        assert!(shown.len() < 32 && !shown.contains("1O5y"), "{shown}");
    }
}
