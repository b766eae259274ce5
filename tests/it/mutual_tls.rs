//! Certificates of both sides: asked of callers (`client_ca`), shown to upstreams (`certificate`, `key`, `server_name`).

use http::Request;

use super::support::{Authority, Client, H2, Identity, PATIENCE, Proxy, Upstream, Upstream2, chat, stable};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn listener(ours: &Identity, callers: &Authority) -> String {
    format!(
        "[listeners.edge]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\", client_ca = \"{}\" }}\n",
        ours.pem.display(),
        ours.key.display(),
        callers.pem.display()
    )
}

#[test]
fn only_callers_with_a_certificate_of_the_authority_are_served() {
    let (servers, callers, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let upstream = Upstream::ok();
    let edge = listener(&servers.issue("localhost"), &callers);
    let proxy = Proxy::start(&format!("{edge}{}", chat("", &stable(upstream.addr, ""))));
    let (known, unknown) = (callers.issue("alice"), strangers.issue("alice"));
    for refused in [None, Some(&unknown)] {
        let mut client = Client::tls(proxy.addr, servers.client(refused, &[]));
        client.send(GET);
        assert!(client.response().is_err());
        assert!(client.ends(PATIENCE));
    }
    assert!(upstream.requests().is_empty());
    let mut client = Client::tls(proxy.addr, servers.client(Some(&known), &[]));
    client.send(GET);
    assert_eq!(client.response().unwrap().status, 200);
    let mut h2 = H2::tls(proxy.addr, servers.client(Some(&known), &["h2"]));
    let request = Request::builder().uri("https://a.test/").body(()).unwrap();
    assert_eq!(h2.ask(request, "", None).unwrap().0.status, 200);
    drop((client, h2));
    // The refused have left nothing behind.
    proxy.until_metric("serin_connections", &[], 0.0);
}

#[test]
fn upstream_sees_the_versions_certificate_under_the_name_that_was_written() {
    let (servers, callers) = (Authority::new(), Authority::new());
    let models = servers.issue("models.internal");
    let strangers = Authority::new();
    let (ours, strange) = (callers.issue("serin"), strangers.issue("serin"));
    // The upstream's own trust: callers whom `callers` vouches for.
    let upstream = Upstream2::serving(Some(callers.server(&models, "h2")));
    let version = |tls: &str| {
        let ca = servers.pem.display();
        format!(
            "[rollouts.chat.stable]\nversion = \"v1\"\nendpoints = [\"https://127.0.0.1:{}\"]\ntls = {{ ca = \"{ca}\"{tls} }}\n",
            upstream.addr.port()
        )
    };
    let shown = |who: &Identity| format!(", certificate = \"{}\", key = \"{}\"", who.pem.display(), who.key.display());
    let named = ", server_name = \"models.internal\"";
    let proxy = Proxy::start(&chat("", &version(&format!("{}{named}", shown(&ours)))));
    let answer = proxy.ask(GET);
    assert_eq!((answer.status, answer.header("x-from")), (200, Some("h2")), "{answer:?}");
    assert_eq!(upstream.requests(), 1);
    for (tls, why) in [
        (shown(&ours), "the endpoint's address is not in the upstream's certificate"),
        (named.to_owned(), "no certificate is shown"),
        (format!("{}{named}", shown(&strange)), "the upstream does not know who signed it"),
    ] {
        let proxy = Proxy::start(&chat("", &version(&tls)));
        let answer = proxy.ask(GET);
        assert_eq!(answer.status, 502, "{why}: {answer:?}");
        proxy.until_outcome("upstream_error", 1.0);
    }
    assert_eq!(upstream.requests(), 1);
}
