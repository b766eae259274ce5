//! The exposure budget through the front door: shown, held, stopped, recorded.

use serde_json::{Value, json};

use super::support::{Proxy, Upstream, canary, chat, eventually, stable};

fn start(exposure: &str) -> (Upstream, Upstream, Proxy) {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let tables = [
        stable(a.addr, ""),
        canary(b.addr, ""),
        "[rollouts.chat.plan]\n[[rollouts.chat.plan.stages]]\nweight = 50.0\nresidence = \"1h\"\n\
         [[rollouts.chat.plan.stages]]\nweight = 100.0\n[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n"
            .to_owned(),
    ];
    let proxy = Proxy::start(&chat(&format!("exposure = {{ {exposure} }}"), &tables.concat()));
    proxy.api("POST", "/api/v1/rollouts/chat/start", &json!({"reason": "test"}));
    (a, b, proxy)
}

fn rollout(proxy: &Proxy) -> Value {
    proxy.api("GET", "/api/v1/rollouts/chat", &Value::Null)
}

/// So many requests, each by another user.
fn visit(proxy: &Proxy, users: std::ops::Range<u32>) {
    for n in users {
        proxy.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user-id: u{n}\r\n\r\n"));
    }
}

fn recorded(proxy: &Proxy) -> Vec<String> {
    let all = proxy.api("GET", "/api/v1/journal?after=0", &Value::Null);
    let text = all.to_string();
    text.match_indices("\"decision\":\"")
        .map(|(at, key)| text[at + key.len()..].split('"').next().unwrap().to_owned())
        .collect()
}

#[test]
fn a_spent_budget_is_shown_recorded_once_and_holds() {
    let (_a, _b, proxy) = start("max_requests = 5");
    let before = rollout(&proxy);
    assert_eq!(
        (&before["exposed"]["max_requests"], &before["exposed"]["max_users"], &before["exposed"]["spent"]),
        (&json!(5), &Value::Null, &Value::Null)
    );
    visit(&proxy, 0..40);
    eventually("the budget is spent", || rollout(&proxy)["exposed"]["spent"] == "max_requests");
    eventually("it is recorded", || recorded(&proxy).iter().any(|decision| decision == "exposure"));
    eventually("the verdict says so", || {
        rollout(&proxy)["verdict_reason"].as_str().unwrap().contains("exposure.max_requests")
    });
    let after = rollout(&proxy);
    assert_eq!(
        (&after["phase"], &after["weight"], &after["verdict"]),
        (&json!("running"), &json!(50.0), &json!("hold"))
    );
    visit(&proxy, 40..60);
    assert_eq!(recorded(&proxy).iter().filter(|decision| *decision == "exposure").count(), 1);
}

#[test]
fn where_the_file_says_stop_the_canary_goes_to_0_and_is_not_latched() {
    let (_a, b, proxy) = start("max_users = 5, on = \"stop\"");
    visit(&proxy, 0..40);
    eventually("it stands at 0", || rollout(&proxy)["weight"] == 0.0);
    let after = rollout(&proxy);
    assert_eq!(
        (&after["phase"], &after["latch"], &after["paused"]["by"]),
        (&json!("paused"), &Value::Null, &json!("exposure"))
    );
    assert!(after["paused"]["why"].as_str().unwrap().contains("max_users"), "{after}");
    let before = b.requests().len();
    visit(&proxy, 40..80);
    assert_eq!(b.requests().len(), before, "nobody reaches the canary any more");
    proxy.api("POST", "/api/v1/rollouts/chat/resume", &json!({"reason": "test"}));
    eventually("the budget is as spent as before", || {
        let now = rollout(&proxy);
        now["weight"] == 0.0 && now["phase"] == "paused" && now["exposed"]["requests"].as_u64().unwrap() >= 5
    });
}
