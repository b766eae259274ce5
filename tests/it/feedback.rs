//! Feedback through the front door: an answer is asked for, then scored by id, by reference, by unit.

use serde_json::{Value, json};

use super::support::{Proxy, Response, Upstream, canary, chat, eventually, stable};

/// Everybody drawn, 30 % of them for the canary, judged; `keys` and `tables` of the rollout may be added.
fn start(before: &str, keys: &str, tables: &str) -> (Upstream, Upstream, Proxy) {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let judged = "[rollouts.chat.evaluator]\nwarm_up = \"0s\"\n";
    let tables = [stable(a.addr, ""), canary(b.addr, ""), tables.to_owned(), judged.to_owned()].concat();
    let proxy = Proxy::start(&(before.to_owned() + &chat(&format!("weight = 30.0\n{keys}"), &tables)));
    (a, b, proxy)
}

const SCORED: &str = "[rollouts.chat.gates.quality_mean]\nrollback = \"-10%\"\n";

fn ask(proxy: &Proxy, user: &str, more: &str) -> Response {
    proxy.ask(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user-id: {user}\r\n{more}\r\n"))
}

fn score(proxy: &Proxy, item: Value) -> Value {
    proxy.api("POST", "/api/v1/feedback", &item)
}

/// The guard takes an exchange in a moment after it began.
fn until_scored(proxy: &Proxy, item: &Value) {
    eventually("the score is taken", || score(proxy, item.clone())["accepted"] == 1);
}

/// The judge's count of canary scores of a gate.
fn samples(proxy: &Proxy, gate: &str) -> u64 {
    let view = proxy.api("GET", "/api/v1/rollouts/chat", &Value::Null);
    let gates = view["gates"].as_array().unwrap();
    gates.iter().find(|g| g["name"] == gate).map_or(0, |g| g["samples"].as_u64().unwrap())
}

fn arm(response: &Response) -> &str {
    response.header("serin-arm").unwrap()
}

/// A user of each arm: canary, stable.
fn two(proxy: &Proxy) -> [String; 2] {
    let of =
        |wanted: &str| (0..200).map(|n| format!("u{n}")).find(|user| arm(&ask(proxy, user, "")) == wanted).unwrap();
    [of("canary"), of("stable")]
}

#[test]
fn minted_and_callers_request_ids_lead_to_the_judge() {
    let (_a, _b, proxy) = start("", "", SCORED);
    let [canary, stable] = two(&proxy);
    let minted = ask(&proxy, &canary, "").header("x-request-id").unwrap().to_owned();
    let kept = ask(&proxy, &canary, "x-request-id: order-4711\r\n");
    assert_eq!(kept.header("x-request-id"), Some("order-4711"));
    ask(&proxy, &stable, "x-request-id: of-stable\r\n");
    for id in [minted.as_str(), "order-4711", "of-stable"] {
        until_scored(&proxy, &json!({"request_id": id, "metric": "quality", "value": 0.8}));
    }
    eventually("two of the three scores are the canary's", || samples(&proxy, "quality_mean") == 2);
    let again = score(&proxy, json!({"request_id": minted, "metric": "quality", "value": 0.8}));
    assert_eq!(again["rejected"][0]["index"], 0, "{again}");
    let unknown = score(&proxy, json!({"request_id": "nobody", "metric": "quality", "value": 0.8}));
    assert!(unknown["rejected"][0]["reason"].as_str().unwrap().contains("not known"));
    assert!((proxy.metric("serin_feedback_items_total", &["result=\"accepted\""]) - 3.0).abs() < 0.1);
    assert!((proxy.metric("serin_feedback_items_total", &["result=\"duplicate\""]) - 1.0).abs() < 0.1);
}

#[test]
fn a_ref_is_good_on_a_serin_that_has_seen_nothing() {
    let state = tempfile::tempdir().unwrap();
    let store = format!("[store]\npath = \"{}\"\n", state.path().display());
    let (_a, _b, before) = start(&store, "tag_responses = false\n", SCORED);
    let answer = ask(&before, "u1", "serin-ref: mine\r\nx-request-id: r1\r\n");
    assert_eq!(answer.header("serin-arm"), None);
    let reference = answer.header("serin-ref").unwrap().to_owned();
    assert_eq!(reference.len(), 64, "sealed although answers are not tagged: {reference}");
    drop(before);
    let (_a, _b, after) = start(&store, "tag_responses = false\n", SCORED);
    let item = |id: Value| {
        let mut item = json!({"metric": "quality", "value": 0.8});
        item.as_object_mut().unwrap().extend(id.as_object().unwrap().clone());
        item
    };
    assert_eq!(score(&after, item(json!({"request_id": "r1"})))["accepted"], 0, "ids live in one process");
    let said = score(&after, item(json!({"ref": reference})));
    assert_eq!(said["accepted"], 1, "{said}");
    let mut bent = reference;
    let last = if bent.pop() == Some('0') { '1' } else { '0' };
    bent.push(last);
    assert_eq!(score(&after, item(json!({"ref": bent})))["accepted"], 0);
}

#[test]
fn answers_carry_a_ref_only_where_feedback_is_on() {
    for (keys, tables, expect) in
        [("", "", false), ("", SCORED, true), ("feedback = false\n", SCORED, false), ("feedback = true\n", "", true)]
    {
        let (_a, _b, proxy) = start("", keys, tables);
        let answer = ask(&proxy, "u1", "serin-ref: mine\r\n");
        assert_eq!(answer.header("serin-ref").is_some(), expect, "{keys}{tables}");
        assert_ne!(answer.header("serin-ref"), Some("mine"));
    }
}

#[test]
fn off_means_that_nothing_is_remembered() {
    let (_a, _b, proxy) = start("[limits]\nfeedback_ids = 0\n", "", SCORED);
    let [canary, _] = two(&proxy);
    ask(&proxy, &canary, "x-request-id: r1\r\n");
    until_scored(&proxy, &json!({"unit": canary, "metric": "quality", "value": 0.8}));
    eventually("the unit's score is the canary's", || samples(&proxy, "quality_mean") == 1);
    assert_eq!(score(&proxy, json!({"request_id": "r1", "metric": "quality", "value": 0.8}))["accepted"], 0);
}

#[test]
fn after_an_abort_a_unit_is_still_scored_under_the_arm_that_served_it() {
    let (_a, _b, proxy) = start("", "", SCORED);
    let [canary, _] = two(&proxy);
    proxy.api("POST", "/api/v1/rollouts/chat/abort", &json!({"reason": "test"}));
    until_scored(&proxy, &json!({"unit": canary, "metric": "quality", "value": 0.1}));
    eventually("the canary's, though all are on stable now", || samples(&proxy, "quality_mean") == 1);
    let said = score(&proxy, json!({"unit": "never seen", "metric": "quality", "value": 0.1}));
    assert!(said["rejected"][0]["reason"].as_str().unwrap().contains("not served here"), "{said}");
}

#[test]
fn ten_thousand_invented_users_move_no_verdict() {
    let gate = "[rollouts.chat.gates.safety_violations]\nrollback = \"any\"\n";
    let (_a, _b, proxy) = start("", "", &[SCORED, gate].concat());
    let [canary, _] = two(&proxy);
    let lie = |n| {
        json!([{"unit": format!("invented{n}"), "metric": "safety", "value": 1},
                         {"unit": format!("invented{n}"), "metric": "quality", "value": 0}])
    };
    let lies: Vec<Value> = (0..5_000).flat_map(|n| lie(n).as_array().unwrap().clone()).collect();
    assert_eq!(score(&proxy, json!(lies))["accepted"], 0);
    // A true score comes after them, and is all that the judge has.
    until_scored(&proxy, &json!({"unit": canary, "metric": "quality", "value": 0.8}));
    eventually("the one score is seen", || samples(&proxy, "quality_mean") == 1);
    let view = proxy.api("GET", "/api/v1/rollouts/chat", &Value::Null);
    assert_eq!((&view["phase"], &view["weight"]), (&json!("running"), &json!(30.0)), "{view}");
}

#[test]
fn scores_of_every_name_reach_their_gates_and_each_knows_its_worse_side() {
    let gates = "[rollouts.chat.gates.\"score:refund\"]\ndirection = \"higher\"\non = \"hold\"\n\
                 [rollouts.chat.gates.escalation_rate]\non = \"hold\"\n\
                 [rollouts.chat.gates.eval_pass_rate]\non = \"hold\"\n\
                 [rollouts.chat.gates.thumbs_down_rate]\non = \"hold\"\n";
    let (_a, _b, proxy) = start("", "", gates);
    let [canary, stable] = two(&proxy);
    // Of the canary the worst of each, of stable the best.
    let worst = [("refund", 25.0), ("escalation", 1.0), ("eval_pass", 0.0), ("thumbs_down", 1.0)];
    for (metric, value) in worst {
        until_scored(&proxy, &json!({"unit": canary, "metric": metric, "value": value}));
        let best = if metric == "eval_pass" { 1.0 } else { 0.0 };
        until_scored(&proxy, &json!({"unit": stable, "metric": metric, "value": best}));
    }
    let shown = || {
        let view = proxy.api("GET", "/api/v1/rollouts/chat", &Value::Null);
        let gates = view["gates"].as_array().unwrap().clone();
        let of = |name: &str| gates.iter().find(|gate| gate["name"] == name).unwrap().clone();
        ["score:refund", "escalation_rate", "eval_pass_rate", "thumbs_down_rate"]
            .map(|name| (of(name)["stable"].as_f64(), of(name)["canary"].as_f64()))
    };
    let expect = [(Some(0.0), Some(25.0)), (Some(0.0), Some(1.0)), (Some(1.0), Some(0.0)), (Some(0.0), Some(1.0))];
    eventually(&format!("all four are shown: {:?}", shown()), || shown() == expect);
}

#[test]
fn without_feedback_neither_request_ids_nor_units_are_remembered() {
    for (keys, accepted) in [("", 2), ("feedback = false", 0)] {
        let (_a, _b, proxy) = start("", keys, "");
        let [canary, stable] = two(&proxy);
        ask(&proxy, &canary, "x-request-id: order-4712\r\n");
        proxy.until_metric("serin_requests_in_flight", &[], 0.0);
        let by_id = json!({"request_id": "order-4712", "metric": "quality", "value": 0.8});
        let by_unit = json!({"unit": stable, "rollout": "chat", "metric": "quality", "value": 0.8});
        if accepted > 0 {
            until_scored(&proxy, &by_id);
            until_scored(&proxy, &by_unit);
        } else {
            // The guard has drained the rings twice by the time the judge has shown two turns.
            let turns = || proxy.metric("serin_evaluator_heartbeat_timestamp_seconds", &[]);
            let before = turns();
            eventually("two turns of the evaluator", || turns() > before + 0.4);
            for item in [by_id, by_unit] {
                let told = score(&proxy, item);
                assert_eq!(
                    (&told["accepted"], told["rejected"].as_array().map(Vec::len)),
                    (&json!(0), Some(1)),
                    "{told}"
                );
            }
        }
    }
}
