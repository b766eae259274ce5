//! Signatures of webhooks, both ways, as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.body`.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::names::Wall;

/// How far a sender's clock may be away, seconds.
pub const TOLERANCE_S: i64 = 300;

/// Why a signature is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// A header is missing or is not what it should be.
    #[error("webhook-id, webhook-timestamp and webhook-signature are needed")]
    Missing,
    /// The time lies too far away.
    #[error("webhook-timestamp is more than 5 minutes away from this machine's clock")]
    Stale,
    /// No signature is that of the secret.
    #[error("webhook-signature is not that of a known secret")]
    Wrong,
}

/// `v1,` and the signature in base64.
#[must_use]
pub fn sign(secret: &Secret, id: &str, timestamp_s: i64, body: &[u8]) -> String {
    format!("v1,{}", STANDARD.encode(code(secret, id, timestamp_s, body)))
}

/// Whether one of the signatures in the header is that of the secret, made within five minutes of `now`.
///
/// # Errors
/// See [`Unsigned`].
pub fn verify(
    secret: &Secret,
    (id, timestamp, signatures): (&str, &str, &str),
    body: &[u8],
    now: Wall,
) -> Result<(), Unsigned> {
    let timestamp: i64 = timestamp.parse().map_err(|_| Unsigned::Missing)?;
    if id.is_empty() || signatures.is_empty() {
        return Err(Unsigned::Missing);
    }
    if (now.0 / 1_000).saturating_sub(timestamp).saturating_abs() > TOLERANCE_S {
        return Err(Unsigned::Stale);
    }
    let expected = code(secret, id, timestamp, body);
    let mut good = false;
    for signature in signatures.split_ascii_whitespace().take(8) {
        let given = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        good |= bool::from(given.ct_eq(&expected));
    }
    if good && !expected.is_empty() { Ok(()) } else { Err(Unsigned::Wrong) }
}

fn code(secret: &Secret, id: &str, timestamp_s: i64, body: &[u8]) -> Vec<u8> {
    let key = key(secret);
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return Vec::new() };
    mac.update(format!("{id}.{timestamp_s}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().to_vec()
}

/// `whsec_` and base64, or the text itself.
fn key(secret: &Secret) -> Vec<u8> {
    let text = secret.expose();
    let coded = text.strip_prefix("whsec_").and_then(|coded| STANDARD.decode(coded).ok());
    coded.unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the reference libraries test against.
    #[test]
    fn the_signature_is_that_of_the_reference_libraries() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn only_the_signed_body_of_now_is_believed() {
        let secret = Secret::new("correct horse");
        let now = Wall(1_795_183_200_000);
        let stamp = (now.0 / 1_000).to_string();
        let signed = sign(&secret, "id", now.0 / 1_000, b"body");
        let check =
            |id: &str, stamp: &str, signed: &str, body: &[u8], now| verify(&secret, (id, stamp, signed), body, now);
        assert_eq!(check("id", &stamp, &signed, b"body", now), Ok(()));
        assert_eq!(check("id", &stamp, &format!("v1,AAAA v1a,x {signed}"), b"body", now), Ok(()), "one of several");
        for (id, body) in [("id", &b"bodY"[..]), ("ie", b"body")] {
            assert_eq!(check(id, &stamp, &signed, body, now), Err(Unsigned::Wrong));
        }
        for wrong in ["v1,", "v1", "v1,!!", "AAAA"] {
            assert_eq!(check("id", &stamp, wrong, b"body", now), Err(Unsigned::Wrong), "{wrong}");
        }
        assert_eq!(check("id", &stamp, "", b"body", now), Err(Unsigned::Missing));
        assert_eq!(check("id", "soon", &signed, b"body", now), Err(Unsigned::Missing));
        for away in [-301_000, 301_000] {
            assert_eq!(check("id", &stamp, &signed, b"body", Wall(now.0 + away)), Err(Unsigned::Stale));
        }
        let other = Secret::new("correct horsf");
        assert_eq!(verify(&other, ("id", &stamp, &signed), b"body", now), Err(Unsigned::Wrong));
    }
}
