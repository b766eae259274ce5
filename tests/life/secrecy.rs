//! Nothing that names a person, lets anybody in, or was said stands in what serin writes or answers: conspicuous units,
//! tokens, prompts and answers go through a whole serin, and are looked for everywhere.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::Admin;
use crate::fixture::{shared, until};
use crate::process::Process;
use crate::receiver::Receiver;

/// What must be found nowhere. Each is a mark of its own, so that a failure names what leaked.
const SECRETS: [&str; 12] = [
    "zyx-unit-by-header",
    "zyx-unit-by-cookie",
    "zyx-unit-by-body",
    "zyx-unit-in-a-list",
    "zyx-unit-in-feedback",
    "zyx-bearer-of-a-caller",
    "zyx-password-in-a-query",
    "zyx-admin-token-0123456789",
    "zyx@example.com",
    "4111 1111 1111 1111",
    "zyx-what-was-asked",
    "zyx-what-was-answered",
];
/// The last of them are words, which samples, where somebody switches them on, are made of; their redaction takes the others.
const WORDS: usize = 2;
const TOKEN: &str = "zyx-admin-token-0123456789";

/// A model that answers what is conspicuous; every third answer of the canary is an error with it in its text.
fn model(fails: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            std::thread::spawn(move || answer(stream.unwrap(), fails && number % 3 == 0));
        }
    });
    addr
}

fn answer(mut stream: TcpStream, fails: bool) -> Option<()> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
    }
    let said = json!({"model": "m", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "zyx-what-was-answered, 4111 1111 1111 1111"}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5}});
    let (status, said) =
        if fails { (500, json!({"error": {"message": "zyx-what-was-answered"}})) } else { (200, said) };
    let said = said.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        said.len()
    );
    stream.write_all((head + &said).as_bytes()).ok()
}

fn config(dir: &Path, stable: SocketAddr, canary: SocketAddr, ops: &Receiver) -> String {
    let dir = dir.display();
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[admin.tokens]]\nname = \"olga\"\nroles = [\"owner\"]\nsecret = \"{TOKEN}\"\n\
         [listeners.edge]\nlisten = \"127.0.0.1:0\"\n[server]\nworkers = 1\n\
         [log]\nlevel = \"trace\"\nformat = \"json\"\naccess = \"{dir}/access.log\"\n\
         [store]\npath = \"{dir}/state\"\n{ops}\
         [rollouts.chat]\nmatch = {{ host = \"*\", path_prefix = \"/\" }}\nprotocol = \"openai\"\n\
         unit = [\"header:x-user-id\", \"cookie:uid\", \"body:/user\"]\nfeedback = true\n\
         trace = {{ path = \"{dir}/trace.jsonl\" }}\nsamples = {{ share = \"100%\" }}\n\
         [[rollouts.chat.cohorts]]\nname = \"testers\"\nwhen = {{ list = \"{dir}/testers.txt\" }}\nto = \"canary\"\n\
         [rollouts.chat.stable]\nversion = \"a\"\nendpoints = [\"http://{stable}\"]\n\
         [rollouts.chat.canary]\nversion = \"b\"\nendpoints = [\"http://{canary}\"]\n\
         [[rollouts.chat.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\n[[rollouts.chat.plan.stages]]\nweight = 100.0\n\
         [rollouts.chat.gates.quality_mean]\nrollback = \"-10%\"\npromote = \"-2%\"\n\
         [rollouts.chat.gates.regeneration_rate]\nrollback = \"+5pp\"\npromote = \"+1pp\"\n",
        ops = ops.config("ops"),
    )
}

/// One chat of a caller who says who he is in this header, and in the body; the whole answer.
fn ask(edge: SocketAddr, header: &str, unit: &str) -> String {
    let body = json!({"model": "m", "user": unit, "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "zyx-what-was-asked, mail zyx@example.com"}]})
    .to_string();
    let head = format!(
        "POST /v1/chat/completions?key=zyx-password-in-a-query HTTP/1.1\r\nhost: a\r\n{header}\
         authorization: Bearer zyx-bearer-of-a-caller\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(edge).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("zyx-what-was-answered"), "the model's own words pass: {answer}");
    answer
}

/// Everything below a folder but the lists and configurations that the test itself wrote.
fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for item in std::fs::read_dir(dir).unwrap().flatten() {
        let path = item.path();
        if path.is_dir() {
            files(&path, found);
        } else if !["testers.txt", "serin.toml"].contains(&path.file_name().unwrap().to_str().unwrap()) {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn no_unit_token_prompt_or_answer_stands_in_anything_that_is_written_told_or_answered() {
    let _machine = shared();
    let (ops, dir) = (Receiver::start(), tempfile::tempdir().unwrap());
    let text = config(dir.path(), model(false), model(true), &ops);
    let file = dir.path().join("serin.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::write(dir.path().join("testers.txt"), "zyx-unit-in-a-list\n").unwrap();
    let mut process = Process::start(&file);
    let mut admin = Admin::new(process.admin).with_token(TOKEN);
    admin.verb("chat", "start");
    for n in 0..40 {
        ask(process.edge, &format!("x-user-id: zyx-unit-by-header-{n}\r\n"), "other");
        ask(process.edge, &format!("cookie: a=b; uid=zyx-unit-by-cookie-{n}\r\n"), "other");
        ask(process.edge, "", &format!("zyx-unit-by-body-{n}"));
    }
    let tester = ask(process.edge, "x-user-id: zyx-unit-in-a-list\r\n", "other").to_ascii_lowercase();
    assert!(tester.contains("serin-why: cohort") && tester.contains("serin-arm: canary"), "{tester}");

    until("samples", || {
        let said = admin.must("GET", "/api/v1/samples?limit=1000", &json!(null));
        (said["items"].as_array().unwrap().len() == 121).then_some(())
    });
    // What was answered to people, beside what was written.
    let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
    let items: Vec<Value> =
        ["zyx-unit-by-header-1", "zyx-unit-by-body-2", "zyx-unit-in-feedback", "zyx-unit-in-a-list"]
            .map(|unit| json!({"rollout": "chat", "unit": unit, "metric": "quality", "value": 0.4}))
            .to_vec();
    let (status, said) = admin.call("POST", "/api/v1/feedback", &json!(items));
    assert!(status == 202 && said["accepted"].as_u64() >= Some(2) && said["rejected"][0].is_object(), "{said}");
    seen.push(("feedback".to_owned(), said.to_string().into_bytes()));
    let step = admin.must("PUT", "/api/v1/rollouts/chat/weight", &json!({"weight": 20.0, "reason": "fewer"}));
    seen.push(("weight".to_owned(), step.to_string().into_bytes()));
    seen.push(("abort".to_owned(), admin.verb("chat", "abort").to_string().into_bytes()));
    ops.wait("aborted", 1);
    for path in [
        "/metrics",
        "/api/v1/rollouts",
        "/api/v1/rollouts/chat",
        "/api/v1/journal?limit=1000",
        "/api/v1/samples?limit=1000",
        "/api/v1/feedback",
        "/api/v1/rollouts/chat/report",
        "/api/v1/rollouts/chat/report?format=md",
        "/api/v1/rollouts/chat/report?format=html",
        "/openapi.json",
    ] {
        let body = admin.text(path);
        assert!(body.len() >= 10, "{path} says something: {body}");
        seen.push((path.to_owned(), body.into_bytes()));
    }
    let (status, said) = admin.call("GET", "/api/v1/rollouts/chat/which?unit=zyx-unit-by-header-1", &json!(null));
    assert_eq!(status, 200, "{said}");
    seen.push(("which".to_owned(), said.to_string().into_bytes()));
    let stranger =
        Admin::new(process.admin).with_token("zyx-bearer-of-a-caller").call("GET", "/api/v1/journal", &json!(null));
    assert_eq!(stranger.0, 401);
    seen.push(("401".to_owned(), stranger.1.to_string().into_bytes()));
    // A file with a fault in it, where secrets stand, and an orderly end: the log has both.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("rollback = \"-10%\"", "rollback = \"zyx\"")).unwrap();
    let refused = admin.call("POST", "/api/v1/reload", &json!(null));
    assert_eq!(refused.0, 422, "{}", refused.1);
    seen.push(("reload".to_owned(), refused.1.to_string().into_bytes()));
    process.signal(Signal::TERM);
    process.signal(Signal::TERM);
    assert!(process.ended().success());
    seen.push(("the log".to_owned(), process.said().join("\n").into_bytes()));
    seen.push(("what the receiver got".to_owned(), ops.raw().join("\n").into_bytes()));
    files(dir.path(), &mut seen);

    let has = |bytes: &[u8], what: &str| bytes.windows(what.len()).any(|window| window == what.as_bytes());
    for (place, bytes) in &seen {
        let most = if place.contains("samples") { SECRETS.len() - WORDS } else { SECRETS.len() };
        let leaks: Vec<&str> = SECRETS.into_iter().take(most).filter(|secret| has(bytes, secret)).collect();
        assert!(leaks.is_empty(), "{place} has {leaks:?}");
    }
    // And that the search can find what is there: each place speaks of this very life.
    let finds = |part: &str, what: &str| {
        assert!(seen.iter().any(|(place, bytes)| place.contains(part) && has(bytes, what)), "{what} in {part}");
    };
    finds("state/journal", "fewer");
    finds("state/outbox", "aborted");
    finds("state/evidence", "chat");
    finds("trace.jsonl", "\"version\":\"canary\"");
    finds("access.log", "chat");
    finds("the log", "aborted");
    finds("what the receiver got", "webhook-id");
    finds("/metrics", "serin_requests_total");
    finds("report?format=html", "fewer");
    finds("samples", "[email]");
}
