//! Drift through the front door: the language, the length and the tools of both arms' answers, shown and held.

use std::sync::atomic::{AtomicUsize, Ordering};

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

const ENGLISH: &str = "Sure! To reset your password, open the settings page and click \"Change password\".";
const GERMAN: &str =
    "Gerne! Um Ihr Passwort zurückzusetzen, öffnen Sie die Einstellungen und klicken Sie auf „Ändern“.";
const SPANISH: &str = "¡Claro! Para restablecer tu contraseña, abre la página de configuración y pulsa «Cambiar».";

/// Both arms at half the traffic, each answering these in turn, under gates of drift.
struct Arms {
    proxy: Proxy,
    _upstreams: [Upstream; 2],
}

impl Arms {
    fn new(answers: [Vec<String>; 2], gates: &str) -> Self {
        let upstreams = answers.map(|answers| {
            let turn = AtomicUsize::new(0);
            Upstream::start(move |peer| {
                while peer.request().is_some() {
                    peer.send(&answers[turn.fetch_add(1, Ordering::Relaxed) % answers.len()]);
                }
            })
        });
        let judged = "[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n";
        let [a, b] = &upstreams;
        let tables = [stable(a.addr, ""), canary(b.addr, ""), judged.to_owned(), gates.to_owned()];
        let proxy = Proxy::start(&chat("weight = 50.0\nprotocol = \"openai\"", &tables.concat()));
        Self { proxy, _upstreams: upstreams }
    }

    fn ask(&self, users: usize) {
        for n in 0..users {
            self.proxy.ask(format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u{n}\r\ncontent-length: 2\r\n\r\n{{}}"
            ));
        }
    }

    fn rollout(&self) -> Value {
        let (mut client, admin) = (Client::connect(self.proxy.admin), self.proxy.admin);
        client.send(format!("GET /api/v1/rollouts/chat HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n"));
        serde_json::from_str(&client.response().unwrap().text()).unwrap()
    }

    /// The gates of these names, or of every one.
    fn gates(&self, of: impl Fn(&Value) -> bool) -> Vec<Value> {
        let gates = self.rollout()["gates"].clone();
        gates.as_array().unwrap().iter().filter(|gate| of(gate)).cloned().collect()
    }

    /// A class's share of stable's answers, and of the canary's.
    fn shares(&self, name: &str) -> (Option<f64>, Option<f64>) {
        let gate = self.gates(|gate| gate["name"] == name).remove(0);
        (gate["stable"].as_f64(), gate["canary"].as_f64())
    }

    /// The gates that fail, by name.
    fn held(&self) -> Vec<String> {
        let failed = self.gates(|gate| gate["result"] == "fail");
        let mut names: Vec<_> = failed.iter().map(|gate| gate["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Nothing was rolled back.
    fn stands(&self) -> bool {
        let rollout = self.rollout();
        (rollout["phase"].as_str(), rollout["weight"].as_f64()) == (Some("running"), Some(50.0))
    }
}

#[test]
fn what_both_arms_answer_is_compared_by_class() {
    let gates = ["drift_language", "drift_tools", "drift_length", "drift_refusal"];
    let gates: String = gates.iter().map(|gate| format!("[rollouts.chat.gates.{gate}]\n")).collect();
    let answers = [vec![says(ENGLISH, 20, false)], vec![says("天地玄黃宇宙洪荒日月盈昃", 20, true)]];
    let arms = Arms::new(answers, &gates);
    arms.ask(60);
    for (gate, expect) in [
        ("drift_language/han", (Some(0.0), Some(1.0))),
        ("drift_language/english", (Some(1.0), Some(0.0))),
        ("drift_language/latin", (Some(0.0), Some(0.0))),
        ("drift_tools/more", (Some(0.0), Some(1.0))),
        ("drift_tools/less", (Some(1.0), Some(0.0))),
        ("drift_refusal/more", (Some(0.0), Some(0.0))),
    ] {
        eventually(gate, || arms.shares(gate) == expect);
    }
    eventually("the classes that grew are held", || {
        let mut held = arms.held();
        // Of the eight classes of tools, the one of this installation in which its tool falls.
        let classes = held.extract_if(.., |gate| gate.starts_with("drift_tools/tool")).count();
        classes == 1 && held == ["drift_language/han", "drift_tools/more"]
    });
    assert!(arms.stands());
}

#[test]
fn a_canary_that_answers_in_another_language_of_the_same_letters_is_held() {
    let answers = [vec![says(ENGLISH, 20, false)], vec![says(GERMAN, 20, false)]];
    let arms = Arms::new(answers, "[rollouts.chat.gates.drift_language]\n");
    arms.ask(60);
    eventually("German is what grew", || arms.held() == ["drift_language/german"]);
    assert_eq!(arms.shares("drift_language/german"), (Some(0.0), Some(1.0)));
    assert_eq!(arms.shares("drift_language/english"), (Some(1.0), Some(0.0)));
    assert!(arms.stands());
}

#[test]
fn the_same_mixture_of_languages_in_both_arms_is_not_held() {
    let mixture = || {
        let texts =
            [ENGLISH, GERMAN, ENGLISH, "Ja, sehr gerne!", ENGLISH, SPANISH, "天地玄黃宇宙洪荒日月盈昃", "[1, 2, 3]"];
        texts.map(|text| says(text, 20, false)).to_vec()
    };
    // Told to roll back: what only holds could be overlooked.
    let arms = Arms::new([mixture(), mixture()], "[rollouts.chat.gates.drift_language]\non = \"rollback\"\n");
    arms.ask(200);
    // A list of numbers has no language.
    let known = || {
        let gate = arms.gates(|gate| gate["name"] == "drift_language/english").remove(0);
        gate["samples"].as_u64() >= Some(70)
    };
    eventually("nearly all of the canary's answers are known", known);
    let near = |share: Option<f64>, to: f64| share.is_some_and(|share| (share - to).abs() < 0.06);
    for (class, expect) in [("english", 3.0 / 7.0), ("german", 1.0 / 7.0), ("latin", 1.0 / 7.0), ("han", 1.0 / 7.0)] {
        let (stable, canary) = arms.shares(&format!("drift_language/{class}"));
        assert!(near(stable, expect) && near(canary, expect), "{class}: {stable:?} {canary:?}");
    }
    assert_eq!(arms.held(), Vec::<String>::new());
    assert!(arms.stands());
}
