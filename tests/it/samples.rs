//! Samples out, scores in: the loop of a scorer through the front door.

use serde_json::{Value, json};

use super::support::{Proxy, Upstream, canary, chat, eventually, stable};

const ANSWER: &str = "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Mail jo@example.com, he knows.\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}";

fn upstream() -> Upstream {
    Upstream::saying(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    ))
}

fn start(samples: &str) -> (Upstream, Upstream, Proxy) {
    let (a, b) = (upstream(), upstream());
    let tables = [
        stable(a.addr, ""),
        canary(b.addr, ""),
        "[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n[rollouts.chat.gates.quality_mean]\nrollback = \"-10%\"\n"
            .to_owned(),
    ];
    let proxy = Proxy::start(&chat(&format!("weight = 50.0\n{samples}"), &tables.concat()));
    (a, b, proxy)
}

fn visit(proxy: &Proxy, users: u32) {
    for n in 0..users {
        let body = format!(
            "{{\"user\":\"u{n}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Who is it? Call +49 30 1234567\"}}]}}"
        );
        let answer = proxy.ask(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-user-id: u{n}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(answer.text(), ANSWER);
    }
}

fn taken(proxy: &Proxy) -> Vec<Value> {
    proxy.api("GET", "/api/v1/samples?limit=1000", &Value::Null)["items"].as_array().unwrap().clone()
}

#[test]
fn a_scorer_reads_samples_and_its_scores_reach_the_gate() {
    let (_a, _b, proxy) = start("samples = { share = \"100%\" }");
    visit(&proxy, 40);
    eventually("all are samples", || taken(&proxy).len() == 40);
    let all = taken(&proxy);
    let one = &all[0];
    assert_eq!(one["answer"], "Mail [email], he knows.");
    let request = one["request"].as_str().unwrap();
    assert!(request.contains("Call [number]") && request.contains("\"user\":\"[redacted]\""), "{request}");
    assert_eq!((&one["tokens"], &one["outcome"], &one["status"]), (&json!([7, 5]), &json!("success"), &json!(200)));
    let scores: Vec<Value> = all.iter().map(|s| json!({"ref": s["ref"], "metric": "quality", "value": 0.9})).collect();
    let said = proxy.api("POST", "/api/v1/feedback", &json!(scores));
    assert_eq!(said["accepted"], 40, "{said}");
    let canaries = all.iter().filter(|s| s["arm"] == "canary").count() as u64;
    assert!((8..33).contains(&canaries), "both arms are sampled: {canaries}");
    eventually("the gate has the canary's scores", || {
        proxy.api("GET", "/api/v1/rollouts/chat", &Value::Null)["gates"][0]["samples"] == json!(canaries)
    });
    let again = proxy.api("POST", "/api/v1/feedback", &json!(scores));
    assert_eq!(again["accepted"], 0, "the loop may run twice");
    let next = all[39]["number"].as_u64().unwrap();
    let rest = proxy.api("GET", &format!("/api/v1/samples?rollout=chat&after={next}"), &Value::Null);
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (0, &json!(next)));
}

#[test]
fn nothing_is_taken_where_nothing_is_asked_for_and_no_text_where_none_is_wanted() {
    let (_a, _b, proxy) = start("");
    visit(&proxy, 5);
    let said = proxy.api("GET", "/api/v1/samples?rollout=chat", &Value::Null);
    assert!(said["detail"].as_str().unwrap().contains("takes no samples"), "{said}");
    let (_a, _b, proxy) = start("samples = { share = \"100%\", text = \"none\", keep = 3 }");
    visit(&proxy, 9);
    eventually("the newest three are kept", || taken(&proxy).last().is_some_and(|s| s["number"] == 9));
    let all = taken(&proxy);
    assert_eq!((all.len(), &all[0]["request"], &all[0]["answer"]), (3, &Value::Null, &Value::Null));
}

#[test]
fn a_scorer_may_be_told_and_one_that_hangs_delays_nobody() {
    let scorer = Upstream::saying("HTTP/1.1 204 No Content\r\n\r\n");
    let (_a, _b, proxy) =
        start(&format!("samples = {{ share = \"100%\", push = \"http://{}/batch?key=k\" }}", scorer.addr));
    visit(&proxy, 5);
    scorer.until_requests(1);
    let request = scorer.last();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/batch?key=k"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&body["rollout"], &body["items"][0]["answer"]), (&json!("chat"), &json!("Mail [email], he knows.")));
    let hangs = Upstream::start(|peer| {
        peer.request();
        peer.until_closed();
    });
    let (_a, _b, proxy) = start(&format!("samples = {{ share = \"100%\", push = \"http://{}\" }}", hangs.addr));
    visit(&proxy, 5);
    hangs.until_requests(1);
    visit(&proxy, 5);
    proxy.until_outcome("success", 10.0);
}
