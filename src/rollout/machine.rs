//! The state machine of a rollout: pure and total; one event in, the next state and ordered effects out.
//!
//! There are few ways up, and all are here or one call away. `moves::Draft::settle` is the only place where proof
//! moves a rollout up; the verbs `start`, `promote`, `set weight` and `resume` are the only ones where a person does,
//! and their records say `proven: false`. The way down is `moves::Draft::roll_back`, reachable from every phase that
//! sends canary traffic.

use crate::judge::{Lack, Verdict};
use crate::names::Wall;
use crate::rollout::calendar;
use crate::rollout::effect::{Effect, Refusal, RefusalKind};
use crate::rollout::event::{Event, Now, Verb};
use crate::rollout::moves::Draft;
use crate::rollout::record::Decision;
use crate::rollout::state::{Lacking, Phase, Proof, State, Terms};
use crate::rollout::{confirm, drill, exposure, file, register, verbs};

/// What a step answers: the next state with what to do, or why nothing changed.
pub type Outcome = Result<(State, Vec<Effect>), Refusal>;

/// Takes one event. `terms` is the file's word; for `NewVersion`, `CanaryRemoved` and `PromotedInConfig` that of the
/// new file. The effects are in lawful order: down is published, recorded, told; up is recorded, published, told.
///
/// # Errors
/// The event is a command that role, phase, plan, calendar or heartbeat forbid, or a change of the file that may not
/// be taken now. Nothing changed then.
pub fn step(terms: &Terms, state: &State, event: Event, now: Now) -> Outcome {
    let mut draft = Draft::new(terms, state, now);
    let done = match event {
        Event::Command { verb, actor, reason } => verbs::command(draft, verb, &actor, &reason)?,
        Event::Judged(verdict) => judged(draft, verdict),
        Event::Tripped { reason } => {
            if draft.may_roll_back() {
                draft.roll_back(Decision::Rollback, "breaker", &reason)
            } else {
                draft.quiet()
            }
        }
        Event::Tick => tick(draft),
        Event::HeartbeatLost => {
            if draft.state.heartbeat_lost {
                draft.quiet()
            } else {
                draft.state.heartbeat_lost = true;
                draft.state.proof = None;
                draft.heartbeat(Decision::Freeze, "the judge's heartbeat is stale: nothing rises until it is back")
            }
        }
        Event::HeartbeatFound => {
            if draft.state.heartbeat_lost {
                draft.state.heartbeat_lost = false;
                draft.heartbeat(Decision::Thaw, "the judge's heartbeat is back")
            } else {
                draft.quiet()
            }
        }
        Event::Exposure { spent, stops } => exposure::exposure(draft, spent, stops),
        Event::Confirmed { gate, version, generation, answer } => {
            confirm::answered(draft, &gate, &version, generation, answer)
        }
        Event::NewVersion(version) => file::new_version(draft, version)?,
        Event::CanaryRemoved => file::canary_removed(draft),
        Event::PromotedInConfig => file::promoted(draft)?,
        Event::Drilled { took, failed } => draft.drilled(took, failed),
        Event::Barrier => {
            draft.released = true;
            draft.settle("group", "")
        }
        Event::GroupFell { which, reason } => {
            if draft.may_roll_back() {
                let reason = format!("{which} of the same group fell: {reason}");
                draft.roll_back(Decision::Abort, "group", &reason)
            } else {
                draft.quiet()
            }
        }
    };
    debug_assert_eq!(done.0.check_invariants(), Ok(()));
    Ok(done)
}

/// The verbs that the phase allows, in the words and the order of the interface's phase table.
#[must_use]
pub fn allowed(state: &State, terms: &Terms) -> Vec<&'static str> {
    let plain = state.plan.is_none();
    match state.phase {
        Phase::Idle if terms.plan.is_some() => vec!["start", "drill"],
        Phase::Idle if terms.weight.is_some_and(|w| w.buckets() > 0) => vec!["start", "set weight", "drill"],
        Phase::Idle => vec!["set weight", "drill"],
        Phase::Running if plain => vec!["pause", "set weight", "abort", "drill"],
        Phase::Running => vec!["promote", "pause", "set weight", "step-back", "extend", "abort", "drill"],
        Phase::Awaiting => vec!["approve", "pause", "set weight", "step-back", "extend", "abort", "drill"],
        Phase::Paused if plain => vec!["resume", "set weight", "abort", "drill"],
        Phase::Paused => vec!["resume", "set weight", "step-back", "abort", "drill"],
        Phase::Soaking => vec!["pause", "extend", "promote", "abort", "drill"],
        Phase::Completed => vec!["abort", "drill"],
        Phase::RolledBack => vec!["clear"],
    }
}

/// What is possible beside the phase table: an abort where nothing runs, which changes nothing, an owner's new gates for
/// what runs, and the register, which is of versions and not of phases.
#[must_use]
pub const fn possible_beside(phase: Phase, verb: Verb) -> bool {
    match verb {
        Verb::Abort => matches!(phase, Phase::Idle | Phase::RolledBack),
        Verb::Gates => !matches!(phase, Phase::Idle | Phase::Completed | Phase::RolledBack),
        Verb::Register => true,
        _ => false,
    }
}

/// What the present stage waits for: `residence`, `samples`, `gates`, `approval`, `register`, `drill`, `hours`,
/// `confirm`, `group`, or nothing.
#[must_use]
pub fn waits_for(state: &State, terms: &Terms, at: Wall) -> Option<&'static str> {
    let plan = state.plan.as_ref()?;
    match state.phase {
        Phase::Awaiting => {
            let signed = state.target.as_ref().is_some_and(|t| state.approvals.len() >= t.approval.needed());
            if !signed {
                return Some("approval");
            }
        }
        Phase::Running | Phase::Soaking => {
            if !state.residence_left().is_zero() {
                return Some("residence");
            }
            if state.proof.is_none() {
                return Some(if state.lacking == Some(Lacking::Samples) { "samples" } else { "gates" });
            }
        }
        _ => return None,
    }
    Some(if register::unchanged(state, terms).is_err() {
        "register"
    } else if drill::may_rise(state, terms, at).is_err() {
        "drill"
    } else if calendar::may_rise(plan, at).is_err() {
        "hours"
    } else if confirm::holds(state, terms) {
        "confirm"
    } else if state.at_barrier {
        "group"
    } else {
        "gates"
    })
}

/// The event that a file makes of a state, at a reload (`terms` of the new file) or after a restart; `None` when they
/// agree. A refusal of it refuses the reload; after a restart it is to be followed by `CanaryRemoved`.
#[must_use]
pub fn reconcile(state: &State, terms: &Terms) -> Option<Event> {
    match (&state.version, &terms.canary) {
        (Some(mine), _) if *mine == terms.stable => Some(Event::PromotedInConfig),
        (Some(_), None) if state.phase != Phase::RolledBack || state.next_version.is_some() => {
            Some(Event::CanaryRemoved)
        }
        (_, Some(new)) if state.next_version.as_ref() == Some(new) => None,
        (mine, Some(new)) if mine.as_ref() != Some(new) || state.next_version.is_some() => {
            Some(Event::NewVersion(new.clone()))
        }
        _ => None,
    }
}

fn judged(mut draft: Draft<'_>, verdict: Verdict) -> (State, Vec<Effect>) {
    if !draft.may_roll_back() {
        return draft.quiet();
    }
    match verdict {
        Verdict::Rollback { rule, reason } => {
            let reason = named(&rule, reason);
            draft.roll_back(Decision::Rollback, "judge", &reason)
        }
        Verdict::StepBack { rule, reason } => {
            let reason = named(&rule, reason);
            draft.state.proof = None;
            draft.state.lacking = Some(Lacking::Gates);
            // Where a person has said what stands, where nothing is below, and where it is all or nothing, it holds.
            let lawful = draft.state.plan.is_some() && matches!(draft.state.phase, Phase::Running | Phase::Awaiting);
            if lawful { verbs::step_back(draft, "judge", &reason) } else { draft.quiet() }
        }
        Verdict::Advance { reason } => {
            let state = &mut draft.state;
            state.lacking = None;
            if state.heartbeat_lost {
                return draft.quiet();
            }
            let held = state.proof.as_ref().map_or_else(Default::default, |p| p.held);
            state.proof = Some(Proof { reason, held, age: Default::default() });
            draft.settle("judge", "")
        }
        Verdict::Hold { missing, reason } => {
            let state = &mut draft.state;
            state.proof = None;
            let sample =
                |lack: &Lack| matches!(lack, Lack::Requests { .. } | Lack::Users { .. } | Lack::Residence { .. });
            let samples = missing.iter().all(|m| sample(&m.lack));
            state.lacking = Some(if samples { Lacking::Samples } else { Lacking::Gates });
            let promoted = state.target.as_ref().is_some_and(|t| t.promoted_by.is_some());
            if state.phase == Phase::Awaiting && !promoted { draft.void(&reason) } else { draft.settle("judge", "") }
        }
    }
}

/// A gate's numbers, with its name before them.
fn named(rule: &str, reason: String) -> String {
    if reason.starts_with(rule) { reason } else { format!("{rule}: {reason}") }
}

fn tick(mut draft: Draft<'_>) -> (State, Vec<Effect>) {
    if drill::is_due(&draft.state, draft.terms, draft.now.wall) {
        return (draft.state, vec![Effect::Drill]);
    }
    // Whether a release may begin is asked before anybody begins it, so that the answer is there.
    let may_start = draft.state.phase == Phase::Idle && allowed(&draft.state, draft.terms).contains(&"start");
    if may_start && draft.state.version.is_some() {
        draft.confirmed(confirm::Hook::ConfirmRollout);
    }
    if draft.state.phase == Phase::Idle && draft.state.auto_start {
        return verbs::start_by_file(draft);
    }
    let generation = draft.state.generation;
    let (state, effects) = draft.clone().settle("plan", "");
    if state.generation != generation {
        return (state, effects);
    }
    draft.state.at_barrier = state.at_barrier;
    draft.state.confirm = state.confirm;
    draft.deadline()
}

/// A refusal of this kind, with what the phase allows.
pub(crate) fn refuse(draft: &Draft<'_>, kind: RefusalKind, why: impl Into<String>) -> Refusal {
    Refusal { kind, why: why.into(), allowed: allowed(draft.before, draft.terms) }
}
