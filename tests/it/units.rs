//! Who is calling: each source of a unit, cohorts, and whom to believe about addresses.

use super::support::{Proxy, Response, Upstream, canary, chat, stable};

fn split(unit: &str, keys: &str, weight: f64, more: &str) -> (Upstream, Upstream, Proxy) {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let keys = format!("unit = [{unit}]\nweight = {weight:.3}\nsalt = \"s\"\n{keys}");
    let proxy = Proxy::start(&chat(&keys, &[stable(a.addr, ""), canary(b.addr, ""), more.to_owned()].concat()));
    (a, b, proxy)
}

fn why(answer: &Response) -> (&str, &str) {
    (answer.header("serin-arm").unwrap(), answer.header("serin-why").unwrap())
}

/// Two callers of which one goes to each arm, by whatever names them.
fn tells_apart(proxy: &Proxy, request: impl Fn(u32) -> Vec<u8>) {
    let arms: Vec<_> = (0..40).map(|i| proxy.ask(request(i))).collect();
    assert!(arms.iter().all(|a| why(a).1 == "bucket"), "{:?}", why(&arms[0]));
    let of_canary = arms.iter().filter(|a| why(a).0 == "canary").count();
    assert!((5..36).contains(&of_canary), "{of_canary} of 40 at 50 %");
    for (i, first) in arms.iter().enumerate().take(10) {
        assert_eq!(why(&proxy.ask(request(i as u32))), why(first));
    }
}

fn jwt(claims: &str) -> String {
    let encode = |text: &str| {
        const SET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        text.as_bytes()
            .chunks(3)
            .flat_map(|c| {
                let n = (u32::from(c[0]) << 16)
                    | (u32::from(*c.get(1).unwrap_or(&0)) << 8)
                    | u32::from(*c.get(2).unwrap_or(&0));
                (0..=c.len()).map(move |i| SET[(n >> (18 - 6 * i)) as usize & 63] as char)
            })
            .collect::<String>()
    };
    format!("{}.{}.{}", encode("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"), encode(claims), encode("signature"))
}

#[test]
fn every_source_names_the_unit() {
    let jwt_key = "jwt = { unverified = true }";
    for source in ["header:x-user-id", "cookie:uid", "query:u", "body:/user", "jwt:sub"] {
        let (_a, _b, proxy) = split(&format!("\"{source}\""), if source == "jwt:sub" { jwt_key } else { "" }, 50.0, "");
        tells_apart(&proxy, |i| {
            match source {
                "header:x-user-id" => format!("GET / HTTP/1.1\r\nhost: a\r\nx-user-id: u{i}\r\n\r\n"),
                "cookie:uid" => format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: a=b; uid=u{i}; c=d\r\n\r\n"),
                "query:u" => format!("GET /?a=b&u=u{i} HTTP/1.1\r\nhost: a\r\n\r\n"),
                "jwt:sub" => {
                    let token = jwt(&format!("{{\"sub\":\"u{i}\",\"exp\":9999999999}}"));
                    format!("GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n")
                }
                _ => {
                    let body = format!("{{\"user\":\"u{i}\",\"messages\":[]}}");
                    format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                }
            }
            .into_bytes()
        });
        let nobody = proxy.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(why(&nobody), ("stable", "unidentified"), "{source}");
    }
}

#[test]
fn a_body_that_was_looked_at_goes_up_unchanged() {
    let (a, _b, proxy) = split("\"body:/user\"", "", 0.0, "");
    let filler = "y".repeat(200_000);
    for body in ["{\"user\":\"u\"}".to_owned(), "not json".to_owned(), format!("{{\"user\":\"u\",\"x\":\"{filler}\"}}")]
    {
        proxy.ask(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        assert!(a.last().body == body.as_bytes());
        assert_eq!(a.last().header("content-length"), Some(body.len().to_string().as_str()));
        let half = body.len() / 2;
        let (x, y) = (&body[..half], &body[half..]);
        proxy.ask(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{x}\r\n{:x}\r\n{y}\r\n0\r\n\r\n",
            x.len(),
            y.len()
        ));
        assert!(a.last().body == body.as_bytes());
    }
    assert_eq!(proxy.metric("serin_limit_hits_total", &["limit=\"peek_bytes\""]), 2.0);
}

#[test]
fn the_address_is_the_peers_unless_a_trusted_proxy_says_otherwise() {
    let request = |i: u32| format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 198.51.100.{i}\r\n\r\n").into_bytes();
    let (_a, _b, proxy) = split("\"ip\"", "", 50.0, "");
    let first = proxy.ask(request(0));
    for i in 1..30 {
        assert_eq!(why(&proxy.ask(request(i))), why(&first), "all come from one address");
    }
    let trusting = "[listeners.edge]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let (_a, _b, proxy) = split("\"ip\"", "", 50.0, trusting);
    tells_apart(&proxy, request);
}

#[test]
fn cohorts_come_before_the_bucket_and_in_order() {
    let cohorts = "[[rollouts.chat.cohorts]]\nname = \"never\"\nwhen = { header = \"x-org\", is = [\"bank\"] }\nto = \"stable\"\n\
        [[rollouts.chat.cohorts]]\nname = \"staff\"\nwhen = { header = \"x-org\", prefix = \"a\" }\nto = \"canary\"\n\
        [[rollouts.chat.cohorts]]\nname = \"beta\"\nwhen = [{ query = \"beta\", is = \"1\" }, { path = \"/v2\" }]\nto = \"canary\"\n\
        [[rollouts.chat.cohorts]]\nname = \"cookie\"\nwhen = { cookie = \"group\", regex = \"^b[0-9]+$\" }\nto = \"canary\"\n";
    let (_a, _b, proxy) = split("\"header:x-user-id\"", "", 1.0, cohorts);
    for (path, fields, expect) in [
        ("/", "x-org: acme\r\n", ("canary", "cohort")),
        ("/", "x-org: bank\r\n", ("stable", "cohort")),
        ("/v2?beta=1", "", ("canary", "cohort")),
        ("/v1?beta=1", "", ("stable", "unidentified")),
        ("/v2?beta=2", "", ("stable", "unidentified")),
        ("/", "cookie: group=b12\r\n", ("canary", "cohort")),
        ("/", "cookie: group=b12x\r\n", ("stable", "unidentified")),
    ] {
        let answer = proxy.ask(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
        assert_eq!(why(&answer), expect, "{path} {fields}");
    }
}

#[test]
fn nobody_chooses_his_own_arm_by_serins_words() {
    let (_a, b, proxy) = split("\"header:x-user-id\"", "", 0.0, "");
    for fields in [
        "serin-arm: canary\r\n",
        "serin-version: v2\r\n",
        "serin-why: override\r\n",
        "Serin-Rollout: chat\r\nSerin-Arm: canary\r\n",
    ] {
        let answer = proxy.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\n{fields}\r\n"));
        assert_eq!(answer.header("serin-arm"), Some("stable"), "{fields}");
    }
    assert!(b.requests().is_empty());
}
