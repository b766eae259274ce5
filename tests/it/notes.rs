//! Why answers ended and what was noted in them, as the metrics tell it.

use serde_json::{Value, json};

use super::support::{Proxy, Upstream, chat, stable};

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
}

fn document(finish: &str, text: &str) -> String {
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish});
    let value = json!({"object": "chat.completion", "choices": [choice]});
    answer("content-type: application/json\r\n", &value.to_string())
}

fn stream(events: &[Value], ends: usize) -> String {
    let said: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    answer("content-type: text/event-stream\r\n", &(said + &"data: [DONE]\n\n".repeat(ends)))
}

#[test]
fn why_answers_end_and_what_is_wrong_with_them_is_counted() {
    let said = json!({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": null}]});
    let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let refused = json!({"choices": [{"index": 0, "delta": {"refusal": "no"}, "finish_reason": "stop"}]});
    let answers = vec![
        document("length", "and then"),
        document("content_filter", "x"),
        document("invented", "x"),
        document("stop", ""),
        document("stop", &"long ".repeat(60_000)),
        stream(&[said.clone(), stop.clone()], 1),
        stream(&[said.clone(), stop.clone()], 2),
        stream(&[refused], 1),
        stream(&[said], 0),
        answer("content-type: application/json\r\ncontent-encoding: compress\r\n", "?"),
        answer("content-type: application/json\r\n", "{\"choices\": nothing}"),
        answer("content-type: text/plain; charset=utf-8\r\n", "plain"),
    ];
    let asked = answers.len();
    let answers = std::sync::Mutex::new(answers.into_iter());
    let upstream = Upstream::start(move |peer| {
        while peer.request().is_some() {
            let next = answers.lock().unwrap().next().unwrap();
            peer.send(next);
        }
    });
    let proxy = Proxy::start(&chat("", &stable(upstream.addr, "")));
    let mut client = proxy.connect();
    for _ in 0..asked {
        client.send(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\ncontent-length: 2\r\n\r\n{}".as_bytes(),
        );
        client.response().unwrap();
    }
    proxy.until_metric("serin_requests_total", &[], asked as f64);
    let metrics = proxy.metrics();
    let counted = |name: &str, label: &str| {
        let mut all: Vec<(String, f64)> = metrics
            .lines()
            .filter(|line| line.starts_with(name))
            .map(|line| {
                assert!(line.contains("rollout=\"chat\"") && line.contains("version=\"v1\""), "{line}");
                let (_, value) = line.split_once(&format!("{label}=\"")).unwrap();
                (value.split('"').next().unwrap().to_owned(), line.rsplit(' ').next().unwrap().parse().unwrap())
            })
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    };
    let expect = |pairs: &[(&str, f64)]| pairs.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(
        counted("serin_answers_total{", "finish"),
        expect(&[("content_filter", 1.0), ("length", 1.0), ("none", 3.0), ("other", 1.0), ("stop", 4.0),]),
    );
    assert_eq!(
        counted("serin_answer_notes_total{", "note"),
        expect(&[
            ("cut", 1.0),
            ("duplicate", 1.0),
            ("empty", 1.0),
            ("malformed", 1.0),
            ("oversized", 1.0),
            ("refusal", 1.0),
            ("undecoded", 1.0),
        ]),
    );
}
