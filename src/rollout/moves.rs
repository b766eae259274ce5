//! The moves between phases: entering a stage, settling on proof, standing, falling; each closes with its effects.

use std::time::Duration;

use crate::names::VersionName;
use crate::rollout::calendar;
use crate::rollout::confirm::{self, Confirm, Hook};
use crate::rollout::drill;
use crate::rollout::effect::{Cohorts, Effect, Notice, Tidings};
use crate::rollout::event::Now;
use crate::rollout::plan::{Approval, Plan, Stage};
use crate::rollout::record::{Decision, Record};
use crate::rollout::register;
use crate::rollout::state::{Drill, Latch, Paused, Phase, State, Target, Terms};
use crate::split::weight::Weight;

/// How old the judge's word may be when a rise rests on it: the heartbeat's own time-out.
pub(crate) const FRESH: Duration = Duration::from_secs(10);
/// After a gate has voided the wait for a person, how long the proof must hold before a person is asked again; so that
/// a gate at its bar does not ask four times a second.
const STEADY: Duration = Duration::from_secs(60);
/// How many versions' rollbacks are remembered.
const REMEMBERED: usize = 64;

/// A step in the making: the state before, the state to be, and when.
#[derive(Clone)]
pub(crate) struct Draft<'a> {
    pub terms: &'a Terms,
    pub before: &'a State,
    pub state: State,
    pub now: Now,
    /// The whole group is ready: the barrier lets this step through.
    pub released: bool,
}

/// How a step is closed.
pub(crate) struct Close<'a> {
    pub decision: Decision,
    pub actor: &'a str,
    pub reason: &'a str,
    pub proven: bool,
    pub approvals: Vec<String>,
    pub tidings: Tidings,
    pub text: String,
    /// Published beside weight and latch: `Adopt`, `Swap`, `TakeGates`.
    pub extra: Vec<Effect>,
    /// Whether the judge starts new evidence.
    pub enters: bool,
}

impl<'a> Close<'a> {
    pub(crate) fn new(decision: Decision, actor: &'a str, reason: &'a str, tidings: Tidings, text: String) -> Self {
        Self {
            decision,
            actor,
            reason,
            proven: false,
            approvals: Vec::new(),
            tidings,
            text,
            extra: Vec::new(),
            enters: false,
        }
    }

    pub(crate) fn entering(mut self) -> Self {
        self.enters = true;
        self
    }

    pub(crate) fn with(mut self, effect: Effect) -> Self {
        self.extra.push(effect);
        self
    }
}

impl<'a> Draft<'a> {
    /// Takes up the state and counts the time since it was last counted.
    pub(crate) fn new(terms: &'a Terms, before: &'a State, now: Now) -> Self {
        let mut state = before.clone();
        state.at_barrier = false;
        let passed = before.last.map_or(Duration::ZERO, |last| now.mono.since(last));
        state.confirm.passes(passed);
        state.last = Some(before.last.map_or(now.mono, |last| last.max(now.mono)));
        match state.phase {
            Phase::Running | Phase::Soaking => state.waited = state.waited.saturating_add(passed),
            Phase::Awaiting | Phase::Completed => state.asked = state.asked.saturating_add(passed),
            Phase::Idle | Phase::Paused | Phase::RolledBack => {}
        }
        if matches!(state.phase, Phase::Running | Phase::Awaiting | Phase::Soaking) && !state.heartbeat_lost {
            state.resided = state.resided.saturating_add(passed);
        }
        if let Some(paused) = state.paused.as_mut() {
            paused.waited = paused.waited.saturating_add(passed);
        }
        if let Some(proof) = state.proof.as_mut() {
            proof.age = proof.age.saturating_add(passed);
            if proof.age > FRESH {
                proof.held = Duration::ZERO;
            } else {
                proof.held = proof.held.saturating_add(passed);
            }
        }
        Self { terms, before, state, now, released: false }
    }

    /// Nothing happened but time.
    pub(crate) fn quiet(self) -> (State, Vec<Effect>) {
        (self.state, Vec::new())
    }

    /// Whether there is, or may have been, canary traffic that a verdict can be about.
    pub(crate) fn may_roll_back(&self) -> bool {
        !matches!(self.state.phase, Phase::Idle | Phase::RolledBack)
    }

    /// Whether heartbeat and calendar let a weight rise now; else why not.
    pub(crate) fn may_rise(&self) -> Result<(), String> {
        if self.state.heartbeat_lost {
            return Err("the judge's heartbeat is stale".to_owned());
        }
        register::unchanged(&self.state, self.terms)?;
        drill::may_rise(&self.state, self.terms, self.now.wall)?;
        self.calendar()
    }

    /// Whether it must stand at the barrier of its group; it is marked as waiting there then.
    fn stands_at_barrier(&mut self, plan: &Plan) -> bool {
        self.state.at_barrier = plan.lockstep.is_some() && !self.released;
        self.state.at_barrier
    }

    /// Whether the calendar lets a weight rise now; else why not.
    pub(crate) fn calendar(&self) -> Result<(), String> {
        match self.state.plan.as_ref().or(self.terms.plan.as_ref()) {
            Some(plan) => calendar::may_rise(plan, self.now.wall),
            None => Ok(()),
        }
    }

    /// How the version is called in sentences.
    pub(crate) fn canary(&self) -> String {
        self.state.version.as_ref().map_or_else(|| "no version".to_owned(), ToString::to_string)
    }

    /// Puts the state into a stage of the plan, with nothing known and nothing signed.
    pub(crate) fn enter(&mut self, plan: &Plan, index: usize) {
        let state = &mut self.state;
        state.phase = if index >= plan.last() { Phase::Soaking } else { Phase::Running };
        state.stage = Some(index);
        state.weight = plan.weight_of(index);
        if let Err(at) = state.entered.binary_search(&index) {
            state.entered.insert(at, index);
        }
        state.entered_at = Some(self.now.wall);
        self.forget();
        let state = &mut self.state;
        state.resided = Duration::ZERO;
        state.extended = Duration::ZERO;
        state.waited = Duration::ZERO;
        state.asked = Duration::ZERO;
        state.voided = 0;
        state.paused = None;
    }

    /// The file's gates, and its entry in the register, are the ones in force from now on.
    pub(crate) fn freeze_gates(&mut self) {
        self.state.gates.clone_from(&self.terms.gates);
        self.state.policy.clone_from(&self.terms.policy);
        self.state.register = register::of_file(&self.state, self.terms).cloned();
    }

    /// Voids proof and signatures.
    pub(crate) fn forget(&mut self) {
        self.state.proof = None;
        self.state.lacking = None;
        self.state.target = None;
        self.state.approvals.clear();
        self.state.confirm = Confirm::default();
    }

    /// Where proof, residence, signatures, calendar and heartbeat allow it: one stage up, or the wait for a person,
    /// or the end of the soak; `words` are those of the person who signed last. The only way up without a person's `promote`, `set weight`, `resume` or `start`.
    pub(crate) fn settle(mut self, actor: &str, words: &str) -> (State, Vec<Effect>) {
        let Some((plan, stage)) = self.state.plan.clone().zip(self.state.stage) else { return self.quiet() };
        let fresh = self.state.proof.as_ref().is_some_and(|p| p.age <= FRESH) && !self.state.heartbeat_lost;
        let resided = self.state.residence_left().is_zero();
        let mut reason = self.state.proof.as_ref().map_or_else(String::new, |p| p.reason.clone());
        if !words.is_empty() {
            reason = format!("{actor}: {words}; {reason}");
        }
        match self.state.phase {
            Phase::Running if fresh && resided => {
                let approval = plan.stages.get(stage).map_or(Approval::None, |s| s.approval);
                if approval == Approval::None {
                    let hook = Hook::into_stage(&plan, stage + 1);
                    return if self.may_rise().is_ok() && self.confirmed(hook) && !self.stands_at_barrier(&plan) {
                        self.rise(&plan, stage + 1, Decision::Advance, actor, &reason)
                    } else {
                        self.quiet()
                    };
                }
                let held = self.state.proof.as_ref().map_or(Duration::ZERO, |p| p.held);
                if self.state.voided > 0 && held < STEADY {
                    return self.quiet();
                }
                self.state.target = Some(Target { stage: stage + 1, approval, promoted_by: None });
                self.await_approval(actor, &reason)
            }
            Phase::Awaiting => {
                let Some(target) = self.state.target.clone() else { return self.quiet() };
                let signed = self.state.approvals.len() >= target.approval.needed();
                if !signed || self.may_rise().is_err() {
                    return self.quiet();
                }
                let ready = target.promoted_by.is_some() || (fresh && resided);
                if !ready || !self.confirmed(Hook::into_stage(&plan, target.stage)) {
                    return self.quiet();
                }
                match target.promoted_by {
                    Some(by) => {
                        let reason = format!("promoted by {by} past residence and gates");
                        self.rise(&plan, target.stage, Decision::Promote, actor, &reason)
                    }
                    None if !self.stands_at_barrier(&plan) => {
                        self.rise(&plan, target.stage, Decision::Advance, actor, &reason)
                    }
                    None => self.quiet(),
                }
            }
            Phase::Soaking if resided && !self.state.heartbeat_lost => {
                let nothing_to_compare = self.state.weight == Weight::FULL;
                if !(fresh || nothing_to_compare) || self.may_rise().is_err() {
                    return self.quiet();
                }
                if self.stands_at_barrier(&plan) {
                    return self.quiet();
                }
                let reason = if reason.is_empty() { "the soak is over".to_owned() } else { reason };
                self.complete(actor, &reason, true)
            }
            _ => self.quiet(),
        }
    }

    /// Enters a higher stage and says so.
    pub(crate) fn rise(
        mut self,
        plan: &Plan,
        index: usize,
        decision: Decision,
        actor: &str,
        reason: &str,
    ) -> (State, Vec<Effect>) {
        let approvals = std::mem::take(&mut self.state.approvals);
        self.enter(plan, index);
        let (tidings, kind) =
            if self.state.phase == Phase::Soaking { (Tidings::Soaking, "soaks") } else { (Tidings::Stage, "enters") };
        let text = format!(
            "{} {kind} stage {} of {} at {}: {reason}",
            self.canary(),
            index + 1,
            plan.stages.len(),
            self.state.weight
        );
        let mut close = Close::new(decision, actor, reason, tidings, text).entering();
        close.proven = decision == Decision::Advance;
        close.approvals = approvals;
        self.close(close)
    }

    /// Waits for a person; `target` is set.
    pub(crate) fn await_approval(mut self, actor: &str, reason: &str) -> (State, Vec<Effect>) {
        self.state.phase = Phase::Awaiting;
        self.state.asked = Duration::ZERO;
        let needed = self.state.target.as_ref().map_or(Approval::None, |t| t.approval);
        let wants = match needed {
            Approval::None => format!("waits: {}", self.held()),
            _ => format!("wants {} approval", needed.as_str()),
        };
        let text = format!("{} at {} {wants}: {reason}", self.canary(), self.state.weight);
        self.close(Close::new(Decision::Await, actor, reason, Tidings::Awaiting, text))
    }

    /// A gate no longer passes: signatures are void and the stage goes on.
    pub(crate) fn void(mut self, reason: &str) -> (State, Vec<Effect>) {
        let approvals = std::mem::take(&mut self.state.approvals);
        self.state.target = None;
        self.state.phase = Phase::Running;
        self.state.voided = self.state.voided.saturating_add(1);
        let text = format!("{} waits for no approval any more: {reason}", self.canary());
        let mut close = Close::new(Decision::Void, "judge", reason, Tidings::Awaiting, text);
        close.approvals = approvals;
        self.close(close)
    }

    /// Ends the soak.
    pub(crate) fn complete(mut self, actor: &str, reason: &str, proven: bool) -> (State, Vec<Effect>) {
        self.forget();
        self.state.phase = Phase::Completed;
        self.state.weight = Weight::FULL;
        self.state.asked = Duration::ZERO;
        let text = format!("{} serves everybody; make it the stable version in the configuration", self.canary());
        let decision = if proven { Decision::Complete } else { Decision::Promote };
        let mut close = Close::new(decision, actor, reason, Tidings::Completed, text);
        close.proven = proven;
        self.close(close)
    }

    /// Stands where it is.
    pub(crate) fn pause(
        mut self,
        decision: Decision,
        actor: &str,
        reason: &str,
        tidings: Tidings,
    ) -> (State, Vec<Effect>) {
        let target = self.state.target.take();
        self.forget();
        self.state.target = target;
        self.state.paused = Some(Paused {
            from: self.state.phase,
            by: actor.to_owned(),
            why: reason.to_owned(),
            at: self.now.wall,
            by_hand: false,
            by_deadline: decision == Decision::Deadline,
            waited: Duration::ZERO,
        });
        self.state.phase = Phase::Paused;
        let why = if reason.is_empty() { "no reason given" } else { reason };
        let text = format!("{} stands at {}, paused by {actor}: {why}", self.canary(), self.state.weight);
        self.close(Close::new(decision, actor, reason, tidings, text))
    }

    /// Pauses or reminds when a wait has lasted too long.
    pub(crate) fn deadline(mut self) -> (State, Vec<Effect>) {
        if self.state.deadline_left() != Some(Duration::ZERO) {
            return self.quiet();
        }
        let canary = self.canary();
        let text = match self.state.phase {
            Phase::Running => "no answer by the stage's deadline",
            Phase::Soaking => "no answer by the soak's deadline",
            Phase::Awaiting if confirm::holds(&self.state, self.terms) => {
                "no confirm gate has opened by the stage's deadline"
            }
            Phase::Awaiting => "nobody has signed by the stage's deadline",
            Phase::Paused => {
                if let Some(paused) = self.state.paused.as_mut() {
                    paused.waited = Duration::ZERO;
                }
                let text = format!("{canary} still stands at {}: resume, step back or abort", self.state.weight);
                return self.remind(text);
            }
            Phase::Completed => {
                self.state.asked = Duration::ZERO;
                let text = format!("{canary} serves everybody but is not yet the stable version in the configuration");
                return self.remind(text);
            }
            Phase::Idle | Phase::RolledBack => return self.quiet(),
        };
        self.pause(Decision::Deadline, "plan", text, Tidings::Deadline)
    }

    fn remind(self, text: String) -> (State, Vec<Effect>) {
        let notice = self.notice(Tidings::Reminder, "plan", text);
        (self.state, vec![Effect::Notify(notice)])
    }

    /// To 0 and latched, from wherever.
    pub(crate) fn roll_back(mut self, decision: Decision, actor: &str, reason: &str) -> (State, Vec<Effect>) {
        self.forget();
        let state = &mut self.state;
        state.phase = Phase::RolledBack;
        state.weight = Weight::ZERO;
        state.paused = None;
        state.auto_start = false;
        state.latch = Some(Latch { at: self.now.wall, actor: actor.to_owned(), reason: reason.to_owned() });
        if let Some(version) = state.version.clone() {
            count_rollback(&mut state.rollbacks, version);
        }
        let tidings = if decision == Decision::Rollback { Tidings::RolledBack } else { Tidings::Aborted };
        let why = if reason.is_empty() { "no reason given" } else { reason };
        let text = format!("{} is at 0 and latched, by {actor}: {why}", self.canary());
        self.close(Close::new(decision, actor, reason, tidings, text))
    }

    /// Back to idle with another version, or the same; what is remembered of the past stays.
    pub(crate) fn reset(&mut self, version: Option<VersionName>) {
        let old = std::mem::replace(&mut self.state, State::initial(self.terms));
        self.state.drill = old.drill;
        self.state.version = version;
        self.state.auto_start = false;
        self.state.heartbeat_lost = old.heartbeat_lost;
        self.state.rollbacks = old.rollbacks;
        self.state.generation = old.generation;
        self.state.last = old.last;
    }

    /// The heartbeat's loss or return.
    pub(crate) fn heartbeat(self, decision: Decision, text: &str) -> (State, Vec<Effect>) {
        self.close(Close::new(decision, "guard", text, Tidings::Heartbeat, text.to_owned()))
    }

    /// The result of a drill.
    pub(crate) fn drilled(mut self, took: Duration, failed: Option<String>) -> (State, Vec<Effect>) {
        self.state.drill = Some(Drill { at: self.now.wall, took, failed: failed.clone() });
        let text = match failed {
            None => format!("a drill reached 0 in {:.3} ms", took.as_secs_f64() * 1e3),
            Some(why) => format!("a drill failed after {:.3} ms: {why}", took.as_secs_f64() * 1e3),
        };
        self.close(Close::new(Decision::Drill, "drill", &text, Tidings::Drill, text.clone()))
    }

    /// Closes the step: the next generation, and the effects in lawful order.
    pub(crate) fn close(mut self, close: Close<'_>) -> (State, Vec<Effect>) {
        self.state.generation = self.state.generation.saturating_add(1);
        self.state.at_barrier = false;
        let (before, after) = (self.before, &self.state);
        let cohorts = after.cohorts();
        let changed = after.weight != before.weight || cohorts != before.cohorts();
        let unlatched = before.latch.is_some() && after.latch.is_none();
        let mut publish = close.extra;
        let gates = publish.contains(&Effect::TakeGates);
        if after.latch.is_some() && before.latch.is_none() {
            publish.insert(0, Effect::Latch);
        } else if changed && !publish.contains(&Effect::Swap) {
            publish.insert(0, Effect::Weight { weight: after.weight, cohorts: cohorts.clone() });
        }
        if unlatched {
            publish.push(Effect::Unlatch);
        }
        if close.enters {
            publish.push(self.entered());
        }
        let swap = publish.contains(&Effect::Swap);
        let up = after.weight > before.weight || widens(&before.cohorts(), &cohorts) || unlatched || gates || swap;
        let starts = close.enters && before.phase == Phase::Idle;
        let registers = starts || matches!(close.decision, Decision::Gates | Decision::Register);
        let record = Effect::Record(Box::new(Record {
            at: self.now.wall,
            rollout: self.terms.rollout.clone(),
            stable: self.terms.stable.clone(),
            version: after.version.clone().or_else(|| before.version.clone()),
            decision: close.decision,
            actor: close.actor.to_owned(),
            reason: close.reason.to_owned(),
            from: before.phase,
            to: after.phase,
            stage_before: before.stage,
            stage: after.stage,
            weight_before: before.weight,
            weight: after.weight,
            proven: close.proven,
            approvals: if close.approvals.is_empty() { after.approvals.clone() } else { close.approvals },
            gates: after.gates.clone(),
            generation: after.generation,
            register: register::of_file(after, self.terms).filter(|_| registers).cloned(),
            state: State { last: None, lacking: None, ..after.clone() },
            numbers: None,
        }));
        let notice = Effect::Notify(self.notice(close.tidings, close.actor, close.text));
        let effects = if up {
            std::iter::once(record).chain(publish).chain(std::iter::once(notice)).collect()
        } else {
            publish.into_iter().chain([record, notice]).collect()
        };
        (self.state, effects)
    }

    fn entered(&self) -> Effect {
        let index = self.state.stage.unwrap_or(0);
        let plan = self.state.plan.as_ref();
        let stage = plan.and_then(|p| p.stages.get(index)).cloned().unwrap_or_else(Stage::last);
        let residence = plan.map_or(Duration::ZERO, |p| p.residence_of(index));
        Effect::EnterStage { index, stage: Stage { weight: self.state.weight, residence, ..stage } }
    }

    fn notice(&self, tidings: Tidings, actor: &str, text: String) -> Notice {
        Notice {
            at: self.now.wall,
            rollout: self.terms.rollout.clone(),
            version: self.state.version.clone(),
            tidings,
            text,
            actor: actor.to_owned(),
            weight: self.state.weight,
            generation: self.state.generation,
        }
    }
}

/// Whether `after` lets a cohort to the canary that `before` did not.
fn widens(before: &Cohorts, after: &Cohorts) -> bool {
    match (before, after) {
        (_, Cohorts::Closed) => false,
        (Cohorts::Closed, Cohorts::AllBut(_)) => true,
        (Cohorts::AllBut(closed), Cohorts::AllBut(_)) => closed.iter().any(|c| after.open(c)),
    }
}

fn count_rollback(rollbacks: &mut Vec<(VersionName, u32)>, version: VersionName) {
    let before = rollbacks.iter().position(|(v, _)| *v == version).map_or(0, |at| rollbacks.remove(at).1);
    rollbacks.push((version, before.saturating_add(1)));
    if rollbacks.len() > REMEMBERED {
        rollbacks.remove(0);
    }
}

/// The longest that `extend` may add at once.
pub(crate) const EXTENSION_MAX: Duration = Duration::from_secs(90 * 24 * 3_600);
