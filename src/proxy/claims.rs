//! Claims of a bearer's token: verified with the rollout's keys, or believed unverified where the config says so aloud.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::config::{Jwt, JwtKeys};
use crate::names::Wall;

/// Tokens remembered by a worker; a verification costs tens of microseconds, a look-up one.
const REMEMBERED: usize = 4_096;
/// How far ahead of ours the issuer's clock may be: a fresh token whose `nbf` is now is no token of the future.
const SKEW_S: f64 = 60.0;

/// The claims of one token. `a.b` asks for a claim inside a claim.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    texts: HashMap<String, String>,
    /// From when on, and before when, in seconds of the Unix epoch; fractions are allowed (RFC 7519 section 2).
    not_before_s: Option<f64>,
    expires_s: Option<f64>,
}

impl Claims {
    /// A claim as text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// `None` where a time of it is no number: what cannot be checked is not believed.
    fn from_value(value: &Value) -> Option<Self> {
        let time = |name: &str| value.get(name).map_or(Some(None), |at| at.as_f64().map(Some));
        let (not_before_s, expires_s) = (time("nbf")?, time("exp")?);
        let mut claims = Claims { texts: HashMap::new(), not_before_s, expires_s };
        flatten("", value, 0, &mut claims.texts);
        Some(claims)
    }

    fn hold_at(&self, now: Wall) -> bool {
        let now_s = now.0 as f64 / 1_000.0;
        self.not_before_s.is_none_or(|from| from <= now_s + SKEW_S) && self.expires_s.is_none_or(|until| now_s < until)
    }
}

fn flatten(prefix: &str, value: &Value, depth: u8, out: &mut HashMap<String, String>) {
    match value {
        Value::Object(map) if depth < 4 => {
            for (key, value) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, value, depth + 1, out);
            }
        }
        Value::String(text) => {
            out.insert(prefix.to_owned(), text.clone());
        }
        Value::Number(number) => {
            out.insert(prefix.to_owned(), number.to_string());
        }
        Value::Bool(truth) => {
            out.insert(prefix.to_owned(), truth.to_string());
        }
        _ => {}
    }
}

/// A worker's memory of tokens: by the keys that judged them and a 128-bit hash, never the token itself.
#[derive(Debug, Default)]
pub struct ClaimsCache(RefCell<HashMap<Name, Option<Rc<Claims>>>>);

/// Where the keys lie, and the token's hash.
type Name = (usize, u128);

impl ClaimsCache {
    /// Forgets everything: the keys may have changed.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// The claims of `token` as far as they are to be believed now.
    #[must_use]
    pub fn read(&self, jwt: &Jwt, token: &str, now: Wall) -> Option<Rc<Claims>> {
        // The keys are part of the name: a token good for one rollout says nothing to another. They live, and stay where
        // they are, as long as the configuration for which this memory is kept.
        let keys = match jwt {
            Jwt::Unverified => 0,
            Jwt::Verified { keys: JwtKeys::Jwks(set), .. } => std::ptr::from_ref(set.as_ref()).addr(),
            Jwt::Verified { keys: JwtKeys::Pem(pem), .. } => pem.as_ptr().addr(),
        };
        let name = (keys, xxh3_128(token.as_bytes()));
        let known = self.0.borrow().get(&name).cloned();
        let claims = known.unwrap_or_else(|| {
            let fresh = verify(jwt, token).and_then(|value| Claims::from_value(&value)).map(Rc::new);
            let mut all = self.0.borrow_mut();
            if all.len() >= REMEMBERED {
                all.clear();
            }
            all.insert(name, fresh.clone());
            fresh
        });
        claims.filter(|claims| claims.hold_at(now))
    }
}

fn verify(jwt: &Jwt, token: &str) -> Option<Value> {
    let keys = match jwt {
        Jwt::Unverified => return unverified(token),
        Jwt::Verified { keys, .. } => keys,
    };
    let header = decode_header(token).ok()?;
    match keys {
        JwtKeys::Jwks(set) => set
            .keys
            .iter()
            .filter(|jwk| may_sign(jwk, &header))
            .filter_map(|jwk| DecodingKey::from_jwk(jwk).ok())
            .find_map(|key| signed(token, header.alg, &key)),
        JwtKeys::Pem(pem) => {
            let key = match header.alg {
                Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
                Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
                // A public key is no shared secret: everybody has it.
                Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return None,
                _ => DecodingKey::from_rsa_pem(pem),
            };
            signed(token, header.alg, &key.ok()?)
        }
    }
}

/// Whether the key is one for such tokens: of the name they give, if they give one, and for their algorithm
/// (RFC 7517 sections 4.2, 4.4 and 4.5).
fn may_sign(jwk: &Jwk, header: &Header) -> bool {
    let named = header.kid.is_none() || jwk.common.key_id == header.kid;
    let signs = !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
    named && signs && jwk.common.key_algorithm.is_none_or(|of| of == KeyAlgorithm::from(header.alg))
}

/// The claims, if the key has signed them; a key of another family than the algorithm's has not.
fn signed(token: &str, algorithm: Algorithm, key: &DecodingKey) -> Option<Value> {
    let mut validation = Validation::new(algorithm);
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    // Its time is asked at each use, of a remembered token too.
    validation.validate_exp = false;
    decode::<Value>(token, key, &validation).ok().map(|data| data.claims)
}

fn unverified(token: &str) -> Option<Value> {
    let body = token.split('.').nth(1)?;
    serde_json::from_slice(&base64url(body)?).ok()
}

/// Base64url without padding, RFC 4648 section 5.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    // {"alg":"none"}.{"sub":"u-7","org":{"tier":"gold"},"exp":2000000000}
    const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1LTciLCJvcmciOnsidGllciI6ImdvbGQifSwiZXhwIjoyMDAwMDAwMDAwfQ.";

    #[test]
    fn claims_are_read_nested_and_until_they_expire() {
        let cache = ClaimsCache::default();
        let claims = cache.read(&Jwt::Unverified, TOKEN, Wall(1_900_000_000_000)).unwrap();
        assert_eq!((claims.get("sub"), claims.get("org.tier")), (Some("u-7"), Some("gold")));
        assert!(cache.read(&Jwt::Unverified, TOKEN, Wall(2_000_000_001_000)).is_none());
        assert!(cache.read(&Jwt::Unverified, "no.token", Wall(0)).is_none());
    }

    #[test]
    fn a_symmetric_algorithm_is_never_verified_with_a_public_key() {
        let keys = JwtKeys::Pem(b"-----BEGIN PUBLIC KEY-----".as_slice().into());
        let jwt = Jwt::Verified { path: "k".into(), keys };
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";
        assert!(verify(&jwt, token).is_none());
        assert!(verify(&jwt, TOKEN).is_none());
    }
}
