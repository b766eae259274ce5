//! Paints a rollout for people: the API's object, from the case, the counters and the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::case::Case;
use super::view::{
    Approvals, ArmView, Arms, ConfirmView, DrillView, EndpointsView, HeldView, LatchView, PausedView, RegisterView,
    RolloutView, Share, StageView,
};
use crate::judge::{Outcome, Verdict};
use crate::measure::Brief;
use crate::names::{Arm, Wall};
use crate::rollout::{Now, Phase, Question, State, Terms, confirm, machine, register};

/// The picture of a case now.
#[must_use]
pub fn paint(case: &Case, now: Now, heartbeat_age: Duration) -> RolloutView {
    let state = &case.state;
    let plan = state.plan.as_ref().or(case.terms.plan.as_ref());
    RolloutView {
        name: case.name.to_string(),
        phase: state.phase.as_str(),
        why: why(case, now),
        verdict: case.verdict.word(),
        verdict_reason: case.verdict.reason().to_owned(),
        generation: state.generation,
        weight: state.weight.percent(),
        weight_actual: weight_actual(case),
        stages: plan.map(|p| p.stages.iter().map(|s| s.weight.percent()).collect()).unwrap_or_default(),
        stage: stage(state, &case.terms, now.wall),
        started_by: state.started_by.clone(),
        paused: state.paused.as_ref().map(|paused| PausedView {
            from: paused.from.as_str(),
            by: paused.by.clone(),
            why: paused.why.clone(),
        }),
        soak_ends_at: (state.phase == Phase::Soaking).then(|| after(now.wall, state.residence_left())),
        next_version: state.next_version.as_ref().map(ToString::to_string),
        latch: state.latch.as_ref().map(|latch| LatchView {
            at: latch.at.rfc3339(),
            actor: latch.actor.clone(),
            reason: latch.reason.clone(),
        }),
        arms: arms(case, now),
        gates: case.judge.report(now.mono),
        exposed: case.counts.exposed.view(&case.fixed.config.exposure, case.canary()),
        drill: state.drill.as_ref().map(|drill| DrillView {
            at: drill.at.rfc3339(),
            took_ms: drill.took.as_secs_f64() * 1e3,
            failed: drill.failed.clone(),
        }),
        confirm: confirm::question(state, &case.terms).map(asked),
        register: registered(state, &case.terms),
        heartbeat_age_s: heartbeat_age.as_secs_f64(),
        allowed: machine::allowed(state, &case.terms),
    }
}

fn asked(question: Question) -> ConfirmView {
    let holds = question.held.into_iter().map(|(gate, why)| HeldView { gate, why });
    ConfirmView { hook: question.hook.as_str(), since: question.since.rfc3339(), holds: holds.collect() }
}

/// The gates that hold and since when, in a sentence; empty where none does.
fn held(state: &State, terms: &Terms) -> String {
    let held = confirm::question(state, terms).filter(|question| !question.held.is_empty());
    held.map_or_else(String::new, |question| {
        format!("{} (asked since {})", confirm::words(&question), hour(question.since))
    })
}

/// The entry that is frozen, or the file's.
fn registered(state: &State, terms: &Terms) -> Option<RegisterView> {
    let entry = state.register.as_ref().or_else(|| register::of_file(state, terms))?;
    let changed = register::unchanged(state, terms).err();
    Some(RegisterView { entry: std::sync::Arc::clone(entry), frozen: state.register.is_some(), changed })
}

fn after(wall: Wall, by: Duration) -> String {
    Wall(wall.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX))).rfc3339()
}

/// Where it stands and what it waits for, for a tired person.
fn why(case: &Case, now: Now) -> String {
    let state = &case.state;
    let weight = state.weight.percent();
    let since = state.entered_at.map(|at| format!(" since {}", hour(at))).unwrap_or_default();
    match state.phase {
        Phase::Idle => match held(state, &case.terms) {
            held if held.is_empty() => "not started: everybody is on stable".to_owned(),
            held => format!("not started: everybody is on stable; {held}"),
        },
        Phase::RolledBack => match &state.latch {
            Some(latch) => format!("rolled back by {}: {}; a person must clear it", latch.actor, latch.reason),
            None => "rolled back; a person must clear it".to_owned(),
        },
        Phase::Completed => {
            "all on the canary; make it the stable version in the configuration, or abort to revert".to_owned()
        }
        Phase::Paused => match &state.paused {
            Some(paused) => format!("stands at {weight} %: paused by {}: {}", paused.by, paused.why),
            None => format!("stands at {weight} %"),
        },
        Phase::Running if state.plan.is_none() => format!("a plain split: {weight} % on the canary"),
        Phase::Running | Phase::Awaiting | Phase::Soaking => {
            let waits = match machine::waits_for(state, &case.terms, now.wall) {
                Some("residence") => format!("{} of residence left", span(state.residence_left())),
                Some("approval") => "proven; waits for an approval".to_owned(),
                Some("register") => "proven; waits, because the file's digest is not the registered one".to_owned(),
                Some("drill") => "proven; waits for a drill that succeeds".to_owned(),
                Some("confirm") => format!("ready; {}", held(state, &case.terms)),
                Some("group") => "proven; waits for the others of its group".to_owned(),
                Some("hours") => "proven; waits for the hours in which it may rise".to_owned(),
                Some(_) => match &case.verdict {
                    Verdict::Advance { .. } => "proven".to_owned(),
                    other => other.reason().to_owned(),
                },
                None => "nothing is waited for".to_owned(),
            };
            format!("{weight} %{since}; {waits}")
        }
    }
}

fn hour(at: Wall) -> String {
    let text = at.rfc3339();
    text.get(11..16).unwrap_or("?").to_owned() + " UTC"
}

fn span(left: Duration) -> String {
    let s = left.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
    }
}

fn weight_actual(case: &Case) -> Option<f64> {
    let all: u64 = case.counts.drawn.iter().sum();
    (all > 0).then(|| rounded(case.counts.drawn[Arm::Canary.index()] as f64 * 100.0 / all as f64))
}

fn rounded(percent: f64) -> f64 {
    (percent * 1_000.0).round() / 1_000.0
}

fn stage(state: &State, terms: &Terms, wall: Wall) -> Option<StageView> {
    let plan = state.plan.as_ref()?;
    let index = state.stage?;
    let stage = plan.stages.get(index)?;
    Some(StageView {
        index,
        of: plan.stages.len(),
        weight: stage.weight.percent(),
        entered_at: state.entered_at.map(Wall::rfc3339),
        residence_left_s: state.residence_left().as_secs_f64().round(),
        deadline_at: state.deadline_left().map(|left| after(wall, left)),
        waits_for: machine::waits_for(state, terms, wall),
        approvals: Approvals {
            needed: state.target.as_ref().map_or(stage.approval, |t| t.approval).needed(),
            given: state.approvals.clone(),
        },
    })
}

fn arms(case: &Case, now: Now) -> Arms {
    let sums: Vec<Brief> = case.fixed.targets.iter().map(|t| t.recorder.brief()).collect();
    let users: Vec<u64> = case.counts.users.iter().map(super::distinct::Distinct::count).collect();
    let total = |values: &mut dyn Iterator<Item = u64>| values.sum::<u64>();
    let all_users = total(&mut users.iter().copied());
    let all_requests = total(&mut sums.iter().map(|s| s.ended));
    let all_cost = total(&mut sums.iter().map(|s| s.cost_nano));
    let part = |of: u64, all: u64| (all > 0).then(|| rounded(of as f64 * 100.0 / all as f64));
    let view = |arm: Arm| {
        let at = arm.index();
        let (sums, users) = (&sums[at], users[at]);
        let target = &case.fixed.targets[at];
        if arm == Arm::Canary && case.fixed.config.canary.is_none() {
            return ArmView::default();
        }
        let (healthy, all) = target.cluster.health_counts(now.mono);
        let outcomes: BTreeMap<&'static str, u64> = Outcome::ALL
            .into_iter()
            .map(|o| (o.as_str(), sums.outcomes[o.index()]))
            .filter(|(_, count)| *count > 0)
            .collect();
        ArmView {
            version: Some(target.version.to_string()),
            users,
            requests: sums.ended,
            share: Share {
                users: part(users, all_users),
                requests: part(sums.ended, all_requests),
                cost: part(sums.cost_nano, all_cost),
            },
            endpoints: EndpointsView { healthy, all },
            outcomes,
            cost_usd: sums.cost_nano as f64 / 1e9,
        }
    };
    Arms { stable: view(Arm::Stable), baseline: view(Arm::Baseline), canary: view(Arm::Canary) }
}
