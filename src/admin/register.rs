//! `/api/v1/rollouts/{name}/register`: what is known of a version, as the file says it, as it is frozen, and as it was
//! ever written down.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::answers::Reply;
use super::auth::{Caller, READERS};
use super::body::{self, Body};
use super::change;
use super::context::Context;
use super::error::Problem;
use crate::journal::{Body as Said, Broken};
use crate::rollout::{Decision, Registration, Verb};

/// Most entries shown; the oldest are left out.
const SHOWN_MAX: usize = 100;

/// The register of one rollout.
#[derive(Serialize)]
struct Register {
    rollout: String,
    /// What the configuration in force says of its canary.
    file: Option<Arc<Registration>>,
    /// What was frozen when the running rollout started.
    frozen: Option<Arc<Registration>>,
    /// Every entry that the journal has, the newest first.
    entries: VecDeque<Written>,
}

/// An entry as it was written.
#[derive(Serialize)]
struct Written {
    n: u64,
    at: String,
    decision: Decision,
    by: String,
    reason: String,
    entry: Arc<Registration>,
}

/// The body of `PUT`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    reason: String,
    /// What the sender takes the entry to be; refused where the configuration in force says something else.
    entry: Option<Registration>,
}

/// `GET /api/v1/rollouts/{name}/register`.
///
/// # Errors
/// 401, 403, 404, 503.
pub async fn show(State(cx): State<Context>, caller: Caller, Path(name): Path<String>) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let snapshot = cx.snapshot();
    let rollout = snapshot.rollout(&name).ok_or_else(|| Problem::no_rollout(&name))?;
    let (file, wanted) = (rollout.fixed.config.register.clone(), rollout.fixed.config.name.clone());
    let view = cx.parts().board.rollout(&name);
    let frozen = view.and_then(|view| view.register.as_ref().filter(|r| r.frozen).map(|r| Arc::clone(&r.entry)));
    let journal = Arc::clone(&cx.parts().journal);
    // Segments are read from the disk.
    let read = tokio::task::spawn_blocking(move || {
        let mut entries = VecDeque::new();
        journal.visit(&mut |entry| {
            let Said::Record(record) = entry.body else { return };
            let Some(registration) = record.register.filter(|_| record.rollout == wanted) else { return };
            entries.truncate(SHOWN_MAX - 1);
            entries.push_front(Written {
                n: entry.n,
                at: record.at.rfc3339(),
                decision: record.decision,
                by: record.actor,
                reason: record.reason,
                entry: registration,
            });
        })?;
        Ok::<_, Broken>(entries)
    });
    let read = read.await.map_err(|_| Problem::unavailable("the journal could not be read"))?;
    let entries = read.map_err(|broken| Problem::unavailable(format!("the journal cannot be relied on: {broken}")))?;
    Ok(Json(Register { rollout: name, file, frozen, entries }).into_response())
}

/// `PUT /api/v1/rollouts/{name}/register`: writes the entry of the configuration in force.
///
/// # Errors
/// 401, 403, 404, 409, 412, 422, 503.
pub async fn put(
    State(cx): State<Context>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Reply, Problem> {
    let body = body::bytes(body)?;
    let place = format!("register {name}");
    change::once(&cx, &caller.actor, &place, &headers, &body, async {
        let given: Given = body::json(&body)?;
        caller.may(Verb::Register)?;
        let snapshot = cx.snapshot();
        let rollout = snapshot.rollout(&name).ok_or_else(|| Problem::no_rollout(&name))?;
        if let Some(sent) = &given.entry {
            agree(sent, rollout.fixed.config.register.as_deref())?;
        }
        change::change(&cx, &caller, &name, Verb::Register, given.reason, body::if_match(&headers)?).await
    })
    .await
}

/// Whether an entry that was sent is the one in force.
fn agree(sent: &Registration, in_force: Option<&Registration>) -> Result<(), Problem> {
    let remedy = "load the same file there first (serin reload), or register the one in force";
    let Some(in_force) = in_force else {
        return Err(Problem::conflict("the configuration in force has no [rollouts.NAME.register]", remedy));
    };
    let differ = sent.differences(in_force);
    if differ.is_empty() {
        return Ok(());
    }
    let detail = format!("the configuration in force has another {}", differ.join(", another "));
    Err(Problem::conflict(detail, remedy))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::json;

    use super::super::testing::{Bench, TOKENS, bench_with, view};
    use super::*;
    use crate::evaluator::view::RegisterView;

    const PATH: &str = "/api/v1/rollouts/chat/register";

    fn entry(bench: &Bench) -> Registration {
        let snapshot = bench.live.load();
        snapshot.rollout("chat").unwrap().fixed.config.register.as_deref().unwrap().clone()
    }

    fn registering() -> Bench {
        let digest = "0a".repeat(32);
        bench_with(
            TOKENS,
            &format!(
                "[rollouts.chat.register]\ndigest = \"sha256:{digest}\"\nkind = \"patch\"\nrisk = \"medium\"\nowner = \"ml\"\n"
            ),
        )
    }

    #[tokio::test]
    async fn an_entry_is_written_by_whom_the_table_says_and_only_as_the_file_in_force_has_it() {
        for (token, status) in [
            ("viewer-secret-0123456789", 403),
            ("reporter-secret-0123456789", 403),
            ("approver-secret-0123456789", 403),
            ("operator-secret-0123456789", 200),
            ("owner-secret-0123456789", 200),
        ] {
            let bench = registering().with_token(token);
            bench.running(10.0);
            let sent = json!({"reason": "before the release", "entry": entry(&bench)}).to_string();
            let evaluator = (status == 200).then(|| bench.answer(|_| Ok(Arc::new(view("running", 10.0)))));
            let seen = bench.ask("PUT", PATH, &sent).await;
            assert_eq!(seen.status.as_u16(), status, "{token}: {}", seen.text);
            if let Some(evaluator) = evaluator {
                let command = evaluator.join().unwrap().unwrap();
                assert_eq!((command.verb, command.reason.as_str()), (Verb::Register, "before the release"));
            }
        }
        let bench = registering().with_token("operator-secret-0123456789");
        bench.running(10.0);
        let other = Registration { digest: "sha256:01".to_owned(), owner: "x".to_owned(), ..entry(&bench) };
        let seen = bench.ask("PUT", PATH, &json!({ "entry": other }).to_string()).await;
        assert_eq!(seen.status, StatusCode::CONFLICT);
        assert_eq!(seen.json()["detail"], "the configuration in force has another digest, another owner");
        assert!(seen.json()["remedy"].as_str().unwrap().contains("serin reload"));
        let unknown = bench.ask("PUT", PATH, "{\"entri\": {}}").await;
        assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
        let nobody = bench.ask("PUT", "/api/v1/rollouts/nobody/register", "").await;
        assert_eq!(nobody.status, StatusCode::NOT_FOUND);
        let without = super::super::testing::bench("");
        let seen = without.ask("PUT", PATH, &json!({ "entry": entry(&bench) }).to_string()).await;
        assert_eq!(seen.json()["detail"], "the configuration in force has no [rollouts.NAME.register]");
    }

    #[tokio::test]
    async fn the_register_shows_file_frozen_and_every_entry_that_was_written() {
        let bench = registering().with_token("viewer-secret-0123456789");
        bench.running(10.0);
        let json = bench.ask("GET", PATH, "").await.json();
        assert_eq!(json["file"]["kind"], "patch");
        assert_eq!((&json["frozen"], &json["entries"]), (&json!(null), &json!([])));
        let mut seen = view("running", 10.0);
        let frozen = Arc::new(Registration { digest: "sha256:old".to_owned(), ..entry(&bench) });
        seen.register = Some(RegisterView { entry: Arc::clone(&frozen), frozen: true, changed: Some("why".into()) });
        bench.board.post(vec![Arc::new(seen)]);
        for reason in ["first", "second"] {
            let mut record = super::super::tests::decided(reason);
            record.register = Some(Arc::clone(&frozen));
            let (sender, durable) = std::sync::mpsc::sync_channel(1);
            let done = Box::new(move |result| sender.send(result).unwrap());
            bench.journal.append(Box::new(record), Some(done)).unwrap();
            durable.recv_timeout(std::time::Duration::from_secs(5)).unwrap().unwrap();
        }
        let json = bench.ask("GET", PATH, "").await.json();
        assert_eq!(json["frozen"]["digest"], "sha256:old");
        let reasons: Vec<_> = json["entries"].as_array().unwrap().iter().map(|e| e["reason"].clone()).collect();
        assert_eq!(reasons, ["second", "first"], "the newest first");
        assert_eq!(json["entries"][0]["entry"]["digest"], "sha256:old");
        let rollout = bench.ask("GET", "/api/v1/rollouts/chat", "").await.json();
        assert_eq!((&rollout["register"]["frozen"], &rollout["register"]["changed"]), (&json!(true), &json!("why")));
        assert_eq!(rollout["register"]["owner"], "ml");
        let reporter = registering().with_token("reporter-secret-0123456789");
        assert_eq!(reporter.ask("GET", PATH, "").await.status, StatusCode::FORBIDDEN);
        assert_eq!(bench.ask("GET", "/api/v1/rollouts/nobody/register", "").await.status, StatusCode::NOT_FOUND);
    }
}
