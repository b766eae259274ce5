//! `POST /api/v1/triggers/{alertmanager|generic}`: monitors from outside that hold or abort rollouts.
//!
//! A sender is known by the signature of its post (Standard Webhooks, `[triggers.NAME]`) or by a bearer token with the
//! role that the verb asks for. A trigger only ever lowers or holds: nothing that is resolved makes anything rise.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::answers::{Reply, Turn};
use super::auth::{self, Caller};
use super::body::{self, Body};
use super::change;
use super::context::Context;
use super::error::Problem;
use crate::config::Trigger;
use crate::notify::signature::{self, Unsigned};
use crate::rollout::{Actor, Role, Verb};

/// Rollouts that one post may name.
const ROLLOUTS_MAX: usize = 100;
/// The longest reason that is taken from a post.
const REASON_MAX: usize = 500;

/// What a trigger does, the stronger last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The rollout stands where it is: `pause`.
    Hold,
    /// To 0 and latched: `abort`.
    Abort,
}

impl Action {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "hold" => Some(Action::Hold),
            "abort" => Some(Action::Abort),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Action::Hold => "hold",
            Action::Abort => "abort",
        }
    }

    const fn verb(self) -> Verb {
        match self {
            Action::Hold => Verb::Pause,
            Action::Abort => Verb::Abort,
        }
    }
}

/// What a post asks: for each rollout the strongest action, and why.
type Asked = BTreeMap<String, (Action, String)>;

/// `?action=abort&rollout=chat`, where an alert itself does not say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Words {
    action: Option<Action>,
    rollout: Option<String>,
}

/// The generic body.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Generic {
    rollout: Option<String>,
    rollouts: Vec<String>,
    action: Option<Action>,
    reason: String,
}

/// What of Alertmanager's webhook (version 4) is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alerts {
    alerts: Vec<Alert>,
}

/// One alert of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alert {
    status: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// What became of one rollout.
#[derive(Debug, Serialize)]
struct Done {
    rollout: String,
    action: Action,
    result: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct AllDone {
    done: Vec<Done>,
}

/// `POST /api/v1/triggers/generic`.
///
/// # Errors
/// 400, 401, 403, 404 (a rollout that is not there), 422; 503 where it should be tried again.
pub async fn generic(State(cx): State<Context>, headers: HeaderMap, body: Body) -> Result<Reply, Problem> {
    let body = body::bytes(body)?;
    let sender = Sender::of(&cx, &headers, &body)?;
    let given: Generic = body::json(&body)?;
    let remedy = "send {\"rollout\": \"chat\", \"action\": \"hold\", \"reason\": \"…\"}";
    let action = given.action.ok_or_else(|| Problem::invalid("the body names no action", remedy))?;
    let names: Vec<String> = given.rollout.into_iter().chain(given.rollouts).collect();
    if names.is_empty() {
        return Err(Problem::invalid("the body names no rollout", remedy));
    }
    let snapshot = cx.snapshot();
    if let Some(unknown) = names.iter().find(|name| snapshot.rollout(name).is_none()) {
        return Err(Problem::no_rollout(&shortened(unknown, 64)));
    }
    let reason = if given.reason.is_empty() { "a trigger from outside" } else { given.reason.as_str() };
    let asked = names.into_iter().map(|name| (name, (action, shortened(reason, REASON_MAX)))).collect();
    sender.carry_out(&cx, &headers, &body, asked).await
}

/// `POST /api/v1/triggers/alertmanager`: firing alerts hold or abort the rollout of their label `rollout`. The label or
/// annotation `serin_action` says which, else `?action=`, else they hold.
///
/// # Errors
/// 400, 401, 403; 503 where Alertmanager should try again.
pub async fn alertmanager(
    State(cx): State<Context>,
    Query(words): Query<Words>,
    headers: HeaderMap,
    body: Body,
) -> Result<Reply, Problem> {
    let body = body::bytes(body)?;
    let sender = Sender::of(&cx, &headers, &body)?;
    let given: Alerts = body::json(&body)?;
    let asked = asked(&given, &words);
    sender.carry_out(&cx, &headers, &body, asked).await
}

/// What firing alerts ask. What is resolved asks for nothing: only a person lets a rollout go on.
fn asked(given: &Alerts, words: &Words) -> Asked {
    let mut asked = Asked::new();
    for alert in given.alerts.iter().filter(|alert| alert.status == "firing") {
        let Some(rollout) = words.rollout.as_ref().or_else(|| alert.labels.get("rollout")) else { continue };
        let said = alert.labels.get("serin_action").or_else(|| alert.annotations.get("serin_action"));
        let action = said.and_then(|word| Action::parse(word)).or(words.action).unwrap_or(Action::Hold);
        let name = alert.labels.get("alertname").map_or("an alert", String::as_str);
        let text = alert.annotations.get("summary").or_else(|| alert.annotations.get("description"));
        let reason = match text {
            Some(text) => format!("{name}: {text}"),
            None => format!("{name} fires"),
        };
        let one = (action, shortened(&reason, REASON_MAX));
        let kept = asked.entry(rollout.clone()).or_insert_with(|| one.clone());
        if one.0 > kept.0 {
            *kept = one;
        }
    }
    asked
}

/// Who posts.
struct Sender {
    caller: Caller,
    /// The trigger, where the post is signed by one.
    trigger: Option<Trigger>,
}

impl Sender {
    fn of(cx: &Context, headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !headers.contains_key("webhook-signature") {
            return Ok(Self { caller: auth::identify(cx, &Method::POST, headers)?, trigger: None });
        }
        let given = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
        let now = cx.parts().clock.wall();
        let mut why = Unsigned::Wrong;
        for trigger in &cx.snapshot().config.triggers {
            match signature::verify(&trigger.secret, given, body, now) {
                Ok(()) => {
                    let actor = Actor::new(format!("trigger:{}", trigger.name), &[Role::Operator]);
                    let caller = Caller { actor, header: None };
                    return Ok(Self { caller, trigger: Some(trigger.clone()) });
                }
                Err(other) => why = other,
            }
        }
        Err(Problem::unauthorized(why.to_string()))
    }

    fn may(&self, rollout: &str, action: Action) -> Result<(), Problem> {
        self.caller.may(action.verb())?;
        let Some(trigger) = &self.trigger else { return Ok(()) };
        let among = |all: &[String], one: &str| all.is_empty() || all.iter().any(|each| each == one);
        if among(&trigger.rollouts, rollout) && among(&trigger.actions, action.as_str()) {
            return Ok(());
        }
        let detail = format!("triggers.{} may not {} {rollout:?}", trigger.name, action.as_str());
        Err(Problem::forbidden(detail, "name the rollout and the action in its configuration"))
    }

    /// Does everything that is asked, aborts first; a signed post that comes twice is done once.
    async fn carry_out(&self, cx: &Context, headers: &HeaderMap, body: &[u8], asked: Asked) -> Result<Reply, Problem> {
        if asked.len() > ROLLOUTS_MAX {
            return Err(Problem::invalid(format!("a post names {ROLLOUTS_MAX} rollouts at most"), "send several"));
        }
        let snapshot = cx.snapshot();
        let mut all: Vec<_> = asked.into_iter().filter(|(name, _)| snapshot.rollout(name).is_some()).collect();
        all.sort_by_key(|(_, (action, _))| std::cmp::Reverse(*action));
        for (rollout, (action, _)) in &all {
            self.may(rollout, *action)?;
        }
        let id = self.trigger.as_ref().and_then(|_| headers.get("webhook-id")?.to_str().ok());
        match cx.answers().turn(&self.caller.actor.name, "trigger", id, body)? {
            Turn::Again(reply) => Ok(reply),
            Turn::First(pending) => {
                let reply = self.each(cx, all).await;
                pending.keep(&reply);
                Ok(reply)
            }
        }
    }

    /// 503 where one of them should be tried again; what was done stays done, and doing it again changes nothing.
    async fn each(&self, cx: &Context, all: Vec<(String, (Action, String))>) -> Reply {
        let mut done = Vec::new();
        let mut again = false;
        for (rollout, (action, reason)) in all {
            let (result, why) = match change::change(cx, &self.caller, &rollout, action.verb(), reason, None).await {
                Ok(_) if action == Action::Abort => ("aborted", String::new()),
                Ok(_) => ("held", String::new()),
                // It stands already, or nothing of it runs: what was asked for is so.
                Err(problem) if problem.status == StatusCode::CONFLICT => ("unchanged", problem.detail),
                Err(problem) => {
                    again |= problem.status.is_server_error();
                    ("failed", problem.detail)
                }
            };
            done.push(Done { rollout, action, result, why });
        }
        let status = if again { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        Reply::json(status, &AllDone { done }, None)
    }
}

/// What is kept of a text from outside: no signs that rule a terminal, and not too much.
fn shortened(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admin::testing::{Bench, TOKENS, bench, view};
    use crate::config::Secret;
    use crate::evaluator::Refused;

    const SECRET: &str = "a trigger's own secret";

    fn with_trigger(more: &str) -> Bench {
        bench(&format!("{TOKENS}[triggers.probe]\nsecret = \"{SECRET}\"\n{more}\n"))
    }

    fn signed(bench: &Bench, id: &str, body: &str) -> [(String, String); 3] {
        let stamp = bench.clock.wall().0 / 1_000;
        let signature = signature::sign(&Secret::new(SECRET), id, stamp, body.as_bytes());
        [
            ("webhook-id".to_owned(), id.to_owned()),
            ("webhook-timestamp".to_owned(), stamp.to_string()),
            ("webhook-signature".to_owned(), signature),
        ]
    }

    async fn post(bench: &Bench, kind: &str, id: &str, body: &str) -> crate::admin::testing::Seen {
        let headers = signed(bench, id, body);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        bench.send("POST", &format!("/api/v1/triggers/{kind}"), &headers, body).await
    }

    fn firing(action: &str) -> String {
        let said = if action.is_empty() { String::new() } else { format!("\"serin_action\":\"{action}\",") };
        format!(
            r#"{{"version":"4","status":"firing","alerts":[{{"status":"firing","labels":{{{said}"alertname":"Errors","rollout":"chat"}},"annotations":{{"summary":"too many\u0007"}}}},{{"status":"resolved","labels":{{"rollout":"chat","serin_action":"abort"}}}},{{"status":"firing","labels":{{"alertname":"Other"}}}}]}}"#
        )
    }

    #[tokio::test]
    async fn a_firing_alert_holds_its_rollout_and_a_resolved_one_does_nothing() {
        let bench = with_trigger("");
        bench.running(5.0);
        let evaluator = bench.answer(|_| Ok(Arc::new(view("paused", 5.0))));
        let seen = post(&bench, "alertmanager", "m1", &firing("")).await;
        assert_eq!(seen.status, StatusCode::OK, "{}", seen.text);
        assert_eq!(seen.json()["done"][0]["result"], "held");
        let command = evaluator.join().unwrap().unwrap();
        assert_eq!((command.verb, command.reason.as_str()), (Verb::Pause, "Errors: too many"));
        assert_eq!(command.actor.name, "trigger:probe");
        let resolved = firing("").replace("\"status\":\"firing\"", "\"status\":\"resolved\"");
        assert_eq!(post(&bench, "alertmanager", "m2", &resolved).await.json()["done"], serde_json::json!([]));
    }

    #[tokio::test]
    async fn an_alert_that_says_so_aborts_even_with_the_evaluator_dead() {
        let bench = with_trigger("");
        bench.running(5.0);
        bench.clock.advance(std::time::Duration::from_secs(60));
        let seen = post(&bench, "alertmanager", "m1", &firing("abort")).await;
        assert_eq!(seen.json()["done"][0]["result"], "aborted", "{}", seen.text);
        let latch = bench.live.load().rollout("chat").unwrap().runtime.latch.clone().unwrap();
        assert_eq!((latch.actor.as_str(), latch.reason.as_str()), ("trigger:probe", "Errors: too many"));
    }

    #[tokio::test]
    async fn a_post_that_is_not_signed_by_a_known_secret_of_now_is_refused() {
        let bench = with_trigger("");
        bench.running(5.0);
        let body = r#"{"rollout":"chat","action":"hold"}"#;
        let send = |headers: Vec<(String, String)>, body: &'static str| {
            let bench = &bench;
            async move {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                bench.send("POST", "/api/v1/triggers/generic", &headers, body).await.status.as_u16()
            }
        };
        let good = signed(&bench, "m1", body).to_vec();
        assert_eq!(send(good.clone(), r#"{"rollout":"chat","action":"abort"}"#).await, 401, "another body");
        for (at, wrong) in [(0, "m2"), (1, "1"), (2, "v1,AAAA")] {
            let mut headers = good.clone();
            headers[at].1 = wrong.to_owned();
            assert_eq!(send(headers, body).await, 401, "{wrong}");
        }
        assert_eq!(send(Vec::new(), body).await, 401, "no signature and no token");
        bench.clock.advance(std::time::Duration::from_secs(301));
        assert_eq!(send(good, body).await, 401, "too old");
    }

    #[tokio::test]
    async fn a_signed_post_that_comes_twice_is_done_once() {
        let bench = with_trigger("");
        bench.running(5.0);
        let evaluator = bench.answer(|_| Ok(Arc::new(view("paused", 5.0))));
        let body = r#"{"rollouts":["chat"],"action":"hold","reason":"probe"}"#;
        let first = post(&bench, "generic", "m1", body).await;
        evaluator.join().unwrap().unwrap();
        let again = post(&bench, "generic", "m1", body).await;
        assert_eq!((first.status, &first.text), (again.status, &again.text));
        assert!(bench.inbox.lock().unwrap().next(std::time::Duration::ZERO).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_trigger_does_no_more_than_its_configuration_says() {
        let bench = with_trigger("actions = [\"hold\"]\nrollouts = [\"chat\"]");
        bench.running(5.0);
        let seen = post(&bench, "generic", "m1", r#"{"rollout":"chat","action":"abort"}"#).await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN);
        assert!(bench.live.load().rollout("chat").unwrap().runtime.latch.is_none());
        let unknown = post(&bench, "generic", "m2", r#"{"rollout":"nobody","action":"hold"}"#).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);
        for body in ["{}", r#"{"rollout":"chat"}"#, r#"{"action":"hold"}"#, r#"{"rollout":"chat","action":"promote"}"#]
        {
            assert_eq!(post(&bench, "generic", body, body).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        }
    }

    #[tokio::test]
    async fn a_bearer_token_needs_the_role_of_the_verb() {
        let hold = r#"{"rollout":"chat","action":"hold"}"#;
        for (token, may) in [("viewer-secret-0123456789", false), ("operator-secret-0123456789", true)] {
            let bench = with_trigger("").with_token(token);
            bench.running(5.0);
            let evaluator = may.then(|| bench.answer(|_| Ok(Arc::new(view("paused", 5.0)))));
            let seen = bench.ask("POST", "/api/v1/triggers/generic", hold).await;
            assert_eq!(seen.status.as_u16(), if may { 200 } else { 403 }, "{}", seen.text);
            if let Some(evaluator) = evaluator {
                assert_eq!(evaluator.join().unwrap().unwrap().actor.name, "olga");
            }
        }
    }

    #[tokio::test]
    async fn what_stands_already_is_unchanged_and_what_cannot_be_asked_now_is_tried_again() {
        let bench = with_trigger("");
        bench.running(5.0);
        let conflict = Refused::Conflict { why: "pause is not possible in paused".into(), allowed: vec!["resume"] };
        let evaluator = bench.answer(move |_| Err(conflict));
        let body = r#"{"rollout":"chat","action":"hold"}"#;
        let seen = post(&bench, "generic", "m1", body).await;
        assert_eq!((seen.status, &seen.json()["done"][0]["result"]), (StatusCode::OK, &"unchanged".into()));
        evaluator.join().unwrap();
        bench.clock.advance(std::time::Duration::from_secs(60));
        let seen = post(&bench, "generic", "m2", body).await;
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE, "the evaluator is silent: {}", seen.text);
    }
}
