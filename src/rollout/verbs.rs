//! The verbs of people: who may, when, and what each one does.

use std::time::Duration;

use crate::rollout::confirm::{Confirm, Hook};
use crate::rollout::drill;
use crate::rollout::effect::{Effect, Refusal, RefusalKind, Tidings};
use crate::rollout::event::{Actor, Role, Verb};
use crate::rollout::machine::{Outcome, allowed, possible_beside, refuse};
use crate::rollout::moves::{Close, Draft, EXTENSION_MAX};
use crate::rollout::plan::Approval;
use crate::rollout::record::Decision;
use crate::rollout::register;
use crate::rollout::state;
use crate::rollout::state::{Paused, Phase, State, Target};
use crate::split::weight::Weight;

/// How often a version may be rolled back before only an owner clears it.
const ROLLBACKS_BEFORE_OWNER: u32 = 3;

/// Carries out a command, or says why not: first the role, then the phase, then what the verb itself asks.
pub(crate) fn command(draft: Draft<'_>, verb: Verb, actor: &Actor, reason: &str) -> Outcome {
    if !actor.may(verb) {
        let roles: Vec<&str> = verb.roles().iter().map(|r| r.as_str()).collect();
        let full = if verb == (Verb::Promote { full: true }) { " --full" } else { "" };
        let why = format!("{}{full} needs the role {}", verb.name(), roles.join(" or "));
        return Err(refuse(&draft, RefusalKind::Forbidden, why));
    }
    let phase = draft.state.phase;
    let beside = possible_beside(phase, verb);
    if !beside && !allowed(draft.before, draft.terms).contains(&verb.name()) {
        return Err(forbidden_by_phase(&draft, verb));
    }
    match verb {
        Verb::Abort if beside => Ok(draft.quiet()),
        Verb::Start => start(draft, actor, reason),
        Verb::Approve => approve(draft, actor, reason),
        Verb::Promote { full } => promote(draft, full, actor, reason),
        Verb::Pause => Ok(draft.pause(Decision::Pause, &actor.name, reason, Tidings::Paused)),
        Verb::Resume => resume(draft, actor, reason),
        Verb::StepBack => Ok(step_back(draft, &actor.name, reason)),
        Verb::Extend { by } => extend(draft, by, actor, reason),
        Verb::Abort => Ok(draft.roll_back(Decision::Abort, &actor.name, reason)),
        Verb::Clear => clear(draft, actor, reason),
        Verb::Drill => Ok((draft.state, vec![Effect::Drill])),
        Verb::SetWeight(weight) => set_weight(draft, weight, actor, reason),
        Verb::Gates => take_gates(draft, actor, reason),
        Verb::Register => write_register(draft, actor, reason),
    }
}

/// The tick's own start of a new version, or of the file's plain split; waits while nothing may rise.
pub(crate) fn start_by_file(draft: Draft<'_>) -> (State, Vec<Effect>) {
    let waiting = draft.state.clone();
    let config = Actor::new("config", &[Role::Operator]);
    start(draft, &config, "the configuration starts it").unwrap_or((waiting, Vec::new()))
}

fn forbidden_by_phase(draft: &Draft<'_>, verb: Verb) -> Refusal {
    let words = allowed(draft.before, draft.terms).join(", ");
    let phase = draft.state.phase.as_str();
    let plain = draft.state.plan.is_none() && matches!(draft.state.phase, Phase::Running | Phase::Paused);
    let plain = if plain { ", a split without a plan" } else { "" };
    let why = format!("{} is not possible in {phase}{plain}; possible are: {words}", verb.name());
    refuse(draft, RefusalKind::Conflict, why)
}

/// Refuses a rise by hand while the heartbeat is stale (for everybody) or the calendar is closed (but for owners).
fn rise_by_hand(draft: &Draft<'_>, actor: &Actor) -> Result<(), Refusal> {
    if draft.state.heartbeat_lost {
        let why = "the judge's heartbeat is stale: nothing rises until it is back; pause, step-back and abort work";
        return Err(refuse(draft, RefusalKind::Stale, why));
    }
    if let Err(why) = register::unchanged(&draft.state, draft.terms) {
        return Err(refuse(draft, RefusalKind::Conflict, why));
    }
    match drill::may_rise(&draft.state, draft.terms, draft.now.wall).and_then(|()| draft.calendar()) {
        Err(why) if !actor.is(Role::Owner) => {
            Err(refuse(draft, RefusalKind::Conflict, format!("{why}: nothing rises now; an owner may")))
        }
        _ => Ok(()),
    }
}

fn start(mut draft: Draft<'_>, actor: &Actor, reason: &str) -> Outcome {
    let Some(version) = draft.state.version.clone() else {
        return Err(refuse(&draft, RefusalKind::Conflict, "the configuration names no canary"));
    };
    rise_by_hand(&draft, actor)?;
    if !draft.confirmed(Hook::ConfirmRollout) {
        return Err(refuse(&draft, RefusalKind::Conflict, format!("{}; start again when it opens", draft.held())));
    }
    draft.state.confirm = Confirm::default();
    draft.state.auto_start = false;
    draft.state.started_by = Some(actor.name.clone());
    draft.freeze_gates();
    match draft.terms.plan.clone() {
        Some(plan) if plan.stages.is_empty() => {
            return Err(refuse(&draft, RefusalKind::Conflict, "the plan has no stages"));
        }
        Some(plan) => {
            draft.state.plan = Some(plan.clone());
            draft.state.entered.clear();
            draft.enter(&plan, 0);
        }
        None => {
            draft.state.phase = Phase::Running;
            draft.state.weight = draft.terms.weight.unwrap_or(Weight::ZERO);
            draft.state.entered_at = Some(draft.now.wall);
        }
    }
    let text = format!("{version} starts at {}, by {}", draft.state.weight, actor.name);
    Ok(draft.close(Close::new(Decision::Start, &actor.name, reason, Tidings::Started, text).entering()))
}

fn approve(mut draft: Draft<'_>, actor: &Actor, reason: &str) -> Outcome {
    let Some(target) = draft.state.target.clone() else {
        return Err(forbidden_by_phase(&draft, Verb::Approve));
    };
    let name = &actor.name;
    if draft.state.approvals.contains(name) {
        let why = format!("{name} has signed already; somebody else must sign too");
        return Err(refuse(&draft, RefusalKind::Conflict, why));
    }
    if target.approval == Approval::Two && draft.state.started_by.as_ref() == Some(name) {
        let why = format!("{name} started this rollout and cannot be one of its two approvers");
        return Err(refuse(&draft, RefusalKind::Forbidden, why));
    }
    if draft.state.approvals.len() < target.approval.needed() {
        draft.state.approvals.push(name.clone());
    }
    let generation = draft.state.generation;
    let (state, effects) = draft.clone().settle(name, reason);
    if state.generation != generation {
        return Ok((state, effects));
    }
    let given = draft.state.approvals.len();
    let text = format!("{name} has signed for {}: {given} of {}", draft.canary(), target.approval.needed());
    Ok(draft.close(Close::new(Decision::Approve, name, reason, Tidings::Awaiting, text)))
}

fn promote(mut draft: Draft<'_>, full: bool, actor: &Actor, reason: &str) -> Outcome {
    rise_by_hand(&draft, actor)?;
    if draft.state.phase == Phase::Soaking {
        return Ok(draft.complete(&actor.name, reason, false));
    }
    let Some((plan, stage)) = draft.state.plan.clone().zip(draft.state.stage) else {
        return Err(forbidden_by_phase(&draft, Verb::Promote { full }));
    };
    let target = if full { plan.last() } else { stage + 1 };
    let skipped = plan.stages.get(stage..target).unwrap_or_default();
    let approval = skipped.iter().map(|s| s.approval).max().unwrap_or_default();
    if approval == Approval::None && draft.confirmed(Hook::into_stage(&plan, target)) {
        return Ok(draft.rise(&plan, target, Decision::Promote, &actor.name, reason));
    }
    draft.forget();
    draft.state.target = Some(Target { stage: target, approval, promoted_by: Some(actor.name.clone()) });
    if approval == Approval::None {
        // The gates are asked again: what they are asked about is this promotion.
        draft.confirmed(Hook::into_stage(&plan, target));
    }
    let why = format!("promoted by {} past residence and gates: {reason}", actor.name);
    Ok(draft.await_approval(&actor.name, &why))
}

fn resume(mut draft: Draft<'_>, actor: &Actor, reason: &str) -> Outcome {
    let Some(paused) = draft.state.paused.clone() else {
        return Err(forbidden_by_phase(&draft, Verb::Resume));
    };
    let plan = draft.state.plan.clone();
    if let (true, Some(plan)) = (paused.by_hand, plan) {
        let target = draft.state.reachable(&plan, draft.state.weight).unwrap_or(0);
        let mut next = draft.clone();
        next.enter(&plan, target);
        let up = next.state.weight > draft.state.weight || next.state.cohorts() != draft.state.cohorts();
        if up {
            rise_by_hand(&draft, actor)?;
        }
        let text = format!(
            "{} goes on at stage {} of {}, {}",
            next.canary(),
            target + 1,
            plan.stages.len(),
            next.state.weight
        );
        return Ok(next.close(Close::new(Decision::Resume, &actor.name, reason, Tidings::Resumed, text).entering()));
    }
    draft.state.phase = paused.from;
    draft.state.paused = None;
    if paused.by_deadline {
        draft.state.waited = Duration::ZERO;
        draft.state.asked = Duration::ZERO;
    }
    let text = format!("{} goes on at {}, by {}", draft.canary(), draft.state.weight, actor.name);
    Ok(draft.close(Close::new(Decision::Resume, &actor.name, reason, Tidings::Resumed, text)))
}

/// The stage before; from a weight set by hand, the highest entered stage below it; from the first, 0 and paused.
pub(crate) fn step_back(mut draft: Draft<'_>, actor: &str, reason: &str) -> (State, Vec<Effect>) {
    let Some((plan, stage)) = draft.state.plan.clone().zip(draft.state.stage) else { return draft.quiet() };
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let by_hand = draft.state.paused.as_ref().is_some_and(|p| p.by_hand);
    let target = if by_hand {
        let weight = draft.state.weight;
        draft
            .state
            .reachable(&plan, weight)
            .and_then(|at| if plan.weight_of(at) < weight { Some(at) } else { at.checked_sub(1) })
    } else {
        stage.checked_sub(1)
    };
    // A stage at 0 by hand has its cohorts closed: entering one would open them, which is no step back.
    let target = target.filter(|_| !(by_hand && draft.state.weight == Weight::ZERO));
    let Some(target) = target else {
        if by_hand && draft.state.weight == Weight::ZERO {
            return draft.quiet();
        }
        stand_at(&mut draft, Weight::ZERO, actor, "stepped back from the first stage");
        let text = format!("{} stands at 0, stepped back from its first stage by {actor}{why}", draft.canary());
        return draft.close(Close::new(Decision::StepBack, actor, reason, Tidings::Paused, text));
    };
    draft.enter(&plan, target);
    let text = format!(
        "{} goes back to stage {} of {}, {}, by {actor}{why}",
        draft.canary(),
        target + 1,
        plan.stages.len(),
        draft.state.weight,
    );
    draft.close(Close::new(Decision::StepBack, actor, reason, Tidings::Stage, text).entering())
}

/// Stands at a weight that is no stage's.
pub(crate) fn stand_at(draft: &mut Draft<'_>, weight: Weight, by: &str, why: &str) {
    draft.forget();
    let from = draft.state.paused.as_ref().map_or(draft.state.phase, |p| p.from);
    draft.state.phase = Phase::Paused;
    draft.state.weight = weight;
    draft.state.paused = Some(Paused {
        from,
        by: by.to_owned(),
        why: why.to_owned(),
        at: draft.now.wall,
        by_hand: true,
        by_deadline: false,
        waited: Duration::ZERO,
    });
}

fn extend(mut draft: Draft<'_>, by: Duration, actor: &Actor, reason: &str) -> Outcome {
    if by.is_zero() || by > EXTENSION_MAX {
        return Err(refuse(&draft, RefusalKind::Invalid, "extend by more than nothing and at most 90 days"));
    }
    let state = &mut draft.state;
    let base = state.residence().saturating_sub(state.extended);
    let until = state.residence().max(state.resided).saturating_add(by);
    state.extended = until.saturating_sub(base);
    if state.phase == Phase::Awaiting {
        state.phase = Phase::Running;
        state.asked = Duration::ZERO;
        state.target = None;
        state.approvals.clear();
    }
    let left = draft.state.residence_left().as_secs();
    let text = format!("{} stays at {} for {left} s more, by {}", draft.canary(), draft.state.weight, actor.name);
    Ok(draft.close(Close::new(Decision::Extend, &actor.name, reason, Tidings::Stage, text)))
}

fn clear(mut draft: Draft<'_>, actor: &Actor, reason: &str) -> Outcome {
    if reason.trim().is_empty() {
        return Err(refuse(&draft, RefusalKind::Invalid, "clear needs a reason: the root cause of the rollback"));
    }
    let count = draft.state.version.as_ref().map_or(0, |v| draft.state.rollbacks_of(v));
    if count >= ROLLBACKS_BEFORE_OWNER && !actor.is(Role::Owner) {
        let why = format!("{} was rolled back {count} times: only an owner may clear it", draft.canary());
        return Err(refuse(&draft, RefusalKind::Forbidden, why));
    }
    let cleared = draft.canary();
    let next = draft.state.next_version.take();
    let adopted = next.clone();
    draft.reset(next.or_else(|| draft.terms.canary.clone()));
    let other = draft.state.version.is_some() && draft.state.version != draft.before.version;
    draft.state.auto_start = other && state::starts_itself(draft.terms);
    let text = format!("{} lifted the latch of {cleared}: {reason}", actor.name);
    let mut close = Close::new(Decision::Clear, &actor.name, reason, Tidings::Cleared, text);
    if let Some(version) = adopted {
        close = close.with(Effect::Adopt(version));
    }
    Ok(draft.close(close))
}

fn set_weight(mut draft: Draft<'_>, weight: Weight, actor: &Actor, reason: &str) -> Outcome {
    if weight > draft.state.weight {
        rise_by_hand(&draft, actor)?;
    }
    let Some(plan) = draft.state.plan.clone() else { return set_plain(draft, weight, actor, reason) };
    let lawful = draft.state.highest().map_or(Weight::ZERO, |h| plan.weight_of(h));
    if weight > lawful && !actor.is(Role::Owner) {
        let why = format!("{weight} is above {lawful}, the highest stage that was entered: only an owner may");
        return Err(refuse(&draft, RefusalKind::Forbidden, why));
    }
    let why = if reason.is_empty() { "a weight was set by hand" } else { reason };
    stand_at(&mut draft, weight, &actor.name, why);
    let text = format!("{} stands at {weight}, set by {} without proof", draft.canary(), actor.name);
    Ok(draft.close(Close::new(Decision::SetWeight, &actor.name, reason, Tidings::ByHand, text)))
}

/// A split without a plan: running at its weight, idle at 0.
fn set_plain(mut draft: Draft<'_>, weight: Weight, actor: &Actor, reason: &str) -> Outcome {
    if draft.state.version.is_none() {
        return Err(refuse(&draft, RefusalKind::Conflict, "the configuration names no canary"));
    }
    let begins = draft.state.phase == Phase::Idle && weight > Weight::ZERO;
    let mut adopted = None;
    if weight == Weight::ZERO {
        adopted = draft.state.next_version.take();
        let version = adopted.clone().or_else(|| draft.state.version.clone());
        draft.reset(version);
    } else {
        draft.state.auto_start = false;
        draft.state.phase = Phase::Running;
        draft.state.weight = weight;
        draft.state.paused = None;
        if begins {
            draft.state.started_by = Some(actor.name.clone());
            draft.freeze_gates();
            draft.state.entered_at = Some(draft.now.wall);
        }
    }
    let text = format!("{} is at {weight}, set by {} without proof", draft.canary(), actor.name);
    let mut close = Close::new(Decision::SetWeight, &actor.name, reason, Tidings::ByHand, text);
    close.enters = begins;
    if let Some(version) = adopted {
        close = close.with(Effect::Adopt(version));
    }
    Ok(draft.close(close))
}

fn take_gates(mut draft: Draft<'_>, actor: &Actor, reason: &str) -> Outcome {
    if reason.trim().is_empty() {
        return Err(refuse(&draft, RefusalKind::Invalid, "a change of gates in a running rollout needs a reason"));
    }
    draft.forget();
    draft.freeze_gates();
    draft.state.resided = Duration::ZERO;
    if draft.state.phase == Phase::Awaiting {
        draft.state.phase = Phase::Running;
    }
    if let Some(paused) = draft.state.paused.as_mut()
        && paused.from == Phase::Awaiting
    {
        paused.from = Phase::Running;
    }
    let text = format!("{} changed the gates of {}: {reason}", actor.name, draft.canary());
    let close = Close::new(Decision::Gates, &actor.name, reason, Tidings::Gates, text).entering();
    Ok(draft.close(close.with(Effect::TakeGates)))
}

/// Writes the file's entry of this version into the register. While it is under release, another digest is refused: that
/// is a change of what was proven, and an owner's `gates` takes it in.
fn write_register(mut draft: Draft<'_>, actor: &Actor, reason: &str) -> Outcome {
    let Some(entry) = register::of_file(&draft.state, draft.terms).cloned() else {
        let why = format!("the configuration has no entry of {}: write [rollouts.NAME.register]", draft.canary());
        return Err(refuse(&draft, RefusalKind::Conflict, why));
    };
    if let Err(why) = register::unchanged(&draft.state, draft.terms) {
        return Err(refuse(&draft, RefusalKind::Conflict, why));
    }
    let text = format!("{} registered {} as {}", actor.name, entry.version, entry.digest);
    if draft.state.phase != Phase::Idle {
        draft.state.register = Some(entry);
    }
    Ok(draft.close(Close::new(Decision::Register, &actor.name, reason, Tidings::Register, text)))
}
