//! Units and cohorts from a bearer's token: what is verified, with which key, and what nobody believes.

use std::path::PathBuf;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::support::{Proxy, Response, Upstream, canary, chat, clock, stable};

/// Keys of the three kinds, made once.
struct Keys {
    folder: tempfile::TempDir,
    rsa: KeyPair,
    ec: KeyPair,
    other: KeyPair,
}

const SECRET: &[u8] = b"thirty-two bytes that nobody has";

impl Keys {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            rsa: KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
            ec: KeyPair::generate().unwrap(),
            other: KeyPair::generate().unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A key set of these keys, each under its name.
    fn set(&self, name: &str, keys: &[(Option<&str>, &EncodingKey, Algorithm)]) -> PathBuf {
        let keys: Vec<Value> = keys
            .iter()
            .map(|(kid, key, algorithm)| {
                let mut jwk = Jwk::from_encoding_key(key, *algorithm).unwrap();
                jwk.common.key_id = kid.map(str::to_owned);
                serde_json::to_value(jwk).unwrap()
            })
            .collect();
        self.file(name, &json!({ "keys": keys }).to_string())
    }

    fn rsa(&self) -> EncodingKey {
        EncodingKey::from_rsa_pem(self.rsa.serialize_pem().as_bytes()).unwrap()
    }

    fn ec(&self) -> EncodingKey {
        EncodingKey::from_ec_pem(self.ec.serialize_pem().as_bytes()).unwrap()
    }

    fn other(&self) -> EncodingKey {
        EncodingKey::from_ec_pem(self.other.serialize_pem().as_bytes()).unwrap()
    }
}

fn token(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    encode(&header, claims, key).unwrap()
}

/// A token that nobody signed.
fn unsigned(algorithm: &str, claims: &Value) -> String {
    let part = |value: &Value| base64url(&value.to_string());
    format!("{}.{}.", part(&json!({ "alg": algorithm, "typ": "JWT" })), part(claims))
}

/// Base64url without padding.
fn base64url(text: &str) -> String {
    const SET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            out.push(char::from(SET[(bits >> (18 - 6 * i)) as usize & 63]));
        }
    }
    out
}

struct Split {
    proxy: Proxy,
    _upstreams: [Upstream; 2],
}

impl Split {
    /// Everybody who has a unit is the canary's.
    fn new(jwt: &str) -> Self {
        let (a, b) = (Upstream::ok(), Upstream::ok());
        let keys = format!("unit = [\"jwt:sub\"]\nweight = 100.0\nsalt = \"s\"\njwt = {jwt}");
        let proxy = Proxy::start(&chat(&keys, &[stable(a.addr, ""), canary(b.addr, "")].concat()));
        Self { proxy, _upstreams: [a, b] }
    }

    fn with_key(path: &std::path::Path) -> Self {
        Self::new(&format!("{{ key = \"{}\" }}", path.display()))
    }

    fn ask(&self, token: &str) -> Response {
        self.proxy.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n"))
    }

    fn believes(&self, token: &str) -> bool {
        // Twice: what is remembered is judged as what is new.
        let answers = [self.ask(token), self.ask(token)];
        let seen = answers.map(|answer| {
            assert_eq!(answer.status, 200, "a token that is not believed is no error");
            (answer.header("serin-arm").unwrap().to_owned(), answer.header("serin-why").unwrap().to_owned())
        });
        assert_eq!(seen[0], seen[1]);
        let [(arm, why), _] = seen;
        match (arm.as_str(), why.as_str()) {
            ("canary", "bucket") => true,
            ("stable", "unidentified") => false,
            other => panic!("{other:?}"),
        }
    }
}

fn now_s() -> i64 {
    clock().wall().0 / 1_000
}

#[test]
fn a_token_is_believed_under_its_own_key_alone() {
    let keys = Keys::new();
    let claims = json!({ "sub": "u-7", "exp": now_s() + 600 });
    let secret = EncodingKey::from_secret(SECRET);
    let (rsa, ec, other) = (keys.rsa(), keys.ec(), keys.other());
    let (rsa_pem, ec_pem) = (keys.rsa.public_key_pem(), keys.ec.public_key_pem());
    let by_secret = Split::with_key(&keys.set("oct.json", &[(Some("k"), &secret, Algorithm::HS256)]));
    let by_rsa = Split::with_key(&keys.file("rsa.pem", &rsa_pem));
    let by_ec = Split::with_key(&keys.file("ec.pem", &ec_pem));
    let by_set = Split::with_key(
        &keys.set("set.json", &[(Some("r"), &rsa, Algorithm::RS256), (Some("e"), &ec, Algorithm::ES256)]),
    );
    let hs = token(Algorithm::HS256, Some("k"), &secret, &claims);
    let (rs, es) =
        (token(Algorithm::RS256, Some("r"), &rsa, &claims), token(Algorithm::ES256, Some("e"), &ec, &claims));
    for (split, hs_good, rs_good, es_good) in [
        (&by_secret, true, false, false),
        (&by_rsa, false, true, false),
        (&by_ec, false, false, true),
        (&by_set, false, true, true),
    ] {
        assert_eq!([hs_good, rs_good, es_good], [split.believes(&hs), split.believes(&rs), split.believes(&es)]);
    }
    // A token that names no key is tried with each of the set.
    assert!(by_set.believes(&token(Algorithm::ES256, None, &ec, &claims)));
    // The wrong key, also under the right one's name; another key's name; a signature of something else.
    assert!(!by_ec.believes(&token(Algorithm::ES256, None, &other, &claims)));
    assert!(!by_set.believes(&token(Algorithm::ES256, Some("e"), &other, &claims)));
    assert!(!by_set.believes(&token(Algorithm::ES256, Some("r"), &ec, &claims)));
    assert!(!by_set.believes(&token(Algorithm::ES256, Some("nobody"), &ec, &claims)));
    let (head, rest) = es.split_once('.').unwrap();
    let forged = base64url(&json!({ "sub": "u-8", "exp": now_s() + 600 }).to_string());
    assert!(!by_ec.believes(&format!("{head}.{forged}.{}", rest.split_once('.').unwrap().1)));
    for nonsense in ["", "a.b.c", "a", "..", &es[..es.len() - 4], &format!("{es}.x")] {
        assert!(!by_ec.believes(nonsense), "{nonsense}");
    }
}

#[test]
fn no_token_chooses_how_it_is_verified() {
    let keys = Keys::new();
    let claims = json!({ "sub": "u-7", "exp": now_s() + 600 });
    let (rsa_pem, ec_pem) = (keys.rsa.public_key_pem(), keys.ec.public_key_pem());
    let by_rsa = Split::with_key(&keys.file("rsa.pem", &rsa_pem));
    let by_ec = Split::with_key(&keys.file("ec.pem", &ec_pem));
    let by_set = Split::with_key(
        &keys.set("set.json", &[(None, &keys.rsa(), Algorithm::RS256), (None, &keys.ec(), Algorithm::ES256)]),
    );
    for split in [&by_rsa, &by_ec, &by_set] {
        for nobody in ["none", "None", "NONE", "nOnE", ""] {
            assert!(!split.believes(&unsigned(nobody, &claims)), "{nobody}");
        }
        // The public key, which everybody knows, as a shared secret.
        for public in [rsa_pem.as_str(), rsa_pem.trim_end(), &ec_pem, ec_pem.trim_end()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let confused = token(algorithm, None, &EncodingKey::from_secret(public.as_bytes()), &claims);
                assert!(!split.believes(&confused), "{algorithm:?}");
            }
        }
    }
}

#[test]
fn a_token_is_believed_only_in_its_time() {
    let keys = Keys::new();
    let ec = keys.ec();
    let verified = Split::with_key(&keys.file("ec.pem", &keys.ec.public_key_pem()));
    let unverified = Split::new("{ unverified = true }");
    let now = now_s();
    for (claims, good) in [
        (json!({ "sub": "u" }), true),
        (json!({ "sub": "u", "exp": now + 600 }), true),
        (json!({ "sub": "u", "exp": now as f64 + 600.5 }), true),
        (json!({ "sub": "u", "nbf": now - 600 }), true),
        (json!({ "sub": "u", "exp": now - 1 }), false),
        (json!({ "sub": "u", "exp": now as f64 - 1.5 }), false),
        (json!({ "sub": "u", "exp": (now + 600).to_string() }), false),
        (json!({ "sub": "u", "exp": null }), false),
        (json!({ "sub": "u", "nbf": now + 600 }), false),
        (json!({ "sub": "u", "nbf": "soon" }), false),
        (json!({ "exp": now + 600 }), false),
        (json!({ "sub": "", "exp": now + 600 }), false),
        (json!({ "sub": ["u"], "exp": now + 600 }), false),
    ] {
        assert_eq!(verified.believes(&token(Algorithm::ES256, None, &ec, &claims)), good, "{claims}");
        assert_eq!(unverified.believes(&unsigned("none", &claims)), good, "{claims}");
    }
}

#[test]
fn unverified_claims_are_believed_only_where_the_file_says_so() {
    let split = Split::new("{ unverified = true }");
    let claims = json!({ "sub": "u-7" });
    assert!(split.believes(&unsigned("none", &claims)));
    assert!(split.believes(&token(Algorithm::HS256, None, &EncodingKey::from_secret(b"any"), &claims)));
    assert!(!split.believes("x"));
    // The scheme is a word without case; other schemes carry no token.
    let token = unsigned("none", &claims);
    for (value, good) in [(format!("bearer {token}"), true), (format!("Basic {token}"), false), (token, false)] {
        let answer = split.proxy.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: {value}\r\n\r\n"));
        assert_eq!(answer.header("serin-arm") == Some("canary"), good, "{}", &value[..7]);
    }
}
