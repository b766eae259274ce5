//! A new file under rollouts that live: who agrees, who is gone, who comes back where the journal left it.

use std::sync::Arc;

use super::case::{self, Case};
use super::effects::{self, World};
use super::turn::{Evaluator, adoption};
use crate::config;
use crate::journal::Kept;
use crate::judge::Judge;
use crate::rollout::{Event, Latch, Now, Phase, State, machine, register};
use crate::snapshot::{Prepared, Snapshot};

/// The remedy of a reload that met a disk that hangs.
const AGAIN: &str = "nothing of the file is in force; reload again when the disk answers";

impl Evaluator {
    /// Takes a new file: every rollout's machine must agree and the journal must have room for what they say, or nothing
    /// changes.
    pub(super) fn reload(&mut self, prepared: &Arc<Prepared>, now: Now) -> Result<(), String> {
        let mut steps = Vec::new();
        for rollout in &prepared.config().rollouts {
            let terms = case::terms(rollout);
            let Some(at) = self.cases.iter().position(|c| c.name == rollout.name) else { continue };
            let state = &self.cases[at].state;
            if effects::are_frozen(state) {
                frozen(&self.cases[at].fixed.config, rollout)
                    .map_err(|why| format!("rollouts.{}.{why}", rollout.name))?;
            }
            let step = match machine::reconcile(state, &terms) {
                None => None,
                Some(event) => {
                    let step = machine::step(&terms, state, event, now)
                        .map_err(|refusal| format!("rollouts.{}: {}", rollout.name, refusal.why))?;
                    Some(step)
                }
            };
            steps.push((at, terms, step));
        }
        let is_gone = |case: &Case| prepared.rollout(case.name.as_str()).is_none();
        let gone: Vec<usize> = (0..self.cases.len()).filter(|at| is_gone(&self.cases[*at])).collect();
        let records = gone.len() + steps.iter().filter(|(_, _, step)| step.is_some()).count();
        if !self.world.journal.has_room(records) {
            return Err(format!("the journal's queue has no room for {records} records: the disk hangs; {AGAIN}"));
        }
        // What must be durable first decides whether anything of the file is taken at all.
        let mut firsts = Vec::new();
        let mut others = Vec::new();
        for (at, terms, step) in steps {
            match step {
                Some((state, effects)) if effects::waits(&effects) => {
                    let first = effects::first(&self.cases[at], state, effects, now.mono);
                    firsts.extend(first.map(|first| (at, terms, first)));
                }
                step => others.push((at, terms, step)),
            }
        }
        effects::record_first(&self.world, firsts.iter().map(|(_, _, first)| first))
            .map_err(|why| format!("{why}; {AGAIN}"))?;
        // Rollouts that the file no longer has: whatever runs of them is at its end.
        for at in gone {
            self.apply_quietly(at, Event::CanaryRemoved, now);
        }
        self.world.prepared = Arc::clone(prepared);
        for (at, terms, first) in firsts {
            let case = &mut self.cases[at];
            case.terms = terms;
            effects::enforce(case, &mut self.world, first, now.mono)?;
        }
        for (at, terms, step) in others {
            let case = &mut self.cases[at];
            case.terms = terms;
            case.changed = true;
            if let Some((state, effects)) = step {
                effects::carry_out(case, &mut self.world, state, effects, now.mono)
                    .map_err(|why| format!("rollouts.{}: {why}", case.name))?;
            }
        }
        let waiting = |case: &Case| case.state.version.is_some() && case.state.version != case.terms.canary;
        let keeps: Vec<String> = self.cases.iter().filter(|c| waiting(c)).map(|c| c.name.to_string()).collect();
        let snapshot = self.world.live.update(|current: &Snapshot| {
            let keep = |name: &str| keeps.iter().any(|k| k == name);
            Some(prepared.merge_onto(current, keep, |_| crate::snapshot::Runtime::default()))
        });
        self.follow(&snapshot, now);
        Ok(())
    }

    /// Cases for the rollouts of the new snapshot, in its order; those that stay keep everything.
    fn follow(&mut self, snapshot: &Snapshot, now: Now) {
        let mut old = std::mem::take(&mut self.cases);
        for rollout in &snapshot.rollouts {
            let name = &rollout.fixed.config.name;
            match old.iter().position(|c| c.name == *name) {
                Some(at) => {
                    let mut case = old.swap_remove(at);
                    if !Arc::ptr_eq(&case.fixed, &rollout.fixed) {
                        // Where nothing runs, the next event takes them in.
                        let same_gates = **case.judge.policy() == *rollout.fixed.config.policy;
                        if !same_gates && effects::are_frozen(&case.state) {
                            tracing::warn!(rollout.name = %name, "the file's gates differ from those in force; they are frozen until the rollout ends, or until an owner takes them in (`gates`)");
                        }
                        if let Err(why) = register::unchanged(&case.state, &case.terms) {
                            tracing::warn!(rollout.name = %name, "{why}; nothing rises until then");
                        }
                        case.fixed = Arc::clone(&rollout.fixed);
                        case.judge.record(self.world.tracing.as_ref(), case.fixed.config.trace.as_ref(), now.mono);
                    }
                    case.changed = true;
                    self.cases.push(case);
                }
                None => {
                    let (before, latch) = match self.gone.remove(name) {
                        Some(state) => (Some(state), None),
                        None => (self.known)(name).map_or((None, None), |known| (Some(known.state), known.latch)),
                    };
                    let is_back = before.is_some();
                    let state = before.unwrap_or_else(|| State::initial(&case::terms(&rollout.fixed.config)));
                    let mut case = Case::new(Arc::clone(&rollout.fixed), state, now.mono);
                    case.judge.record_new(self.world.tracing.as_ref(), case.fixed.config.trace.as_ref(), now.mono);
                    if is_back {
                        take_up(&mut case, &mut self.world, None, latch.as_ref(), now);
                    }
                    self.cases.push(case);
                }
            }
        }
        self.gone.extend(old.into_iter().map(|case| (case.name, case.state)));
    }
}

/// Brings the snapshot to a case's state at the start, that to a latch which was set past the judge of an earlier process,
/// and the state to the file.
pub(super) fn take_up(case: &mut Case, world: &mut World, kept: Option<&Kept>, latch: Option<&Latch>, now: Now) {
    let next = case::runtime(&case.state);
    world.live.update_runtime(case.name.as_str(), |_| Some(next.clone()));
    // The record of the fall has the numbers that were there.
    let restored = latch.is_some() && restore(case, kept, now);
    if let Some(latch) = latch {
        fall(case, world, latch, now);
    }
    if let Some(event) = machine::reconcile(&case.state, &case.terms).or_else(|| replaced(case)) {
        let step = machine::step(&case.terms, &case.state, event, now).or_else(|refusal| {
            tracing::error!(rollout.name = %case.name, error = %refusal.why, "the file changed while serin was down in a way that a running rollout forbids: it is aborted");
            machine::step(&case.terms, &case.state, Event::CanaryRemoved, now)
        });
        match step {
            Ok((state, effects)) => {
                if let Err(why) = effects::carry_out(case, world, state, effects, now.mono) {
                    tracing::error!(rollout.name = %case.name, error = %why, "the file's change could not be recorded");
                }
            }
            Err(refusal) => {
                tracing::error!(rollout.name = %case.name, error = %refusal.why, "the file's change is refused")
            }
        }
    }
    if restored || restore(case, kept, now) {
        return;
    }
    if let (Some(plan), Some(index)) = (case.state.plan.clone(), case.state.stage) {
        let weight = super::guard::share(case.state.weight);
        let samples = plan.stages.get(index).map_or(0, |s| s.samples);
        case.judge.enter_stage(crate::judge::Stage { weight, residence: plan.residence_of(index), samples }, now.mono);
    } else if case.state.has_canary_traffic() {
        case.judge.weight_changed(super::guard::share(case.state.weight), now.mono);
    }
}

/// The tables are those of the file: a version under release that the file no longer has, because another one waits for its
/// place, cannot be served, and the other one is not to be served by its proof.
fn replaced(case: &Case) -> Option<Event> {
    let (mine, new) = (case.state.version.as_ref()?, case.terms.canary.as_ref()?);
    let is_under_way = mine != new && !matches!(case.state.phase, Phase::Idle | Phase::RolledBack);
    let reason =
        format!("{mine} is not in the file any more, where {new} waits for its place: it ends with the restart");
    is_under_way.then(|| adoption("config", &reason))
}

/// Latched by the guard or by a person while the judge was silent, and the process ended before it spoke again.
fn fall(case: &mut Case, world: &mut World, latch: &Latch, now: Now) {
    let event = adoption(&latch.actor, &latch.reason);
    match machine::step(&case.terms, &case.state, event, now) {
        Ok((state, effects)) => {
            if let Err(why) = effects::carry_out(case, world, state, effects, now.mono) {
                tracing::error!(rollout.name = %case.name, error = %why, "a latch from before the restart could not be recorded");
            }
        }
        Err(refusal) => {
            tracing::error!(rollout.name = %case.name, error = %refusal.why, "a latch from before the restart is refused")
        }
    }
}

/// Takes the evidence up that was kept before the restart; whether there was any that could be.
fn restore(case: &mut Case, kept: Option<&Kept>, now: Now) -> bool {
    let Some(kept) = kept else { return false };
    match Judge::restore(case.policy(), &kept.judge) {
        Ok(judge) if judge.refreshed() <= now.mono => {
            case.judge.replace(judge, now.mono);
            return true;
        }
        Ok(_) => {
            tracing::warn!(rollout.name = %case.name, "the evidence is of a time that the clock has yet to reach, so it was set back: the stage's proof starts anew");
        }
        Err(error) => {
            tracing::warn!(rollout.name = %case.name, error = %error, "the evidence cannot be taken up: the stage's proof starts anew");
        }
    }
    false
}

/// What of a rollout that runs may not change with the file, beside its gates, which have their own way (`gates`).
fn frozen(old: &config::Rollout, new: &config::Rollout) -> Result<(), String> {
    if old.evaluator.enabled && !new.evaluator.enabled {
        return Err(
            "evaluator.enabled may not be switched off while the rollout runs: abort it, or wait for its end".into()
        );
    }
    let asks = |rollout: &config::Rollout| format!("{:?}", rollout.queries);
    if asks(old) != asks(new) {
        return Err(
            "queries may not change while the rollout runs, as its gates go by them: abort it, or wait for its end"
                .into(),
        );
    }
    Ok(())
}
