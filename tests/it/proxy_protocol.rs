//! The PROXY protocol in front of a connection: believed from trusted proxies alone, refused where it is broken.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::support::{A_MOMENT, Certificate, Client, PATIENCE, Proxy, Upstream, canary, chat, stable};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn listener(trusted: &str, more: &str) -> String {
    format!(
        "[listeners.edge]\nlisten = \"127.0.0.1:0\"\nproxy_protocol = true\ntrusted_proxies = [{trusted}]\n{more}\n"
    )
}

fn behind(trusted: &str, more: &str, upstream: &Upstream) -> Proxy {
    Proxy::start(&format!("{}{}", listener(trusted, more), chat("unit = [\"ip\"]", &stable(upstream.addr, ""))))
}

fn line(ip: IpAddr) -> Vec<u8> {
    let (family, to) = if ip.is_ipv4() { ("TCP4", "10.0.0.1") } else { ("TCP6", "::1") };
    format!("PROXY {family} {ip} {to} 4000 443\r\n").into_bytes()
}

fn binary(kind: u8, family: u8, address: &[u8]) -> Vec<u8> {
    let mut all = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    all.extend_from_slice(&[kind, family]);
    all.extend_from_slice(&u16::try_from(address.len()).unwrap().to_be_bytes());
    all.extend_from_slice(address);
    all
}

/// Version 2 of the same, with an extension (PP2_TYPE_NOOP) behind the addresses.
fn binary_of(ip: IpAddr) -> Vec<u8> {
    let (family, mut address) = match ip {
        IpAddr::V4(ip) => (0x11, [ip.octets(), [10, 0, 0, 1]].concat()),
        IpAddr::V6(ip) => (0x21, [ip.octets(), [0; 16]].concat()),
    };
    address.extend_from_slice(&[15, 160, 1, 187, 0x04, 0, 1, 0]);
    binary(0x21, family, &address)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn both_versions_name_the_caller_however_the_header_is_cut() {
    let upstream = Upstream::ok();
    let proxy = behind("\"127.0.0.1\"", "", &upstream);
    for address in [ip("192.0.2.7"), ip("2001:db8::7")] {
        for header in [line(address), binary_of(address)] {
            for piece in [header.len(), 1, 13] {
                let mut client = proxy.connect();
                for part in header.chunks(piece) {
                    client.send(part);
                }
                // Two requests: nothing of the header is left in the way, and the name holds for the connection.
                for _ in 0..2 {
                    client.send(GET);
                    assert_eq!(client.response().unwrap().status, 200);
                    assert_eq!(upstream.last().header("x-forwarded-for"), Some(address.to_string().as_str()));
                }
            }
        }
    }
    // The proxy's own connections (its health checks) name nobody: the peer stands.
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), b"PROXY UNKNOWN ::1 ::1 1 2\r\n".to_vec(), binary(0x20, 0, &[])] {
        let mut client = proxy.connect();
        client.send([header, GET.into()].concat());
        assert_eq!(client.response().unwrap().status, 200);
        assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn the_address_behind_it_is_the_unit_and_is_not_believed_about_others() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let tables = [stable(a.addr, ""), canary(b.addr, "")].concat();
    let keys = "unit = [\"ip\"]\nweight = 50.0\nsalt = \"s\"";
    let proxy = Proxy::start(&format!("{}{}", listener("\"127.0.0.1\"", ""), chat(keys, &tables)));
    let arm = |last: u8, fields: &str| {
        let header = binary_of(ip(&format!("192.0.2.{last}")));
        let answer = proxy.ask([header, format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n").into_bytes()].concat());
        assert_eq!(answer.header("serin-why"), Some("bucket"));
        answer.header("serin-arm").unwrap().to_owned()
    };
    let arms: Vec<_> = (0..40).map(|i| arm(i, "")).collect();
    let of_canary = arms.iter().filter(|arm| *arm == "canary").count();
    assert!((5..36).contains(&of_canary), "{of_canary} of 40 at 50 %");
    for i in 0..40u8 {
        // Whom the trusted proxy names is no trusted proxy himself.
        let spoofed = format!("x-forwarded-for: 198.51.100.{}\r\n", i.wrapping_mul(7));
        assert_eq!(arm(i, &spoofed), arms[usize::from(i)]);
    }
}

#[test]
fn a_broken_header_or_none_is_refused() {
    let upstream = Upstream::ok();
    let proxy = behind("\"127.0.0.1\"", "", &upstream);
    let beginnings: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 nowhere 1 2\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 99999\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n".to_vec(),
        b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
        b"PROXY SCTP 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
        b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
        [b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2".as_slice(), &[b' '; 90]].concat(),
        binary(0x31, 0x11, &[0; 12]),
        binary(0x22, 0x11, &[0; 12]),
        binary(0x21, 0x11, &[192, 0, 2]),
        binary(0x21, 0x21, &[0; 12]),
        binary(0x21, 0x11, &[0; 60_000]),
    ];
    for header in &beginnings {
        let mut client = proxy.connect();
        client.send([header.as_slice(), GET.as_bytes()].concat());
        assert!(client.ends(PATIENCE), "{}", super::support::show(header));
    }
    assert!(upstream.requests().is_empty());
    // A header that never ends is waited for no longer than a head.
    let slow = format!("[limits]\nheader_read = \"200ms\"\n{}", listener("\"127.0.0.1\"", ""));
    let proxy = Proxy::start(&format!("{slow}{}", chat("", &stable(upstream.addr, ""))));
    let mut client = proxy.connect();
    client.send("PROXY TCP4 192");
    assert!(client.ends(PATIENCE));
    proxy.until_metric("serin_connections", &[], 0.0);
}

#[test]
fn what_an_untrusted_peer_writes_is_not_read_as_one() {
    let upstream = Upstream::ok();
    let proxy = behind("\"10.0.0.0/8\"", "", &upstream);
    let header = [line(ip("192.0.2.7")), GET.into()].concat();
    let mut client = proxy.connect();
    client.send(header);
    assert!(client.response().is_ok_and(|answer| answer.status == 400), "the line is no request");
    let mut client = proxy.connect();
    client.send([binary_of(ip("192.0.2.7")), GET.into()].concat());
    client.patience(A_MOMENT);
    assert!(!client.response().is_ok_and(|answer| answer.status == 200));
    assert!(upstream.requests().is_empty());
    // Without one, it is served under its own address.
    assert_eq!(proxy.ask(GET).status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn the_header_comes_before_tls_too() {
    let certificate = Certificate::new();
    let upstream = Upstream::ok();
    let tls =
        format!("tls = {{ certificate = \"{}\", key = \"{}\" }}", certificate.pem.display(), certificate.key.display());
    let proxy = behind("\"127.0.0.1\"", &tls, &upstream);
    let address: SocketAddr = proxy.addr;
    let mut tcp = Client::socket(address);
    tcp.write_all(&binary_of(ip("192.0.2.9"))).unwrap();
    let versions: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
    let stream = Client::session(tcp.try_clone().unwrap(), certificate.client(&["http/1.1"], versions));
    let mut client = Client::over(tcp, stream);
    client.send(GET);
    assert_eq!(client.response().unwrap().status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("192.0.2.9"));
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
}
