//! Where one unit goes and why, without sending traffic.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::auth::{Caller, READERS};
use super::context::Context;
use super::error::Problem;
use crate::names::Arm;
use crate::snapshot::Rollout;
use crate::split::{self, Ask, Bucket, Cohort, CohortTo, Condition, Subject, Unit, Weight};

/// The query of `which`.
#[derive(Debug, Deserialize)]
pub struct Asked {
    #[serde(default)]
    unit: String,
}

/// Where a unit goes. The unit itself is never said back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// The rollout.
    pub rollout: String,
    /// The arm.
    pub arm: Arm,
    /// Its version.
    pub version: String,
    /// The word of `Serin-Why`.
    pub why: &'static str,
    /// The cohort that decided.
    pub cohort: Option<String>,
    /// The unit's bucket, 0 to 99,999.
    pub bucket: u32,
    /// The canary's desired weight, %.
    pub weight: f64,
    /// The least weight at which this bucket is the canary's, %; null without a canary.
    pub would_be_canary_from: Option<f64>,
    /// Cohorts that a request's header, claim, path or address could put the unit into, in order.
    pub may_change: Vec<MayChange>,
    /// All that in a sentence.
    pub explanation: String,
    /// Placed by the bucket, so compared by the gates.
    #[serde(skip)]
    pub drawn: bool,
}

/// A cohort that the unit alone cannot decide.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MayChange {
    /// The cohort.
    pub cohort: String,
    /// Where it sends.
    pub to: String,
    /// What of a request it looks at.
    pub looks_at: Vec<String>,
}

/// `GET /api/v1/rollouts/{name}/which?unit=ID`.
///
/// # Errors
/// 403, 404, 422.
pub async fn which(
    State(cx): State<Context>,
    caller: Caller,
    Path(name): Path<String>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let remedy = "add ?unit=ID, percent-encoded";
    let Query(asked) = asked.map_err(|_| Problem::invalid("the query cannot be read", remedy))?;
    let snapshot = cx.snapshot();
    let rollout = snapshot.rollout(&name).ok_or_else(|| Problem::no_rollout(&name))?;
    let place = place(rollout, &asked.unit).ok_or_else(|| Problem::invalid("no unit is named", remedy))?;
    Ok(Json(place).into_response())
}

/// Where this unit goes by all that the unit alone decides; `None` for an empty unit.
#[must_use]
pub fn place(rollout: &Rollout, text: &str) -> Option<Place> {
    let unit = Unit::new(text.as_bytes())?;
    let config = &rollout.fixed.config;
    let alone = UnitAlone(text);
    let (decided, may): (Vec<_>, Vec<_>) =
        config.cohorts.iter().filter(|cohort| possible(cohort, &alone)).partition(|cohort| by_unit_alone(cohort));
    let first = decided.first().map(|cohort| cohort.name.as_str());
    // A cohort behind the one that decides is never asked.
    let before = |cohort: &&&Cohort| {
        let position = |name: &str| config.cohorts.iter().position(|one| one.name == name);
        first.is_none_or(|first| position(&cohort.name) < position(first))
    };
    let may_change = if rollout.split.latched {
        Vec::new()
    } else {
        may.iter().filter(before).map(|cohort| may_change(cohort)).collect::<Vec<_>>()
    };
    let table = split::Table { cohorts: decided.into_iter().cloned().collect(), ..rollout.split.clone() };
    let choice = split::choose(&table, Some(unit), &alone);
    let canary = config.canary.is_some();
    let arm = if canary || choice.arm != Arm::Canary { choice.arm } else { Arm::Stable };
    let bucket = Bucket::of(unit, rollout.split.seed).number();
    let cohort = choice.cohort.and_then(|index| table.cohorts.get(usize::from(index))).map(|c| c.name.clone());
    let mut place = Place {
        rollout: config.name.to_string(),
        arm,
        version: rollout.target(arm).version.to_string(),
        why: choice.why.as_str(),
        cohort,
        bucket,
        weight: rollout.split.weight.percent(),
        would_be_canary_from: canary.then(|| Weight::from_buckets(bucket + 1).percent()),
        may_change,
        explanation: String::new(),
        drawn: choice.drawn,
    };
    place.explanation = explain(&place, rollout);
    Some(place)
}

fn explain(place: &Place, rollout: &Rollout) -> String {
    let mut text = match (&rollout.runtime.latch, &place.cohort) {
        (Some(latch), _) => format!("the rollout is latched ({}): everybody goes to stable", latch.reason),
        (None, Some(cohort)) => format!("cohort {cohort:?} decides: {}", place.arm),
        (None, None) => {
            format!("bucket {} of 100,000 at a weight of {} % is {}", place.bucket, place.weight, place.arm)
        }
    };
    match place.would_be_canary_from {
        None => text.push_str("; the configuration names no canary"),
        Some(from) if place.arm != Arm::Canary => text.push_str(&format!("; canary from {from} % on")),
        Some(_) => {}
    }
    if !place.may_change.is_empty() {
        let names: Vec<_> =
            place.may_change.iter().map(|may| format!("{:?} (by {})", may.cohort, may.looks_at.join(", "))).collect();
        text.push_str(&format!("; a request may fall into cohort {} first", names.join(", ")));
    }
    text
}

/// Whether the unit alone decides this cohort.
fn by_unit_alone(cohort: &Cohort) -> bool {
    cohort.when.iter().all(|condition| condition.subject == Subject::Unit)
}

/// Whether a request of this unit can fall into the cohort: no condition on the unit itself fails.
fn possible(cohort: &Cohort, alone: &UnitAlone<'_>) -> bool {
    cohort.when.iter().filter(|c| c.subject == Subject::Unit).all(|c: &Condition| c.test.passes(alone.0))
}

fn may_change(cohort: &Cohort) -> MayChange {
    let looks_at = |condition: &Condition| match &condition.subject {
        Subject::Header(name) => format!("header {name}"),
        Subject::Cookie(name) => format!("cookie {name}"),
        Subject::Claim(name) => format!("claim {name}"),
        Subject::Query(name) => format!("query {name}"),
        Subject::Path => "path".to_owned(),
        Subject::Unit => "list".to_owned(),
        Subject::Ip => "ip".to_owned(),
    };
    let to = match cohort.to {
        CohortTo::Canary => "canary".to_owned(),
        CohortTo::Stable => "stable".to_owned(),
        CohortTo::Weight(weight) => format!("a split at {weight}"),
    };
    MayChange { cohort: cohort.name.clone(), to, looks_at: cohort.when.iter().map(looks_at).collect() }
}

/// A request of which only the unit is known.
struct UnitAlone<'a>(&'a str);

impl Ask for UnitAlone<'_> {
    fn unit(&self) -> Option<&str> {
        Some(self.0)
    }
}
