//! Safety violations through the front door: by header, by trailer, by what an answer says, by feedback.

use serde_json::{Value, json};

use super::support::{Proxy, Upstream, canary, chat, eventually, stable};

/// A rollout at 50 % whose canary answers every request with these bytes.
fn start(bad: &str, keys: &str, of_canary: bool) -> (Upstream, Upstream, Proxy) {
    let (good, bad) = (Upstream::ok(), Upstream::saying(bad));
    let (a, b) = if of_canary { (&good, &bad) } else { (&bad, &good) };
    let tables = [
        stable(a.addr, ""),
        canary(b.addr, ""),
        "[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n[rollouts.chat.gates.safety_violations]\nrollback = \"any\"\n"
            .to_owned(),
    ];
    let proxy = Proxy::start(&chat(&format!("weight = 50.0\nprotocol = \"openai\"\n{keys}"), &tables.concat()));
    (good, bad, proxy)
}

fn rollout(proxy: &Proxy) -> Value {
    proxy.api("GET", "/api/v1/rollouts/chat", &Value::Null)
}

fn visit(proxy: &Proxy) {
    for n in 0..30 {
        proxy.ask(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nte: trailers\r\nx-user-id: u{n}\r\ncontent-length: 2\r\n\r\n{{}}"
        ));
    }
}

fn rolls_back(proxy: &Proxy) {
    eventually("rolled back", || rollout(proxy)["phase"] == "rolled_back");
    let reason = rollout(proxy)["latch"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("safety_violations"), "{reason}");
}

/// Violations of stable and canary that the gate shows.
fn violations(proxy: &Proxy) -> (f64, f64) {
    let gate = rollout(proxy)["gates"][0].clone();
    (gate["stable"].as_f64().unwrap_or(0.0), gate["canary"].as_f64().unwrap_or(0.0))
}

const HEADER: &str = "HTTP/1.1 200 OK\r\nx-guard: pii\r\ncontent-length: 2\r\n\r\nok";
const TRAILER: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-guard\r\n\r\n2\r\nok\r\n0\r\nx-guard: pii\r\n\r\n";
const GUARD: &str = "safety = { header = \"x-guard\" }\n";

fn said(words: [&str; 2]) -> String {
    let event =
        |text: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    let body = format!("{}{}data: [DONE]\n\n", event(words[0]), event(words[1]));
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_header_a_trailer_or_words_of_the_canary_roll_it_back() {
    let rules = "safety = { rules = [\"ver.oten\"] }\n";
    for (answer, keys) in [(HEADER, GUARD), (TRAILER, GUARD), (said(["das ist verb", "oten"]).as_str(), rules)] {
        let (_a, _b, proxy) = start(answer, keys, true);
        visit(&proxy);
        rolls_back(&proxy);
    }
}

#[test]
fn the_same_of_stable_is_shown_and_not_charged() {
    let rules = "safety = { rules = [\"ver.oten\"] }\n";
    for (answer, keys) in [(HEADER, GUARD), (said(["das ist verb", "oten"]).as_str(), rules)] {
        let (_a, _b, proxy) = start(answer, keys, false);
        visit(&proxy);
        eventually("stable's violations are shown", || violations(&proxy).0 > 3.0);
        assert_eq!((rollout(&proxy)["phase"].as_str(), violations(&proxy).1), (Some("running"), 0.0));
    }
}

#[test]
fn what_says_no_and_what_is_not_asked_for_is_no_violation() {
    let no = HEADER.replace("pii", "None");
    for (answer, keys) in
        [(no.as_str(), GUARD), (HEADER, ""), (said(["all", " good"]).as_str(), "safety = { rules = [\"bad\"] }\n")]
    {
        let (_a, _b, proxy) = start(answer, keys, true);
        visit(&proxy);
        proxy.until_outcome("success", 30.0);
        assert_eq!((rollout(&proxy)["phase"].as_str(), violations(&proxy)), (Some("running"), (0.0, 0.0)));
    }
}

/// A whole answer of the model that its content filter stopped.
fn filtered() -> String {
    let choice =
        json!({"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"});
    let body = json!({"object": "chat.completion", "choices": [choice]}).to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_filtered_stop_rolls_back_but_where_the_file_says_that_it_is_no_violation() {
    for keys in ["safety = { content_filter = true }\n", ""] {
        let (_a, _b, proxy) = start(&filtered(), keys, true);
        visit(&proxy);
        rolls_back(&proxy);
    }
    let (_a, _b, proxy) = start(&filtered(), "safety = { content_filter = false }\n", true);
    visit(&proxy);
    proxy.until_outcome("success", 30.0);
    assert_eq!((rollout(&proxy)["phase"].as_str(), violations(&proxy)), (Some("running"), (0.0, 0.0)));
}

#[test]
fn one_safety_report_rolls_back() {
    let (_a, _b, proxy) = start(HEADER, "", true);
    visit(&proxy);
    let user = (0..30).map(|n| format!("u{n}")).find(|user| {
        let path = format!("/api/v1/rollouts/chat/which?unit={user}");
        proxy.api("GET", &path, &Value::Null)["arm"] == "canary"
    });
    let report = json!({"unit": user, "metric": "safety", "value": 1});
    // The guard takes an exchange in a moment after it began.
    eventually("the report is taken", || proxy.api("POST", "/api/v1/feedback", &report)["accepted"] == 1);
    rolls_back(&proxy);
}
