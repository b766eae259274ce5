//! From bytes of an answer to gates, money and times: truncated, refused, empty, cut and failed tools, prices, first tokens.

use serde_json::{Value, json};

use super::support::{A_MOMENT, Client, Proxy, Upstream, canary, chat, eventually, now, stable};

const CHAT: &str = "/v1/chat/completions";

/// A whole answer of this type.
fn whole(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A chat answer, not streamed.
fn says(message: &Value, finish: &str) -> String {
    let usage = json!({"prompt_tokens": 1_000, "completion_tokens": 500});
    let choice = json!({"index": 0, "message": message, "finish_reason": finish});
    whole("application/json", &json!({"object": "chat.completion", "choices": [choice], "usage": usage}).to_string())
}

fn well() -> String {
    says(&json!({"role": "assistant", "content": "well"}), "stop")
}

/// The result of a tool of an MCP server.
fn tool(failed: bool) -> String {
    let result = json!({"content": [{"type": "text", "text": "x"}], "isError": failed});
    whole("application/json", &json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string())
}

fn chunk(delta: &Value) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
}

/// A stream that tells its end, or breaks off before it.
fn streamed(cut: bool) -> Upstream {
    Upstream::start(move |peer| {
        while peer.request().is_some() {
            let (text, end) = (chunk(&json!({"content": "well"})), "data: [DONE]\n\n");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
            peer.send(format!("{head}content-length: {}\r\n\r\n{text}", text.len() + end.len()));
            if cut {
                return;
            }
            peer.send(end);
        }
    })
}

fn view(proxy: &Proxy) -> Value {
    let mut client = Client::connect(proxy.admin);
    client.send(format!("GET /api/v1/rollouts/chat HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", proxy.admin));
    serde_json::from_str(&client.response().unwrap().text()).unwrap()
}

/// One request of each of 30 users; answers may break off.
fn visit(proxy: &Proxy, path: &str, body: &str) {
    for n in 0..30 {
        let mut client = proxy.connect();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nx-user-id: u{n}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        drop(client.response());
    }
}

#[test]
fn what_is_seen_in_answers_reaches_its_gate_and_no_other_arm() {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "f", "arguments": {}}});
    let call = call.to_string();
    let told = |good: String, bad: String| (Upstream::saying(good), Upstream::saying(bad));
    let text = |content: &str, finish| says(&json!({"role": "assistant", "content": content}), finish);
    let refusal = says(&json!({"role": "assistant", "content": null, "refusal": "I cannot"}), "stop");
    for (gate, protocol, path, body, (good, bad)) in [
        ("truncated_rate", "openai", CHAT, "{}", told(well(), text("well", "length"))),
        ("refusal_rate", "openai", CHAT, "{}", told(well(), refusal)),
        ("empty_rate", "openai", CHAT, "{}", told(well(), text("", "stop"))),
        ("cut_stream_rate", "openai", CHAT, "{\"stream\":true}", (streamed(false), streamed(true))),
        ("tool_error_rate", "mcp", "/mcp", call.as_str(), told(tool(false), tool(true))),
    ] {
        let tables = [
            stable(good.addr, ""),
            canary(bad.addr, ""),
            format!("[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n[rollouts.chat.gates.{gate}]\non = \"hold\"\n"),
        ];
        let proxy = Proxy::start(&chat(&format!("weight = 50.0\nprotocol = \"{protocol}\""), &tables.concat()));
        visit(&proxy, path, body);
        let asked = bad.requests().len();
        assert!(asked > 5 && asked < 25, "{asked}");
        let shares = || {
            let shown = view(&proxy)["gates"][0].clone();
            (shown["name"].as_str() == Some(gate), shown["stable"].as_f64(), shown["canary"].as_f64())
        };
        eventually(&format!("{gate}: {:?}", view(&proxy)["gates"][0]), || shares() == (true, Some(0.0), Some(1.0)));
    }
}

/// US dollars for a million tokens of one arm, ten times those of the other.
const CHEAP: &str = "prices = { input = 1.0, output = 2.0 }";
const DEAR: &str = "prices = { input = 10.0, output = 20.0 }";

#[test]
fn each_version_is_charged_its_own_prices_and_the_canarys_money_is_bounded() {
    let (a, b) = (Upstream::saying(well()), Upstream::saying(well()));
    let tables =
        [stable(a.addr, CHEAP), canary(b.addr, DEAR), "[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n".to_owned()];
    // An answer: 1,000 tokens in and 500 out, 0.002 dollars of stable and 0.02 of the canary.
    let keys = "weight = 50.0\nprotocol = \"openai\"\nexposure = { max_cost = \"0.05\" }";
    let proxy = Proxy::start(&chat(keys, &tables.concat()));
    visit(&proxy, CHAT, "{}");
    let cost = |arm: &str| proxy.metric("serin_cost_usd_total", &[&format!("arm=\"{arm}\"")]);
    proxy.until_outcome("success", 30.0);
    let (of_stable, of_canary) = (a.requests().len() as f64 * 0.002, b.requests().len() as f64 * 0.02);
    let all = cost("stable") + cost("baseline");
    assert!((all - of_stable).abs() < 1e-9 && (cost("canary") - of_canary).abs() < 1e-9, "{all} {}", cost("canary"));
    assert!(of_canary > 0.05, "{of_canary}");
    eventually("the budget is spent", || view(&proxy)["exposed"]["spent"] == "max_cost");
}

#[test]
fn the_first_token_is_a_token_and_neither_the_head_nor_a_role() {
    let upstream = Upstream::start(|peer| {
        while peer.request().is_some() {
            let (role, text, end) =
                (chunk(&json!({"role": "assistant"})), chunk(&json!({"content": "well"})), "data: [DONE]\n\n");
            let length = role.len() + text.len() + end.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
            peer.send(format!("{head}content-length: {length}\r\n\r\n{role}"));
            peer.until_told();
            peer.send(text + end);
        }
    });
    let proxy = Proxy::start(&chat("protocol = \"openai\"", &stable(upstream.addr, "")));
    let mut client = proxy.connect();
    client.send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}"));
    client.wait_for(b"assistant");
    let seen = now();
    while now().since(seen) < A_MOMENT {
        std::thread::park_timeout(A_MOMENT);
    }
    let held = now().since(seen).as_secs_f64();
    upstream.tell_all();
    client.wait_for(b"[DONE]");
    proxy.until_metric("serin_time_to_first_token_seconds_count", &[], 1.0);
    let first = proxy.metric("serin_time_to_first_token_seconds_sum", &[]);
    assert!(first >= held, "{first} s, and the token was held for {held} s after the role");
    let head = proxy.metric("serin_time_to_first_byte_seconds_sum", &[]);
    assert!(head > 0.0 && head <= first - held, "the head came before the role: {head}");
}
