//! The admin API through its front door, in memory: every route, every refusal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::{StatusCode, header};
use serde_json::{Value, json};

use super::router::ROUTES;
use super::testing::{Bench, Seen, TOKENS, bench, view};
use crate::evaluator::{Ask, Refused};
use crate::judge::{Fact, Metric, Outcome};
use crate::measure::{Answer, Limit, Observation};
use crate::names::{Arm, Mono, RolloutName, VersionName};
use crate::rollout::{Role, Verb, VerbArgs};
use crate::split::{OpenCohorts, Weight};

const OWNER: &str = "owner-secret-0123456789";
const PEOPLE: [(Role, &str); 5] = [
    (Role::Viewer, "viewer-secret-0123456789"),
    (Role::Reporter, "reporter-secret-0123456789"),
    (Role::Operator, "operator-secret-0123456789"),
    (Role::Approver, "approver-secret-0123456789"),
    (Role::Owner, OWNER),
];

fn is_problem(seen: &Seen, status: u16) -> Value {
    assert_eq!(seen.status.as_u16(), status, "{}", seen.text);
    assert_eq!(seen.headers[header::CONTENT_TYPE], "application/problem+json");
    let json = seen.json();
    assert_eq!(json["status"], status);
    for key in ["type", "title", "detail", "remedy"] {
        assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {json}");
    }
    json
}

fn good(bench: &Bench) -> std::thread::JoinHandle<Option<crate::evaluator::Command>> {
    bench.answer(|_| Ok(Arc::new(view("running", 10.0))))
}

#[tokio::test]
async fn probes_and_metrics_need_no_token_and_everything_else_does() {
    let bench = bench(TOKENS);
    for (method, path) in ROUTES {
        let path = path.replace("{name}", "chat").replace("{verb}", "pause");
        let seen = bench.send(&method.to_uppercase(), &path, &[], "").await;
        let open = ["/livez", "/readyz", "/metrics", "/openapi.json", "/", "/dashboard/style.css", "/dashboard/app.js"];
        if open.contains(&path.as_str()) {
            assert_eq!(seen.status, StatusCode::OK, "{path}");
        } else if path == "/login" || path == "/logout" {
            assert_eq!(seen.status.as_u16(), if path == "/login" { 401 } else { 303 });
        } else {
            is_problem(&seen, 401);
            assert!(seen.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
        }
        let wrong = bench.send(&method.to_uppercase(), &path, &[("authorization", "Bearer nobody")], "").await;
        assert_eq!(wrong.status == StatusCode::UNAUTHORIZED, seen.status == StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn every_role_may_do_what_the_table_says_and_nothing_else() {
    for (role, token) in PEOPLE {
        let bench = bench(TOKENS).with_token(token);
        bench.running(10.0);
        let reads = role != Role::Reporter;
        for path in
            ["/api/v1/rollouts", "/api/v1/rollouts/chat", "/api/v1/rollouts/chat/which?unit=u", "/api/v1/feedback"]
        {
            let seen = bench.ask("GET", path, "").await;
            assert_eq!(seen.status, if reads { StatusCode::OK } else { StatusCode::FORBIDDEN }, "{role:?} {path}");
        }
        for name in Verb::NAMES {
            let args = VerbArgs { full: false, by: Some(Duration::from_secs(1)), weight: Some(Weight::ZERO) };
            let may = Verb::parse(name, args).unwrap().roles().contains(&role);
            let evaluator = may.then(|| good(&bench));
            let seen = match name {
                "set weight" => bench.ask("PUT", "/api/v1/rollouts/chat/weight", "{\"weight\": 5}").await,
                "extend" => bench.ask("POST", "/api/v1/rollouts/chat/extend", "{\"by\": \"1s\"}").await,
                _ => bench.ask("POST", &format!("/api/v1/rollouts/chat/{name}"), "").await,
            };
            if may {
                assert_eq!(seen.status, StatusCode::OK, "{role:?} {name}: {}", seen.text);
                let command = evaluator.unwrap().join().unwrap().unwrap();
                assert_eq!((command.verb.name(), command.actor.roles), (name, vec![role]));
            } else {
                is_problem(&seen, 403);
            }
        }
        let full = bench.send("POST", "/api/v1/rollouts/chat/promote", &[], "{\"full\": true}");
        if role != Role::Owner {
            is_problem(&full.await, 403);
        }
        let reload = bench.ask("POST", "/api/v1/reload", "").await;
        is_problem(&reload, if matches!(role, Role::Operator | Role::Owner) { 422 } else { 403 });
        let feedback = bench.ask("POST", "/api/v1/feedback", r#"{"unit":"u","metric":"quality","value":1}"#).await;
        let reports = matches!(role, Role::Reporter | Role::Owner);
        assert_eq!(feedback.status.as_u16(), if reports { 202 } else { 403 }, "{role:?}");
    }
}

#[tokio::test]
async fn without_tokens_the_actor_is_local_and_owns_everything() {
    let bench = bench("");
    bench.running(10.0);
    let evaluator = good(&bench);
    assert_eq!(bench.ask("POST", "/api/v1/rollouts/chat/promote", "{\"full\":true}").await.status, StatusCode::OK);
    let command = evaluator.join().unwrap().unwrap();
    assert_eq!(command.actor.name, "local");
    assert_eq!(command.verb, Verb::Promote { full: true });
}

#[tokio::test]
async fn a_read_is_the_whole_rollout() {
    let bench = bench("");
    bench.running(10.0);
    bench.clock.advance(Duration::from_millis(700));
    let list = bench.ask("GET", "/api/v1/rollouts", "").await.json();
    let one = bench.ask("GET", "/api/v1/rollouts/chat", "").await;
    assert_eq!(list["items"], json!([one.json()]));
    assert_eq!(one.headers[header::ETAG], "\"41\"");
    let json = one.json();
    for key in [
        "name",
        "phase",
        "why",
        "verdict",
        "generation",
        "weight",
        "weight_actual",
        "stages",
        "stage",
        "started_by",
        "paused",
        "soak_ends_at",
        "next_version",
        "latch",
        "arms",
        "gates",
        "exposed",
        "heartbeat_age_s",
        "allowed",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["heartbeat_age_s"], 0.7);
    assert_eq!(json["stage"]["approvals"], json!({"needed": 1, "given": ["anna"]}));
    is_problem(&bench.ask("GET", "/api/v1/rollouts/nobody", "").await, 404);
    is_problem(&bench.ask("GET", "/nothing", "").await, 404);
    is_problem(&bench.ask("DELETE", "/api/v1/rollouts/chat", "").await, 405);
}

#[tokio::test]
async fn a_rollout_that_was_never_judged_is_shown_from_the_snapshot() {
    let bench = bench("");
    let json = bench.ask("GET", "/api/v1/rollouts/chat", "").await.json();
    assert_eq!((&json["phase"], &json["weight"]), (&json!("idle"), &json!(0.0)));
    assert_eq!(json["arms"]["canary"]["version"], "b");
    assert_eq!(json["arms"]["stable"]["endpoints"], json!({"healthy": 1, "all": 1}));
}

#[tokio::test]
async fn a_change_carries_its_actor_reason_and_generation() {
    let bench = bench(TOKENS).with_token("operator-secret-0123456789");
    bench.running(10.0);
    let evaluator = good(&bench);
    let seen = bench
        .send("PUT", "/api/v1/rollouts/chat/weight", &[("if-match", "\"41\"")], r#"{"weight": 5.5, "reason": "try"}"#)
        .await;
    assert_eq!((seen.status, seen.json()["name"].as_str()), (StatusCode::OK, Some("chat")));
    assert_eq!(seen.headers[header::ETAG], "\"41\"");
    let command = evaluator.join().unwrap().unwrap();
    assert_eq!(command.verb, Verb::SetWeight(Weight::from_percent(5.5).unwrap()));
    assert_eq!((command.actor.name.as_str(), command.reason.as_str(), command.if_match), ("olga", "try", Some(41)));
    let evaluator = good(&bench);
    bench.ask("POST", "/api/v1/rollouts/chat/extend", r#"{"by": "24h"}"#).await;
    assert_eq!(evaluator.join().unwrap().unwrap().verb, Verb::Extend { by: Duration::from_secs(86_400) });
}

#[tokio::test]
async fn refusals_of_the_evaluator_become_their_statuses() {
    let bench = bench("");
    bench.running(10.0);
    for (refused, status) in [
        (Refused::NotFound("chat".into()), 404),
        (Refused::Forbidden("only an owner may".into()), 403),
        (Refused::Conflict { why: "it is running".into(), allowed: vec!["pause", "abort"] }, 409),
        (Refused::Invalid("a clear needs its root cause".into()), 422),
        (Refused::Changed(43), 412),
        (Refused::Unavailable("the disk is full".into()), 503),
    ] {
        let evaluator = bench.answer(move |_| Err(refused));
        let json = is_problem(&bench.ask("POST", "/api/v1/rollouts/chat/start", "").await, status);
        evaluator.join().unwrap();
        if status == 409 {
            assert_eq!(json["allowed"], json!(["pause", "abort"]));
        }
    }
}

#[tokio::test]
async fn a_wrong_body_is_refused_before_anybody_is_asked() {
    let bench = bench("");
    bench.running(10.0);
    let weight = "/api/v1/rollouts/chat/weight";
    let verb = |verb: &str| format!("/api/v1/rollouts/chat/{verb}");
    for (method, path, body, status) in [
        ("PUT", weight.to_owned(), "", 422),
        ("PUT", weight.to_owned(), "{", 400),
        ("PUT", weight.to_owned(), "{\"weight\": 101}", 422),
        ("PUT", weight.to_owned(), "{\"weight\": -1}", 422),
        ("PUT", weight.to_owned(), "{\"weight\": 0.0005}", 422),
        ("PUT", weight.to_owned(), "{\"weight\": \"5\"}", 422),
        ("POST", verb("pause"), "{\"resaon\": \"typo\"}", 422),
        ("POST", verb("extend"), "", 422),
        ("POST", verb("extend"), "{\"by\": \"soon\"}", 422),
        ("POST", verb("explode"), "", 404),
        ("POST", verb("set%20weight"), "", 404),
        ("POST", "/api/v1/rollouts/nobody/pause".to_owned(), "", 404),
    ] {
        is_problem(&bench.ask(method, &path, body).await, status);
    }
    let long = format!("{{\"reason\": \"{}\"}}", "x".repeat(3_000));
    is_problem(&bench.ask("POST", &verb("pause"), &long).await, 422);
    let huge = format!("{{\"reason\": \"{}\"}}", "x".repeat(100_000));
    is_problem(&bench.ask("POST", &verb("pause"), &huge).await, 413);
    is_problem(&bench.send("POST", &verb("pause"), &[("if-match", "latest")], "").await, 422);
    assert!(bench.inbox.lock().unwrap().next(Duration::ZERO).unwrap().is_none(), "nobody was asked");
}

#[tokio::test]
async fn a_stale_evaluator_freezes_every_verb_but_abort() {
    let bench = bench("");
    bench.running(10.0);
    bench.clock.advance(Duration::from_secs(11));
    for verb in Verb::NAMES.into_iter().filter(|verb| !["abort", "set weight"].contains(verb)) {
        let body = if verb == "extend" { "{\"by\":\"1h\"}" } else { "" };
        let seen = bench.ask("POST", &format!("/api/v1/rollouts/chat/{verb}"), body).await;
        is_problem(&seen, 503);
        assert_eq!(seen.headers[header::RETRY_AFTER], "1");
    }
    is_problem(&bench.ask("PUT", "/api/v1/rollouts/chat/weight", "{\"weight\": 1}").await, 503);
    let seen = bench.ask("POST", "/api/v1/rollouts/chat/abort", "{\"reason\": \"it lies\"}").await;
    assert_eq!(seen.status, StatusCode::OK);
    let json = seen.json();
    assert_eq!((&json["phase"], &json["weight"]), (&json!("rolled_back"), &json!(0.0)));
    assert_eq!(json["latch"]["reason"], "it lies");
    assert_eq!(json["latch"]["actor"], "local");
    assert_eq!(json["allowed"], json!(["clear"]));
    let snapshot = bench.live.load();
    let runtime = &snapshot.rollout("chat").unwrap().runtime;
    assert_eq!((runtime.weight, &runtime.open), (Weight::ZERO, &OpenCohorts::None));
    assert!(runtime.latch.is_some());
    let letter = bench.inbox.lock().unwrap().next(Duration::ZERO).unwrap().unwrap();
    assert!(matches!(letter.ask, Ask::Command(command) if command.verb == Verb::Abort), "told, so that it is recorded");
}

#[tokio::test]
async fn abort_is_in_force_before_the_evaluator_hears_of_it() {
    let bench = bench("");
    bench.running(10.0);
    let live = bench.live.clone();
    let evaluator = bench.answer(move |_| {
        assert!(live.load().rollout("chat").unwrap().runtime.latch.is_some());
        Err(Refused::Conflict { why: "adopted the latch already".into(), allowed: vec!["clear"] })
    });
    let seen = bench.ask("POST", "/api/v1/rollouts/chat/abort", "").await;
    assert_eq!((seen.status, seen.json()["phase"].clone()), (StatusCode::OK, json!("rolled_back")));
    evaluator.join().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn abort_waits_two_seconds_for_a_silent_evaluator_and_no_longer() {
    let bench = bench("");
    bench.running(10.0);
    let begun = tokio::time::Instant::now();
    let seen = bench.ask("POST", "/api/v1/rollouts/chat/abort", "").await;
    assert_eq!((seen.status, seen.json()["weight"].clone()), (StatusCode::OK, json!(0.0)));
    assert_eq!(begun.elapsed().as_secs(), 2);
    is_problem(&bench.ask("POST", "/api/v1/rollouts/chat/pause", "").await, 503);
}

#[tokio::test]
async fn abort_where_nothing_runs_changes_nothing() {
    let bench = bench("");
    let idle = bench.ask("POST", "/api/v1/rollouts/chat/abort", "").await;
    assert_eq!((idle.status, idle.json()["phase"].clone()), (StatusCode::OK, json!("idle")));
    for phase in ["idle", "rolled_back"] {
        bench.board.post(vec![Arc::new(view(phase, 0.0))]);
        let before = bench.live.load().generation;
        let seen = bench.ask("POST", "/api/v1/rollouts/chat/abort", "").await;
        assert_eq!((seen.status, seen.json()["phase"].clone()), (StatusCode::OK, json!(phase)));
        assert_eq!(bench.live.load().generation, before);
    }
    assert!(bench.live.load().rollout("chat").unwrap().runtime.latch.is_none());
    assert!(bench.inbox.lock().unwrap().next(Duration::ZERO).unwrap().is_none());
    is_problem(&bench.ask("POST", "/api/v1/rollouts/nobody/abort", "").await, 404);
}

#[tokio::test]
async fn abort_latches_what_the_board_has_not_heard_of_yet() {
    let bench = bench("");
    bench.running(10.0);
    bench.board.post(vec![Arc::new(view("idle", 0.0))]);
    let evaluator = good(&bench);
    assert_eq!(bench.ask("POST", "/api/v1/rollouts/chat/abort", "").await.json()["weight"], 0.0);
    evaluator.join().unwrap().unwrap();
    assert!(bench.live.load().rollout("chat").unwrap().runtime.latch.is_some());
}

#[tokio::test]
async fn a_stale_generation_refuses_even_an_abort() {
    let bench = bench("");
    bench.running(10.0);
    let seen = bench.send("POST", "/api/v1/rollouts/chat/abort", &[("if-match", "\"40\"")], "").await;
    is_problem(&seen, 412);
    assert!(bench.live.load().rollout("chat").unwrap().runtime.latch.is_none());
}

#[tokio::test]
async fn a_change_with_a_key_happens_once() {
    let bench = bench("");
    bench.running(10.0);
    let evaluator = good(&bench);
    let (path, body) = ("/api/v1/rollouts/chat/pause", "{\"reason\":\"once\"}");
    let first = bench.send("POST", path, &[("idempotency-key", "k1")], body).await;
    evaluator.join().unwrap().unwrap();
    let second = bench.send("POST", path, &[("idempotency-key", "k1")], body).await;
    assert_eq!((first.status, &first.text), (second.status, &second.text));
    assert_eq!(second.headers[header::ETAG], "\"41\"");
    assert!(bench.inbox.lock().unwrap().next(Duration::ZERO).unwrap().is_none(), "the second was not posted");
    is_problem(&bench.send("POST", path, &[("idempotency-key", "k1")], "").await, 422);
    let evaluator = bench.answer(|_| Err(Refused::Conflict { why: "no".into(), allowed: vec![] }));
    is_problem(&bench.send("POST", path, &[("idempotency-key", "k2")], body).await, 409);
    evaluator.join().unwrap().unwrap();
    is_problem(&bench.send("POST", path, &[("idempotency-key", "k2")], body).await, 409);
}

#[tokio::test]
async fn another_site_is_not_answered() {
    let bench = bench("");
    for (name, value, status) in [
        ("host", "evil.example", 403),
        ("host", "localhost:8081", 200),
        ("host", "serin.internal", 200),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://127.0.0.1:8081", 200),
        ("origin", "https://serin.internal", 200),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-origin", 200),
    ] {
        let seen = bench.send("GET", "/api/v1/rollouts", &[(name, value)], "").await;
        assert_eq!(seen.status.as_u16(), status, "{name}: {value}");
        if status == 403 {
            is_problem(&seen, 403);
        }
    }
    assert_eq!(bench.send("GET", "/readyz", &[("host", "10-0-0-9.pod")], "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn readiness_follows_listeners_drain_and_stable() {
    let bench = bench("");
    let ready = async || bench.ask("GET", "/readyz", "").await.status.as_u16();
    assert_eq!(ready().await, 200);
    bench.gauges.serving.store(false, Ordering::Relaxed);
    assert_eq!(ready().await, 503);
    bench.gauges.serving.store(true, Ordering::Relaxed);
    let snapshot = bench.live.load();
    let rollout = snapshot.rollout("chat").unwrap();
    rollout.target(Arm::Canary).cluster.endpoints[0].set_healthy(false);
    assert_eq!(ready().await, 200, "a dead canary never makes it unready");
    rollout.target(Arm::Stable).cluster.endpoints[0].set_healthy(false);
    assert_eq!(ready().await, 503);
    rollout.target(Arm::Stable).cluster.endpoints[0].set_healthy(true);
    bench.gauges.draining.store(true, Ordering::Relaxed);
    assert_eq!(ready().await, 503);
    assert_eq!(bench.ask("GET", "/livez", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn liveness_is_that_of_every_worker_and_not_of_the_evaluator() {
    let bench = bench("");
    let live = async || bench.ask("GET", "/livez", "").await;
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(live().await.status, 200);
    bench.gauges.pulses.beat(0, bench.clock.now());
    bench.clock.advance(Duration::from_secs(2));
    let seen = live().await;
    assert_eq!((seen.status.as_u16(), seen.text.as_str()), (503, "not live: worker 1 has been silent for 12 s\n"));
    let text = bench.ask("GET", "/metrics", "").await.text;
    let wall_s = bench.clock.wall().0 / 1_000;
    for (worker, silence) in [(0, 2), (1, 12)] {
        let line = format!("serin_worker_heartbeat_timestamp_seconds{{worker=\"{worker}\"}} {}", wall_s - silence);
        assert!(text.contains(&line), "{line}");
    }
    // One that has ended as it was told to is silent by right; the evaluator, silent for as long, is not asked.
    bench.gauges.pulses.rest(1);
    assert_eq!(live().await.status, 200);
    assert!(!bench.ask("GET", "/metrics", "").await.text.contains("{worker=\"1\"}"));
}

#[tokio::test]
async fn which_says_where_a_unit_goes_and_what_could_change_it() {
    let bench = bench("");
    bench.running(50.0);
    let (mut canaries, mut stables) = (0, 0);
    for n in 0..40 {
        let json = bench.ask("GET", &format!("/api/v1/rollouts/chat/which?unit=user-{n}"), "").await.json();
        let from = json["would_be_canary_from"].as_f64().unwrap();
        let is_canary = json["arm"] == "canary";
        assert_eq!(is_canary, from <= 50.0, "{json}");
        assert_eq!(json["version"], if is_canary { "b" } else { "a" });
        assert_eq!((&json["why"], &json["weight"]), (&json!("bucket"), &json!(50.0)));
        assert_eq!(json["may_change"], json!([{"cohort": "internal", "to": "canary", "looks_at": ["header x-org"]}]));
        assert!(!json.to_string().contains("user-"), "a unit is never said back");
        if is_canary { canaries += 1 } else { stables += 1 }
    }
    assert!(canaries > 5 && stables > 5);
    is_problem(&bench.ask("GET", "/api/v1/rollouts/chat/which?unit=", "").await, 422);
    is_problem(&bench.ask("GET", "/api/v1/rollouts/chat/which", "").await, 422);
    is_problem(&bench.ask("GET", "/api/v1/rollouts/nobody/which?unit=u", "").await, 404);
    bench.clock.advance(Duration::from_secs(60));
    bench.ask("POST", "/api/v1/rollouts/chat/abort", "").await;
    let json = bench.ask("GET", "/api/v1/rollouts/chat/which?unit=u", "").await.json();
    assert_eq!((&json["arm"], &json["why"]), (&json!("stable"), &json!("latched")));
}

/// The guard has seen a canary's answer to this unit, when the clock began.
fn served(bench: &Bench, unit: &str) {
    let fixed = &bench.cx.snapshot().rollouts[0].fixed;
    let user = crate::split::Unit::new(unit.as_bytes()).unwrap().key(fixed.key_seed).0;
    let fact = Fact::Start { id: 1, at: Mono(0), arm: Arm::Canary, user, drawn: true };
    let record = crate::measure::ring::Record { rollout: 0, request: 0, fact };
    bench.cx.parts().memory.lock().take_in(&[record], |_| Some(fixed.marks.release));
}

#[tokio::test]
async fn a_score_by_unit_reaches_the_judge_under_the_units_arm() {
    let bench = bench("");
    bench.running(50.0);
    bench.clock.advance(Duration::from_secs(5));
    let at = crate::names::Wall(bench.clock.wall().0 - 3_000).rfc3339();
    served(&bench, "u1");
    let body = json!([
        {"unit": "u1", "rollout": "chat", "metric": "quality", "value": 0.93, "at": at},
        {"unit": "u1", "metric": "tone", "value": 1.0},
        {"unit": "u1", "rollout": "nobody", "metric": "quality", "value": 1.0},
        {"request_id": "r", "metric": "quality", "value": 1.0},
        {"metric": "quality", "value": 1.0},
        {"unit": "u1", "metric": "bad name", "value": 1.0},
        {"unit": "u1", "metric": "quality"},
        {"version": "b", "metric": "quality", "value": 0.5},
        {"version": "zzz", "metric": "quality", "value": 0.5},
    ]);
    let seen = bench.ask("POST", "/api/v1/feedback", &body.to_string()).await;
    assert_eq!(seen.status, StatusCode::ACCEPTED);
    let json = seen.json();
    assert_eq!(json["accepted"], 3, "{json}");
    let indices: Vec<_> = json["rejected"].as_array().unwrap().iter().map(|r| r["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [2, 3, 4, 5, 6, 8]);
    let mut facts = Vec::new();
    while let Ok(Some(letter)) = bench.inbox.lock().unwrap().next(Duration::ZERO) {
        let Ask::Scores(scores) = letter.ask else { panic!("not a score") };
        facts.extend(scores.into_iter().map(|score| score.fact));
    }
    let [Fact::Score { arm, user, drawn, metric, value, arrived, known }, Fact::Score { metric: tone, .. }] =
        &facts[..]
    else {
        panic!("{facts:?}")
    };
    assert_eq!((*arm, *drawn, metric, *value), (Arm::Canary, true, &Metric::Quality, 0.93));
    assert_eq!((known.since(*arrived), *user != 0), (Duration::from_secs(3), true));
    assert_eq!(*tone, Metric::Score("tone".into()));
    let shown = bench.ask("GET", "/api/v1/feedback", "").await.json();
    assert_eq!((&shown["items"][0]["version"], &shown["items"][0]["mean"]), (&json!("b"), &json!(0.5)));
    is_problem(&bench.ask("POST", "/api/v1/feedback", "").await, 422);
    is_problem(&bench.ask("POST", "/api/v1/feedback", "[").await, 400);
}

fn counted() -> Bench {
    let bench = bench("");
    bench.running(10.0);
    let name = RolloutName::new("chat");
    for (arm, version, outcome, status) in [
        (Arm::Stable, "a", Outcome::Success, Some(200)),
        (Arm::Stable, "a", Outcome::Success, Some(200)),
        (Arm::Canary, "b", Outcome::UpstreamError, Some(502)),
        (Arm::Canary, "b", Outcome::Cancelled, None),
    ] {
        let slot = bench.recorders.slot(&name, arm, &VersionName::new(version));
        slot.start(1);
        slot.end(1);
        slot.observe(
            1,
            &Observation {
                outcome,
                status,
                total_us: 2_000,
                answer: Answer {
                    tokens: [3, 5, 0, 0, 0],
                    cost_nano: 1_500,
                    finish: Some(0),
                    notes: 1,
                    ..Answer::default()
                },
                ..Observation::default()
            },
        );
    }
    bench.recorders.slot(&name, Arm::Canary, &VersionName::new("b")).start(0);
    let unrouted = bench.recorders.unrouted();
    unrouted.start(0);
    unrouted.end(0);
    unrouted.observe(0, &Observation { outcome: Outcome::Refused, status: Some(404), ..Observation::default() });
    bench.gauges.hit(Limit::HeaderRead);
    bench.gauges.connections.store(7, Ordering::Relaxed);
    bench.gauges.reloaded(true, bench.clock.wall());
    bench.gauges.rollbacks.count(&name, "error_rate");
    bench
}

#[tokio::test]
async fn metrics_have_the_names_and_labels_of_the_interface() {
    let bench = counted();
    let text = bench.ask("GET", "/metrics", "").await.text;
    for line in [
        r#"serin_requests_total{rollout="chat",arm="stable",version="a",outcome="success",code="2xx"} 2"#,
        r#"serin_requests_total{rollout="chat",arm="canary",version="b",outcome="upstream_error",code="5xx"} 1"#,
        r#"serin_requests_total{rollout="chat",arm="canary",version="b",outcome="cancelled",code="none"} 1"#,
        r#"serin_requests_total{rollout="",arm="",version="",outcome="refused",code="4xx"} 1"#,
        r#"serin_request_duration_seconds_bucket{rollout="chat",arm="stable",version="a",le="0.0025"} 2"#,
        r#"serin_request_duration_seconds_bucket{rollout="chat",arm="stable",version="a",le="0.001"} 0"#,
        r#"serin_request_duration_seconds_bucket{rollout="chat",arm="stable",version="a",le="+Inf"} 2"#,
        r#"serin_request_duration_seconds_sum{rollout="chat",arm="stable",version="a"} 0.004"#,
        r#"serin_tokens_total{rollout="chat",arm="stable",version="a",type="output"} 10"#,
        r#"serin_cost_usd_total{rollout="chat",arm="stable",version="a"} 0.000003"#,
        r#"serin_requests_in_flight{rollout="chat",arm="canary",version="b"} 1"#,
        r#"serin_requests_in_flight{rollout="chat",arm="stable",version="a"} 0"#,
        "serin_connections 7",
        r#"serin_limit_hits_total{limit="header_read"} 1"#,
        r#"serin_weight_percent{rollout="chat",kind="desired"} 10"#,
        r#"serin_weight_percent{rollout="chat",kind="actual"} 9.9"#,
        r#"serin_rollout_phase{rollout="chat",phase="running"} 1"#,
        r#"serin_rollout_phase{rollout="chat",phase="idle"} 0"#,
        r#"serin_rollout_stage{rollout="chat"} 2"#,
        r#"serin_gate_result{rollout="chat",gate="error_rate",result="pass"} 1"#,
        r#"serin_gate_result{rollout="chat",gate="error_rate",result="fail"} 0"#,
        r#"serin_rollbacks_total{rollout="chat",reason="error_rate"} 1"#,
        "serin_evaluator_heartbeat_timestamp_seconds 1795183200",
        "serin_observations_dropped_total 0",
        "serin_config_last_reload_successful 1",
        "serin_config_last_reload_success_timestamp_seconds 1795183200",
        concat!("serin_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|have| have == line), "missing {line}\n{text}");
    }
    for name in ["serin_time_to_first_byte_seconds", "serin_time_to_first_token_seconds", "process_cpu_seconds_total"] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    bench.ask("POST", "/api/v1/rollouts/chat/abort", "").await;
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_metrics() {
    use std::io::Write as _;
    let text = counted().ask("GET", "/metrics", "").await.text;
    let spawned = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    // Where promtool is not installed, the names and labels are checked above; tests/run installs it.
    let Ok(mut promtool) = spawned else { return };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// Reads events until `until` is seen, for five seconds at most.
async fn listen(bench: &Bench, headers: &[(&str, &str)], until: &str) -> String {
    use futures_util::StreamExt;
    use tower::ServiceExt;
    let mut request = axum::http::Request::builder().uri("/api/v1/events").header("host", "127.0.0.1:8081");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(axum::body::Body::empty()).unwrap();
    let response = bench.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains(until) {
        let chunk = tokio::time::timeout(Duration::from_secs(5), body.next()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("{until} did not come: {text}"));
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
    }
    text
}

fn ids(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_listener_is_given_everything_and_then_what_changes() {
    let bench = bench("");
    bench.running(10.0);
    bench.cx.feed().look(&bench.cx);
    let text = listen(&bench, &[], "\"weight\":10.0").await;
    assert!(text.contains("event: rollout") && !text.contains("event: reset"), "{text}");
    let last = *ids(&text).last().unwrap();
    bench.running(25.0);
    bench.cx.feed().look(&bench.cx);
    bench.gauges.reloaded(true, bench.clock.wall());
    bench.clock.advance(Duration::from_secs(2));
    bench.cx.feed().look(&bench.cx);
    let text = listen(&bench, &[("last-event-id", &last.to_string())], "event: heartbeat").await;
    assert!(text.contains("\"weight\":25.0") && !text.contains("\"weight\":10.0,\"weight_actual\""), "{text}");
    assert!(text.contains("event: reload") && !text.contains("event: reset"), "{text}");
    let ids = ids(&text);
    assert!(ids[0] > last && ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
}

#[tokio::test]
async fn a_listener_that_is_too_late_is_reset() {
    let bench = bench("");
    bench.running(10.0);
    bench.cx.feed().look(&bench.cx);
    let first = ids(&listen(&bench, &[], "event: rollout").await)[0];
    for n in 0..600 {
        bench.running(f64::from(n % 90) + 1.0);
        bench.cx.feed().look(&bench.cx);
    }
    for stale in [first.to_string(), "1".to_owned(), "99999999999999".to_owned(), "x".to_owned()] {
        let text = listen(&bench, &[("last-event-id", &stale)], "event: rollout").await;
        assert!(text.contains("event: reset"), "{stale}: {text}");
    }
}

#[tokio::test]
async fn numbers_alone_are_told_once_a_second() {
    let bench = bench("");
    bench.running(10.0);
    let count = |requests| {
        let mut view = view("running", 10.0);
        view.arms.canary.requests = requests;
        bench.board.post(vec![Arc::new(view)]);
        bench.clock.advance(Duration::from_millis(100));
        bench.cx.feed().look(&bench.cx);
    };
    (0..31).for_each(count);
    let text = listen(&bench, &[("last-event-id", "1")], "event: rollout").await;
    let newest = ids(&text)[0];
    // Thirty-one looks over 3.1 seconds: the first at once, then one a second, and two heartbeats.
    let told = newest - u64::try_from(super::testing::START.0).unwrap();
    assert!((5..=7).contains(&told), "{told} events");
}

#[tokio::test]
async fn the_description_names_every_route_and_no_other() {
    let bench = bench("");
    let json = bench.ask("GET", "/openapi.json", "").await.json();
    assert_eq!(json["openapi"], "3.1.0");
    let mut described = Vec::new();
    for (path, operations) in json["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            assert!(operation["responses"].is_object() && operation["summary"].is_string(), "{method} {path}");
            described.push((method.clone(), path.clone()));
        }
    }
    let mut routes: Vec<_> = ROUTES.iter().map(|(m, p)| ((*m).to_owned(), (*p).to_owned())).collect();
    routes.sort();
    described.sort();
    assert_eq!(described, routes);
    let verbs = &json["paths"]["/api/v1/rollouts/{name}/{verb}"]["post"]["parameters"];
    let verbs = verbs.as_array().unwrap().iter().find(|p| p["name"] == "verb").unwrap();
    let expect: Vec<_> = Verb::NAMES.into_iter().filter(|name| *name != "set weight").collect();
    assert_eq!(verbs["schema"]["enum"], json!(expect));
}

fn logged_in(seen: &Seen) -> String {
    let cookie = seen.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_browser_logs_in_and_changes_only_with_the_pages_token() {
    let bench = bench(TOKENS);
    bench.running(10.0);
    let page = bench.ask("GET", "/", "").await;
    assert!(page.text.contains("action=\"/login\"") && !page.text.contains("chat"), "the log-in shows nothing");
    let wrong = bench.ask("POST", "/login", "token=nobody").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let seen = bench.ask("POST", "/login", "token=operator-secret-0123456789").await;
    assert_eq!(seen.status, StatusCode::SEE_OTHER);
    let cookie = logged_in(&seen);
    let page = bench.send("GET", "/", &[("cookie", &cookie)], "").await;
    let token = page.text.split("name=\"serin-token\" content=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(token.len(), 64);
    assert_eq!(bench.send("GET", "/api/v1/rollouts", &[("cookie", &cookie)], "").await.status, StatusCode::OK);
    let pause = "/api/v1/rollouts/chat/pause";
    is_problem(&bench.send("POST", pause, &[("cookie", &cookie)], "").await, 403);
    is_problem(&bench.send("POST", pause, &[("cookie", &cookie), ("x-serin-token", "wrong")], "").await, 403);
    let evaluator = good(&bench);
    let good = bench.send("POST", pause, &[("cookie", &cookie), ("x-serin-token", token)], "").await;
    assert_eq!(good.status, StatusCode::OK);
    assert_eq!(evaluator.join().unwrap().unwrap().actor.name, "olga");
    bench.send("POST", "/logout", &[("cookie", &cookie)], "").await;
    is_problem(&bench.send("GET", "/api/v1/rollouts", &[("cookie", &cookie)], "").await, 401);
}

#[tokio::test]
async fn the_page_shows_every_rollout_and_only_the_verbs_one_may_use() {
    let bench = bench(TOKENS);
    bench.running(10.0);
    let mut odd = view("awaiting", 10.0);
    odd.why = "<script>alert(1)</script>".into();
    odd.allowed = vec!["approve", "pause", "abort", "drill"];
    bench.board.post(vec![Arc::new(odd)]);
    for (token, verbs) in [
        ("viewer-secret-0123456789", vec![]),
        ("approver-secret-0123456789", vec!["approve", "abort"]),
        ("operator-secret-0123456789", vec!["pause", "drill", "abort"]),
    ] {
        let bearer = format!("Bearer {token}");
        let page = bench.send("GET", "/", &[("authorization", &bearer)], "").await;
        let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers[header::REFERRER_POLICY], "same-origin", "else browsers post with Origin: null");
        assert!(!page.text.contains("<script>") && !page.text.contains("style=\""), "no inline script or style");
        assert!(page.text.contains("&lt;script&gt;alert(1)"), "a sentence is no markup");
        let shown: Vec<_> =
            page.text.split("data-verb=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(shown, verbs);
        let cards = bench.send("GET", "/dashboard/rollouts", &[("authorization", &bearer)], "").await;
        assert!(page.text.contains(&cards.text), "the script is given the same cards");
    }
    is_problem(&bench.ask("GET", "/dashboard/rollouts", "").await, 401);
}

pub(super) fn decided(reason: &str) -> crate::rollout::Record {
    use crate::rollout::{Decision, Phase, Record, State, Terms};
    let terms = Terms {
        rollout: RolloutName::new("chat"),
        stable: VersionName::new("a"),
        canary: Some(VersionName::new("b")),
        plan: None,
        weight: None,
        gates: "h".into(),
        policy: None,
        drill_every: None,
        confirm: std::sync::Arc::default(),
        register: None,
    };
    Record {
        at: super::testing::START,
        rollout: terms.rollout.clone(),
        stable: terms.stable.clone(),
        version: terms.canary.clone(),
        decision: Decision::Start,
        actor: "olga".into(),
        reason: reason.into(),
        from: Phase::Idle,
        to: Phase::Running,
        stage_before: None,
        stage: Some(0),
        weight_before: Weight::ZERO,
        weight: Weight::from_percent(1.0).unwrap(),
        proven: false,
        approvals: Vec::new(),
        gates: "h".into(),
        generation: 1,
        register: terms.register.clone(),
        state: State::initial(&terms),
        numbers: None,
    }
}

#[tokio::test]
async fn the_journal_is_read_in_order_from_a_number_on() {
    let bench = bench("");
    for reason in ["first", "second", "third"] {
        let (sender, durable) = std::sync::mpsc::sync_channel(1);
        let done = Box::new(move |result| sender.send(result).unwrap());
        bench.journal.append(Box::new(decided(reason)), Some(done)).unwrap();
        durable.recv_timeout(Duration::from_secs(5)).unwrap().unwrap();
    }
    let report = bench.ask("GET", "/api/v1/rollouts/chat/report", "").await.json();
    assert_eq!((&report["rollout"], &report["journal"]["last"]), (&json!("chat"), &json!(3)));
    assert_eq!(report["releases"][0]["initiation"]["by"], "olga");
    for (format, media, word) in [("md", "text/markdown", "# chat"), ("html", "text/html", "<h1>chat</h1>")] {
        let seen = bench.ask("GET", &format!("/api/v1/rollouts/chat/report?format={format}"), "").await;
        assert!(seen.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with(media));
        assert!(seen.text.contains(word), "{}", seen.text);
    }
    is_problem(&bench.ask("GET", "/api/v1/rollouts/chat/report?format=pdf", "").await, 422);
    is_problem(&bench.ask("GET", "/api/v1/rollouts/nobody/report", "").await, 404);
    let json = bench.ask("GET", "/api/v1/journal?after=1&limit=1", "").await.json();
    assert_eq!(json["last"], 3);
    let [entry] = &json["items"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((&entry["n"], &entry["reason"], &entry["actor"]), (&json!(2), &json!("second"), &json!("olga")));
    assert_eq!((&entry["at"], &entry["decision"]), (&json!("2026-11-20T14:00:00.000Z"), &json!("start")));
    assert_eq!((&entry["weight"], entry.get("state")), (&json!(1.0), None));
    assert_eq!(bench.ask("GET", "/api/v1/journal", "").await.json()["items"].as_array().unwrap().len(), 3);
    is_problem(&bench.ask("GET", "/api/v1/journal?after=x", "").await, 422);
}

/// One request over an open connection; the whole answer as text.
async fn over(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, host: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
    assert!(read.is_ok(), "no answer to {path}");
    answer
}

fn tls_of(dir: &std::path::Path) -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, secret) = (dir.join("admin.pem"), dir.join("admin.key"));
    std::fs::write(&certificate, key.cert.pem()).unwrap();
    std::fs::write(&secret, key.signing_key.serialize_pem()).unwrap();
    let server = crate::config::ServerTls {
        certificate: certificate.clone(),
        key: secret,
        client_ca: None,
        min_version: crate::config::TlsVersion::V12,
    };
    let client = crate::config::UpstreamTls { ca: Some(certificate), ..crate::config::UpstreamTls::default() };
    let client = crate::tls::client(&client, crate::config::HttpVersion::Http1).unwrap();
    (crate::tls::server(&server, false).unwrap(), client)
}

#[tokio::test]
async fn every_door_answers_and_all_close_when_told() {
    use tokio::net::{TcpStream, UnixStream};
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = tls_of(dir.path());
    let bind = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    };
    let ((api, api_at), (probes, probes_at)) = (bind(), bind());
    let path = dir.path().join("admin.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let doors = super::Doors {
        api: Some(api),
        tls: Some(Arc::new(arc_swap::ArcSwap::new(server))),
        socket: Some(socket),
        probes: Some(probes),
    };
    let bench = bench("");
    bench.running(10.0);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(super::serve(bench.cx.clone(), doors, stopped));

    let tcp = TcpStream::connect(api_at).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let tls = tokio_rustls::TlsConnector::from(client).connect(name, tcp).await.unwrap();
    let answer = over(tls, "localhost", "/api/v1/rollouts").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"chat\""), "{answer}");
    let unix = async || UnixStream::connect(&path).await.unwrap();
    let answer = over(unix().await, "anything", "/api/v1/rollouts/chat").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let probe = async || TcpStream::connect(probes_at).await.unwrap();
    let answer = over(probe().await, "10-0-0-9.pod.cluster.local", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("serin_build_info"), "{answer}");
    let answer = over(probe().await, "localhost", "/api/v1/rollouts").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "probes alone: {answer}");

    // A listener of events and somebody who never ends his request do not hold the process.
    let events = tokio::spawn(over(unix().await, "x", "/api/v1/events"));
    let idle = probe().await;
    tokio::task::yield_now().await;
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), serving).await.expect("it ends").unwrap().unwrap();
    assert!(events.await.unwrap().contains("event: rollout"));
    drop(idle);
    assert!(TcpStream::connect(probes_at).await.is_err());
}
