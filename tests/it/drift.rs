//! Drift through the front door: the writing, the length and the tools of both arms' answers, shown and held.

use serde_json::{Value, json};

use super::support::{Client, Proxy, Upstream, canary, chat, eventually, stable};

/// A chat answer, streamed in pieces that cut letters.
fn says(text: &str, tokens: u64, calls: bool) -> String {
    let chunk = |delta: Value, finish: Value| {
        let chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
        format!("data: {chunk}\n\n")
    };
    let tool = json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]});
    let letters: String = text.chars().map(|letter| chunk(json!({"content": letter}), Value::Null)).collect();
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}});
    let end = chunk(if calls { tool } else { json!({}) }, json!("stop"));
    let body = format!("{letters}{end}data: {usage}\n\ndata: [DONE]\n\n");
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn what_both_arms_answer_is_compared_by_class() {
    let a = Upstream::saying(says("A sentence of plain letters.", 20, false));
    let b = Upstream::saying(says("天地玄黃宇宙洪荒日月盈昃", 20, true));
    let gates = ["drift_language", "drift_tools", "drift_length", "drift_refusal"];
    let gates: String = gates.iter().map(|gate| format!("[rollouts.chat.gates.{gate}]\n")).collect();
    let judged = "[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n";
    let tables = [stable(a.addr, ""), canary(b.addr, ""), judged.to_owned(), gates];
    let proxy = Proxy::start(&chat("weight = 50.0\nprotocol = \"openai\"", &tables.concat()));
    for n in 0..60 {
        proxy.ask(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u{n}\r\ncontent-length: 2\r\n\r\n{{}}"
        ));
    }
    let rollout = || -> Value {
        let mut client = Client::connect(proxy.admin);
        client
            .send(format!("GET /api/v1/rollouts/chat HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", proxy.admin));
        serde_json::from_str(&client.response().unwrap().text()).unwrap()
    };
    let shares = |name: &str| {
        let gates = rollout()["gates"].clone();
        let gate = gates.as_array().unwrap().iter().find(|gate| gate["name"] == name).unwrap().clone();
        (gate["stable"].as_f64(), gate["canary"].as_f64())
    };
    for (gate, expect) in [
        ("drift_language/han", (Some(0.0), Some(1.0))),
        ("drift_language/latin", (Some(1.0), Some(0.0))),
        ("drift_tools/more", (Some(0.0), Some(1.0))),
        ("drift_tools/less", (Some(1.0), Some(0.0))),
        ("drift_refusal/more", (Some(0.0), Some(0.0))),
    ] {
        eventually(gate, || shares(gate) == expect);
    }
    let held = || {
        let gates = rollout()["gates"].clone();
        let failed = gates.as_array().unwrap().iter().filter(|gate| gate["result"] == "fail");
        failed.map(|gate| gate["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("the classes that grew are held", || {
        let mut held = held();
        held.sort();
        // Of the eight classes of tools, the one of this installation in which its tool falls.
        let classes = held.extract_if(.., |gate| gate.starts_with("drift_tools/tool")).count();
        classes == 1 && held == ["drift_language/han", "drift_tools/more"]
    });
    assert_eq!((rollout()["phase"].as_str(), rollout()["weight"].as_f64()), (Some("running"), Some(50.0)));
}
