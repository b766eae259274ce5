//! What reading costs in the whole proxy: CPU of the worker's thread for an SSE event and for a JSON answer, with readers on
//! and off in one run. A measurement and no test; run it alone, optimised:
//! `cargo test --profile sim --test it reading:: -- --ignored --nocapture`. The aim is at most +15 % an event.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::support::{Client, Proxy, Upstream};

/// Events of one stream, answers of one round.
const EVENTS: usize = 2_000;
const ANSWERS: usize = 1_000;
/// Rounds, of which the cheapest counts: what disturbs only adds.
const ROUNDS: usize = 7;

/// Time that the only worker's thread has run, in nanoseconds, user and system.
fn worker_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_worker = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("serin-worker"))
    };
    let schedstat = tasks.filter(is_worker).map(|path| std::fs::read_to_string(path.join("schedstat")).unwrap());
    schedstat.map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// An upstream that streams one event for each word of the test, and the way to say it.
fn streaming(event: &'static str) -> (Upstream, SyncSender<()>) {
    let (say, said) = sync_channel(1);
    let said: Mutex<Receiver<()>> = Mutex::new(said);
    let upstream = Upstream::start(move |peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            for n in 0..EVENTS {
                let told = said.lock().unwrap().recv();
                let event = event.replace("{n}", &n.to_string());
                if told.is_err() || !peer.try_send(format!("{:x}\r\n{event}\r\n", event.len())) {
                    return;
                }
            }
            peer.send("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
        }
    });
    (upstream, say)
}

/// The same version twice: read as `protocol` has it under `/on`, not at all under `/off`.
fn twice(addr: std::net::SocketAddr, protocol: &str) -> Proxy {
    let rollout = |name: &str, protocol: &str| {
        format!(
            "[rollouts.{name}]\nmatch = {{ host = \"*\", path_prefix = \"/{name}\" }}\nunit = [\"ip\"]\n\
             protocol = \"{protocol}\"\n[rollouts.{name}.stable]\nversion = \"v1\"\nendpoints = [\"http://{addr}\"]\n"
        )
    };
    Proxy::start(&format!("{}{}", rollout("on", protocol), rollout("off", "http")))
}

fn post(name: &str, path: &str) -> String {
    format!("POST /{name}{path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}")
}

/// The cheapest round of each, on and off by turns: nanoseconds for each of `count`.
fn cheapest(count: usize, mut round: impl FnMut(&str)) -> [f64; 2] {
    let mut best = [f64::MAX; 2];
    round("on");
    round("off");
    for _ in 0..ROUNDS {
        for (best, name) in best.iter_mut().zip(["on", "off"]) {
            let before = worker_ns();
            round(name);
            *best = best.min((worker_ns() - before) as f64 / count as f64);
        }
    }
    best
}

#[expect(clippy::print_stderr, reason = "the figures of a measurement")]
fn show(what: &str, [on, off]: [f64; 2]) {
    eprintln!("{what}: {off:.0} ns unread, {on:.0} ns read, {:+.1} %", (on / off - 1.0) * 100.0);
}

fn events() {
    let chat = "data: {\"id\":\"chatcmpl-9zK3\",\"object\":\"chat.completion.chunk\",\"created\":1732190000,\"model\":\"gpt-large-0711\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tok{n}\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    let padded = "data: {\"id\":\"chatcmpl-9zK3\",\"object\":\"chat.completion.chunk\",\"created\":1732190000,\"model\":\"gpt-large-0711\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tok{n}\"},\"logprobs\":null,\"finish_reason\":null}],\"obfuscation\":\"{n}a\"}\n\n";
    let messages = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" tok{n}\"}}\n\n";
    let gemini = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\" tok{n}\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":30},\"modelVersion\":\"gemini-x\"}\n\n";
    let counting = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\" tok{n}\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":30,\"candidatesTokenCount\":{n},\"totalTokenCount\":1{n}},\"modelVersion\":\"gemini-x\"}\n\n";
    for (what, path, event) in [
        ("chat", "/v1/chat/completions", chat),
        ("chat, padded", "/v1/chat/completions", padded),
        ("messages", "/v1/messages", messages),
        ("gemini", "/v1beta/models/x:streamGenerateContent", gemini),
        ("gemini, counting", "/v1beta/models/x:streamGenerateContent", counting),
    ] {
        let (upstream, say) = streaming(event);
        let proxy = twice(upstream.addr, "auto");
        let mut client: Client = proxy.connect();
        let of = cheapest(EVENTS, |name| {
            client.send(post(name, path));
            client.until(b"\r\n\r\n");
            for _ in 0..EVENTS {
                say.send(()).unwrap();
                client.until(b"}\n\n\r\n");
            }
            client.until(b"\r\n0\r\n\r\n");
        });
        show(&format!("an event of {what}"), of);
    }
}

fn documents() {
    for size in [500, 8_000, 100_000] {
        let text = "word ".repeat(size / 5);
        let body = format!(
            "{{\"id\":\"c\",\"object\":\"chat.completion\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":7}}}}"
        );
        let upstream = Upstream::saying(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let proxy = twice(upstream.addr, "openai");
        let mut client = proxy.connect();
        let of = cheapest(ANSWERS, |name| {
            for _ in 0..ANSWERS {
                client.send(post(name, "/v1/chat/completions"));
                client.response().unwrap();
            }
        });
        show(&format!("a document of {} bytes", body.len()), of);
    }
}

/// An answer whose language a gate of drift asks for, against one that is read without it.
fn languages() {
    let opening = "Sure! To reset your password, open the settings page, choose Security, and click Change password. \
                   If you no longer have access to your email, contact support and we will verify your identity. ";
    for (what, text) in
        [("an English answer", opening.repeat(3)), ("one in Han", "天地玄黃宇宙洪荒日月盈昃".repeat(16))]
    {
        let body = format!(
            "{{\"id\":\"c\",\"object\":\"chat.completion\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":7}}}}"
        );
        let upstream = Upstream::saying(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let addr = upstream.addr;
        let rollout = |name: &str, gate: &str| {
            let head = format!("[rollouts.{name}");
            format!(
                "{head}]\nmatch = {{ host = \"*\", path_prefix = \"/{name}\" }}\nunit = [\"ip\"]\nprotocol = \"openai\"\nweight = 0.0\n\
                 {head}.stable]\nversion = \"v1\"\nendpoints = [\"http://{addr}\"]\n\
                 {head}.canary]\nversion = \"v2\"\nendpoints = [\"http://{addr}\"]\n{head}.gates.{gate}]\n"
            )
        };
        let proxy = Proxy::start(&format!("{}{}", rollout("on", "drift_language"), rollout("off", "drift_refusal")));
        let mut client = proxy.connect();
        let of = cheapest(ANSWERS, |name| {
            for _ in 0..ANSWERS {
                client.send(post(name, "/v1/chat/completions"));
                client.response().unwrap();
            }
        });
        show(&format!("the language of {what} of {} bytes", text.len()), of);
    }
}

/// One test: two at a time would count each other's workers.
#[test]
#[ignore = "a measurement: wants an optimised build and a quiet machine"]
fn what_is_read_against_what_is_not() {
    events();
    documents();
    languages();
}
