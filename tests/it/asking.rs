//! What a request asks, through the front door: the shape that it declares, and an answer that it asks for again.

use serde_json::{Value, json};

use super::support::{Client, Proxy, Upstream, canary, chat, eventually, stable};

fn answer(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A chat answer that says this, whole or streamed.
fn says(text: &str, streamed: bool) -> String {
    if streamed {
        let event = json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]});
        return answer("text/event-stream", &format!("data: {event}\n\ndata: [DONE]\n\n"));
    }
    let body = json!({"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]});
    answer("application/json", &body.to_string())
}

/// The same of the other dialect.
fn says_anthropic(streamed: bool) -> String {
    if streamed {
        let event = |kind: &str, body: Value| format!("event: {kind}\ndata: {body}\n\n");
        let delta = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "well"}});
        let stop = json!({"type": "message_stop"});
        let events = [event("content_block_delta", delta), event("message_stop", stop)];
        return answer("text/event-stream", &events.concat());
    }
    let body = json!({"type": "message", "content": [{"type": "text", "text": "well"}], "stop_reason": "end_turn"});
    answer("application/json", &body.to_string())
}

fn gated(upstreams: [&Upstream; 2], keys: &str, gate: &str) -> Proxy {
    let tables = [
        stable(upstreams[0].addr, ""),
        canary(upstreams[1].addr, ""),
        format!("[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n[rollouts.chat.gates.{gate}]\non = \"hold\"\n"),
    ];
    Proxy::start(&chat(&format!("weight = 50.0\nprotocol = \"auto\"\n{keys}"), &tables.concat()))
}

fn gate(proxy: &Proxy) -> Value {
    let mut client = Client::connect(proxy.admin);
    client.send(format!("GET /api/v1/rollouts/chat HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", proxy.admin));
    let rollout: Value = serde_json::from_str(&client.response().unwrap().text()).unwrap();
    rollout["gates"][0].clone()
}

fn post(user: &str, path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\nx-user-id: {user}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The same body in chunks of a few bytes.
fn chunked(user: &str, path: &str, body: &str) -> String {
    let chunks: String = body
        .as_bytes()
        .chunks(7)
        .map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)))
        .collect();
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nx-user-id: {user}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    )
}

#[test]
fn an_answer_is_held_against_the_shape_that_its_request_declares() {
    for streamed in [false, true] {
        let (good, bad) =
            (Upstream::saying(says("{\"n\":1}", streamed)), Upstream::saying(says("{\"n\":\"1\"}", streamed)));
        let proxy = gated([&good, &bad], "", "schema_invalid_rate");
        let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
        let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
        let body = json!({"model": "m", "messages": [], "response_format": format}).to_string();
        let (plain, long) =
            (json!({"model": "m"}).to_string(), format!("{{\"x\":\"{}\",{}", "y".repeat(70_000), &body[1..]));
        for n in 0..20 {
            let user = format!("u{n}");
            proxy.ask(post(&user, "/v1/chat/completions", &body));
            proxy.ask(chunked(&user, "/v1/chat/completions", &body));
            // Neither declares a shape that is seen: the one has none, the other is longer than may be looked at.
            proxy.ask(post(&user, "/v1/chat/completions", &plain));
            proxy.ask(post(&user, "/v1/chat/completions", &long));
        }
        let shares = || (gate(&proxy)["stable"].as_f64(), gate(&proxy)["canary"].as_f64());
        let asked = bad.requests().len();
        assert!(asked > 0 && asked < 80, "{asked}");
        eventually("half of them declared one", || gate(&proxy)["samples"] == asked / 2);
        // Two failures of one user within 10 s are one.
        assert_eq!(shares(), (Some(0.0), Some(0.5)));
        assert_eq!(proxy.metric("serin_limit_hits_total", &["limit=\"peek_bytes\""]), 20.0);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One request of the script, and whether its user pressed "try again".
struct Asked {
    user: u64,
    path: &'static str,
    body: String,
    again: bool,
}

fn asked(user: u64, history: &[(bool, String)], again: bool, fails: bool) -> Asked {
    let anthropic = user % 2 == 1;
    let model = if fails { "out-of-order" } else { "m" };
    let messages: Vec<Value> = history
        .iter()
        .map(|(by_user, text)| json!({"role": if *by_user { "user" } else { "assistant" }, "content": text}))
        .collect();
    let clock = format!("It is {}.", history.len() + usize::from(again));
    let (path, body) = if anthropic {
        ("/v1/messages", json!({"model": model, "max_tokens": 9, "system": clock, "messages": messages}))
    } else {
        let system = json!({"role": "system", "content": clock});
        let messages: Vec<Value> = std::iter::once(system).chain(messages).collect();
        ("/v1/chat/completions", json!({"model": model, "messages": messages}))
    };
    Asked { user, path, body: body.to_string(), again }
}

/// Conversations of many users: greetings that many begin with, tries again, retries of failed calls, tokens counted
/// before an answer is asked for, edits, conversations begun anew.
fn script(seed: u64, users: u64) -> Vec<Asked> {
    let mut random = Random(seed);
    let mut turns: Vec<Vec<Asked>> = Vec::new();
    for user in 0..users {
        let mut mine = Vec::new();
        for conversation in 0..1 + random.below(3) {
            let mut history = Vec::new();
            for exchange in 0..1 + random.below(5) {
                let text = match (exchange, random.below(3)) {
                    (0, 0) => "hi".to_owned(),
                    (0, 1) => format!("Plan my day {}", random.below(5)),
                    _ => format!("and then? {conversation} {exchange}"),
                };
                history.push((true, text));
                if random.chance(8) {
                    mine.push(asked(user, &history, false, true));
                }
                if user % 2 == 1 && random.chance(8) {
                    let counted = asked(user, &history, false, false);
                    mine.push(Asked { path: "/v1/messages/count_tokens", ..counted });
                }
                mine.push(asked(user, &history, false, false));
                if random.chance(12) {
                    (0..1 + random.below(2)).for_each(|_| mine.push(asked(user, &history, true, false)));
                } else if random.chance(5) {
                    if let Some(last) = history.last_mut() {
                        last.1.push_str(" (edited)");
                    }
                    mine.push(asked(user, &history, false, false));
                }
                history.push((false, format!("answer {}", random.below(1_000_000))));
            }
        }
        turns.push(mine);
    }
    // Users take turns, so that conversations lie between each other.
    let mut all = Vec::new();
    let mut left: Vec<_> = turns.into_iter().map(Vec::into_iter).collect();
    while !left.is_empty() {
        let at = random.below(left.len() as u64) as usize;
        match left[at].next() {
            Some(asked) => all.push(asked),
            None => drop(left.swap_remove(at)),
        }
    }
    all
}

#[test]
fn answers_that_are_asked_for_again_are_told_from_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let serve = |streamed: bool| {
        Upstream::start(move |peer| {
            while let Some(request) = peer.request() {
                let fails = String::from_utf8_lossy(&request.body).contains("out-of-order");
                let sorry = answer("application/json", "{}").replacen("200 OK", "500 Sorry", 1);
                let anthropic = request.target.starts_with("/v1/messages");
                let said = if anthropic { says_anthropic(streamed) } else { says("well", streamed) };
                peer.send(if fails { sorry } else { said });
            }
        })
    };
    let (a, b) = (serve(false), serve(true));
    let keys = format!("trace = {{ path = {:?} }}\n", path.to_string_lossy());
    let proxy = gated([&a, &b], &keys, "regeneration_rate");
    let script = script(5, 120);
    let mut client = proxy.connect();
    for asked in &script {
        client.send(post(&format!("u{}", asked.user), asked.path, &asked.body));
        client.response().unwrap();
    }
    // Once the judge has these of the canary, it has all that came before them.
    let before = b.requests().len();
    (0..12).for_each(|n| drop(proxy.ask(post(&format!("u{n}"), "/v1/messages/count_tokens", "{}"))));
    assert!(b.requests().len() > before);
    eventually("the judge has all", || gate(&proxy)["samples"] == b.requests().len());
    drop(proxy); // the trace is whole
    let text = std::fs::read_to_string(&path).unwrap();
    let mut told: Vec<(u64, bool)> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["outcome"].is_string())
        .map(|line| (line["id"].as_u64().unwrap(), line["flags"]["regeneration"] == true))
        .collect();
    told.sort_unstable();
    assert!(told.len() >= script.len());
    let count = |again: bool, found: bool| {
        script.iter().zip(&told).filter(|(asked, (_, told))| asked.again == again && *told == found).count() as f64
    };
    let (hits, misses, wrong, right) = (count(true, true), count(true, false), count(false, true), count(false, false));
    assert!(hits + misses >= 60.0, "{}", hits + misses);
    assert!(hits >= 0.95 * (hits + misses), "{hits} of {} were found", hits + misses);
    assert!(wrong <= 0.01 * (wrong + right), "{wrong} of {} were none", wrong + right);
    assert!(!text.contains("Plan my day") && !text.contains("\"u7\""), "no text, no user");
}

#[test]
fn without_a_gate_that_asks_nothing_is_looked_at() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let proxy = gated([&a, &b], "", "error_rate");
    let long = format!("{{\"messages\":\"{}\"}}", "y".repeat(70_000));
    for n in 0..4 {
        proxy.ask(post(&format!("u{n}"), "/v1/chat/completions", &long));
    }
    assert_eq!(proxy.metric("serin_limit_hits_total", &["limit=\"peek_bytes\""]), 0.0);
}
