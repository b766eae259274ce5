//! Asks Prometheus for both arms of every query that a gate names, and tells the judge, on a thread of its own.
//!
//! One query is asked at a time, and within its interval: a server that hangs delays its own query alone. What does not
//! answer, answers nothing or no number tells the judge nothing; a gate that hears nothing for its `stale` holds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::fetch;
use crate::clock::Clock;
use crate::config::Query;
use crate::evaluator::mailbox::{Letter, Score};
use crate::evaluator::{Ask, Mailbox};
use crate::judge::Fact;
use crate::measure::Gauges;
use crate::names::{Mono, RolloutName};
use crate::snapshot::{Live, Rollout};
use crate::split::{OpenCohorts, Weight};

/// How often the thread looks what is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest wait for an answer, whatever the interval.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the thread is given.
#[derive(Clone)]
pub struct Asks {
    /// The queries are those of the snapshot in force.
    pub live: Live,
    /// The way to the judge.
    pub mailbox: Mailbox,
    /// Where answers are counted.
    pub gauges: Arc<Gauges>,
    /// Time.
    pub clock: Clock,
}

/// What is known of one query between two looks.
#[derive(Default)]
struct Turn {
    asked_at: Option<Mono>,
    under_way: bool,
    /// Said once, not at every interval.
    failing: bool,
}

type Turns = Rc<RefCell<HashMap<(RolloutName, String), Turn>>>;

/// Why a query has no number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NoNumber {
    #[error("it has no sample, or none that is a number")]
    Empty,
    #[error("{0}")]
    Failed(String),
    #[error("no answer in time")]
    Timeout,
}

impl NoNumber {
    fn failed(why: impl std::fmt::Display) -> Self {
        Self::Failed(why.to_string())
    }

    const fn result(&self) -> &'static str {
        match self {
            NoNumber::Empty => "empty",
            NoNumber::Failed(_) => "failed",
            NoNumber::Timeout => "timeout",
        }
    }
}

/// Asks until `stop` says so.
pub async fn run(asks: Asks, mut stop: watch::Receiver<bool>) {
    let turns = Turns::default();
    loop {
        let now = asks.clock.now();
        for rollout in asks.live.load().rollouts.iter().filter(|rollout| is_tried(rollout)) {
            for query in &rollout.fixed.config.queries {
                let key = (rollout.fixed.config.name.clone(), query.name.clone());
                let mut all = turns.borrow_mut();
                let turn = all.entry(key.clone()).or_default();
                if turn.under_way || turn.asked_at.is_some_and(|at| now.since(at) < query.interval) {
                    continue;
                }
                turn.asked_at = Some(now);
                turn.under_way = true;
                let failed_before = turn.failing;
                let (asks, query, turns) = (asks.clone(), query.clone(), Rc::clone(&turns));
                drop(tokio::task::spawn_local(async move {
                    let failing = asks.ask(&key.0, &query, failed_before).await;
                    if let Some(turn) = turns.borrow_mut().get_mut(&key) {
                        turn.under_way = false;
                        turn.failing = failing;
                    }
                }));
            }
        }
        forget_gone(&asks, &turns);
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Whether anybody may be on the canary: before that there is nothing to ask for.
fn is_tried(rollout: &Rollout) -> bool {
    let runtime = &rollout.runtime;
    let open = runtime.weight > Weight::ZERO || runtime.open != OpenCohorts::None;
    open && runtime.latch.is_none() && rollout.fixed.config.evaluator.enabled && rollout.fixed.config.canary.is_some()
}

/// Queries that a reload has taken out are not remembered for ever.
fn forget_gone(asks: &Asks, turns: &Turns) {
    let snapshot = asks.live.load();
    turns.borrow_mut().retain(|(rollout, query), turn| {
        turn.under_way
            || snapshot
                .rollout(rollout.as_str())
                .is_some_and(|known| known.fixed.config.queries.iter().any(|one| one.name == *query))
    });
}

impl Asks {
    /// Asks for both arms; the judge is told only when both have a number. Returns whether it failed.
    async fn ask(&self, rollout: &RolloutName, query: &Query, failed_before: bool) -> bool {
        let both = async { tokio::try_join!(number(query, &query.stable), number(query, &query.canary)) };
        let limit = query.interval.min(PATIENCE);
        let answer = tokio::time::timeout(limit, both).await.unwrap_or(Err(NoNumber::Timeout));
        let told = answer.and_then(|(stable, canary)| {
            let fact = Fact::Query { name: query.name.as_str().into(), stable, canary, known: self.clock.now() };
            let ask = Ask::Scores(vec![Score { rollout: rollout.clone(), fact }]);
            let posted = self.mailbox.post(Letter { ask, answer: Box::new(|_| ()) });
            posted.map_err(NoNumber::failed)
        });
        let result = told.as_ref().map_or_else(NoNumber::result, |()| "ok");
        self.gauges.queries.count(rollout, &query.name, result);
        match told {
            Err(error) if !failed_before => {
                // The address may hold a credential: it is not said.
                tracing::warn!(rollout.name = %rollout, query.name = query.name, error = %error, "a query has no answer; its gate holds once it is stale");
                true
            }
            Err(_) => true,
            Ok(()) => {
                if failed_before {
                    tracing::info!(rollout.name = %rollout, query.name = query.name, "the query is answered again");
                }
                false
            }
        }
    }
}

/// One number from Prometheus' instant query API.
async fn number(query: &Query, expression: &str) -> Result<f64, NoNumber> {
    let encoded: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
    let path = format!("/api/v1/query?query={encoded}");
    read(&fetch::get(query.url.expose(), &path).await.map_err(NoNumber::failed)?)
}

#[derive(Deserialize)]
struct Said {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    result_type: String,
    result: Value,
}

/// The number of an instant vector of one series, or of a scalar.
fn read(bytes: &[u8]) -> Result<f64, NoNumber> {
    let said: Said =
        serde_json::from_slice(bytes).map_err(|_| NoNumber::failed("the answer is not Prometheus' JSON"))?;
    if said.status != "success" {
        let short: String = said.error.chars().take(200).collect();
        return Err(NoNumber::failed(format!("Prometheus refuses the query: {short}")));
    }
    let sample = match (said.data.result_type.as_str(), &said.data.result) {
        ("vector", Value::Array(series)) => match series.as_slice() {
            [] => return Err(NoNumber::Empty),
            [one] => one.get("value").cloned().unwrap_or_default(),
            many => return Err(NoNumber::failed(format!("{} series came where one is needed: aggregate", many.len()))),
        },
        ("scalar", sample) => sample.clone(),
        (other, _) => return Err(NoNumber::failed(format!("a {other} came where a vector or a scalar is needed"))),
    };
    let text = sample.get(1).and_then(Value::as_str).ok_or_else(|| NoNumber::failed("a sample without a value"))?;
    text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or(NoNumber::Empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_read_and_everything_else_is_said() {
        let vector =
            |series: &str| format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#);
        let one = r#"{"metric":{"a":"b"},"value":[1795183200.5,"0.25"]}"#;
        assert_eq!(read(vector(one).as_bytes()), Ok(0.25));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"3"]}}"#;
        assert_eq!(read(scalar.as_bytes()), Ok(3.0));
        assert_eq!(read(vector("").as_bytes()), Err(NoNumber::Empty));
        for nothing in ["NaN", "+Inf", "-Inf"] {
            assert_eq!(read(vector(&one.replace("0.25", nothing)).as_bytes()), Err(NoNumber::Empty), "{nothing}");
        }
        for (text, word) in [
            (vector(&format!("{one},{one}")), "2 series"),
            (r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#.to_owned(), "parse error"),
            (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.to_owned(), "matrix"),
            (vector("{}"), "without a value"),
            ("<html>".to_owned(), "not Prometheus"),
            ("{}".to_owned(), "not Prometheus"),
        ] {
            let NoNumber::Failed(why) = read(text.as_bytes()).unwrap_err() else { panic!("{text}") };
            assert!(why.contains(word), "{why}");
        }
    }
}
