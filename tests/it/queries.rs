//! Prometheus queries as gates, against a scripted Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::support::{Client, Proxy, Upstream, canary, chat, eventually, stable};

/// A Prometheus whose canary has this value in thousandths (`u64::MAX`: no series); it hangs where `hangs` says so.
fn prometheus(value: &Arc<AtomicU64>) -> Upstream {
    let value = Arc::clone(value);
    Upstream::start(move |peer| {
        while let Some(request) = peer.request() {
            let thousandths = if request.target.contains("canary") { value.load(Ordering::Relaxed) } else { 100 };
            let series = match thousandths {
                u64::MAX => String::new(),
                n => format!("{{\"metric\":{{}},\"value\":[1,\"{}\"]}}", n as f64 / 1e3),
            };
            let body =
                format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{series}]}}}}");
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

fn start(prometheus: &str, gate: &str) -> (Upstream, Upstream, Proxy) {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let tables = format!(
        "{}{}[rollouts.chat.queries.load]\nurl = \"{prometheus}\"\nstable = \"load{{arm=\\\"stable\\\"}}\"\n\
         canary = \"load{{arm=\\\"canary\\\"}}\"\ninterval = \"1s\"\nstale = \"3s\"\nfor = 2\n\
         [rollouts.chat.gates.\"prometheus:load\"]\n{gate}\n[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n",
        stable(a.addr, ""),
        canary(b.addr, "")
    );
    let proxy = Proxy::start(&chat("weight = 20.0", &tables));
    (a, b, proxy)
}

fn rollout(proxy: &Proxy) -> Value {
    let mut client = Client::connect(proxy.admin);
    client.send(format!("GET /api/v1/rollouts/chat HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", proxy.admin));
    serde_json::from_str(&client.response().unwrap().text()).unwrap()
}

fn gate(proxy: &Proxy) -> Value {
    rollout(proxy)["gates"][0].clone()
}

#[test]
fn a_query_beyond_its_margin_so_many_times_in_a_row_rolls_back() {
    let value = Arc::new(AtomicU64::new(110));
    let server = prometheus(&value);
    let (_a, _b, proxy) = start(&format!("http://{}/prom/?tenant=x", server.addr), "rollback = \"+50%\"");
    eventually("the values are shown", || gate(&proxy)["canary"] == json!(0.11));
    let seen = gate(&proxy);
    assert_eq!(
        (&seen["name"], &seen["stable"], &seen["unit"]),
        (&json!("prometheus:load"), &json!(0.1), &json!("value"))
    );
    let asked = server.last().target;
    assert!(asked.starts_with("/prom/api/v1/query?query=load%7Barm%3D%22"), "{asked}");
    assert!(asked.ends_with("&tenant=x"), "{asked}");
    value.store(160, Ordering::Relaxed);
    eventually("rolled back", || rollout(&proxy)["phase"] == "rolled_back");
    let reason = rollout(&proxy)["latch"]["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("prometheus:load")
            && reason.contains("2 breaches in a row")
            && reason.contains("outside alpha"),
        "{reason}"
    );
    assert!(proxy.metric("serin_queries_total", &["query=\"load\"", "result=\"ok\""]) >= 3.0);
}

#[test]
fn a_query_that_falls_silent_holds_and_says_so() {
    let value = Arc::new(AtomicU64::new(100));
    let server = prometheus(&value);
    let (_a, _b, proxy) = start(&format!("http://{}", server.addr), "rollback = \"+50%\"");
    eventually("the values are shown", || gate(&proxy)["canary"] == json!(0.1));
    value.store(u64::MAX, Ordering::Relaxed);
    proxy.until_metric("serin_queries_total", &["result=\"empty\""], 1.0);
    assert_eq!(rollout(&proxy)["phase"], "running", "silence is no breach");
}

#[test]
fn a_server_that_hangs_or_is_not_there_costs_nothing_but_its_gate() {
    let hangs = Upstream::start(|peer| {
        peer.request();
        peer.until_closed();
    });
    let (_a, _b, proxy) = start(&format!("http://{}", hangs.addr), "rollback = \"+50%\"");
    eventually("a time-out is counted", || proxy.metric("serin_queries_total", &["result=\"timeout\""]) >= 1.0);
    let seen = gate(&proxy);
    assert_eq!((&seen["canary"], &seen["result"]), (&Value::Null, &json!("inconclusive")), "{seen}");
    let (_a, _b, proxy) = start(&format!("http://{}", super::support::nobody()), "rollback = \"+50%\"");
    eventually("a failure is counted", || proxy.metric("serin_queries_total", &["result=\"failed\""]) >= 1.0);
}

#[test]
fn an_endless_answer_is_cut_off() {
    let endless = Upstream::start(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 65_536], b"\r\n"].concat();
        while peer.try_send(&chunk) {}
    });
    let (_a, _b, proxy) = start(&format!("http://{}", endless.addr), "rollback = \"+50%\"");
    eventually("a failure is counted", || proxy.metric("serin_queries_total", &["result=\"failed\""]) >= 1.0);
}
