//! Carries out what the machine decided, in its order: down is published, recorded, told; up is recorded durably,
//! published, told.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use super::case::{self, Case, Pending};
use super::guard::{Order, share};
use super::mailbox::{Ask, Letter, Mailbox};
use super::tracer::Tracing;
use crate::journal::{Done, Failure, Full, Journal};
use crate::judge;
use crate::measure::Gauges;
use crate::names::{Mono, RolloutName};
use crate::rollout::{Decision, Effect, Notice, Phase, Record, State};
use crate::snapshot::{Live, Prepared, Runtime};
use crate::split::Weight;

/// How long a rise waits for the disk before it is refused.
pub const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// How long the answer to a change that is in force waits for its record. A crash after the answer finds the record; a
/// disk that hangs for longer delays nobody further.
pub const RECORD_PATIENCE: Duration = Duration::from_secs(1);

/// Who is told. Must not block.
pub trait Notifier: Send {
    /// Takes a message.
    fn tell(&mut self, notice: &Notice);
}

/// Tells the log.
#[derive(Debug, Default)]
pub struct ToLog;

impl Notifier for ToLog {
    fn tell(&mut self, notice: &Notice) {
        tracing::info!(
            rollout.name = %notice.rollout,
            version.name = notice.version.as_ref().map_or("", |v| v.as_str()),
            weight_percent = notice.weight.percent(),
            actor = notice.actor,
            "{}", notice.text
        );
    }
}

/// What effects act on.
pub struct World {
    /// The cell.
    pub live: Live,
    /// The journal; in memory where there is no store.
    pub journal: Arc<Journal>,
    /// The evaluator's own mailbox, by which the journal's thread wakes it.
    pub mailbox: Mailbox,
    /// People.
    pub notifier: Box<dyn Notifier>,
    /// The guard.
    pub guard: SyncSender<Order>,
    /// The newest file's tables.
    pub prepared: Arc<Prepared>,
    /// Where rollbacks are counted for the scrape.
    pub gauges: Arc<Gauges>,
    /// Where traces are written, if anywhere.
    pub tracing: Option<Tracing>,
    /// The way to the thread that carries out drills; `None` where there are no workers.
    pub drills: Option<SyncSender<RolloutName>>,
}

/// Takes a step's outcome: the case is in the new state when this returns, unless a rise waits for the disk, or its
/// record was refused (then nothing has changed).
///
/// # Errors
/// The record of a rise cannot be made durable.
pub fn carry_out(
    case: &mut Case,
    world: &mut World,
    state: State,
    effects: Vec<Effect>,
    now: Mono,
) -> Result<(), String> {
    // What was to rise is overtaken: the state it led to has been stepped from.
    let overtaken = case.pending.take();
    let old = std::mem::replace(&mut case.state, state);
    case.changed |= !effects.is_empty();
    match go_on(case, world, effects, now) {
        Ok(None) => {}
        Ok(Some((durable, rest))) => {
            let state = std::mem::replace(&mut case.state, old);
            case.pending = Some(Pending { state, rest, durable, until: now.plus(DISK_PATIENCE), answer: None });
        }
        Err(why) => {
            case.state = old;
            return Err(why);
        }
    }
    overtake(overtaken);
    Ok(())
}

fn overtake(pending: Option<Pending>) {
    if let Some(Pending { answer: Some(answer), .. }) = pending {
        answer(Err(super::mailbox::Refused::Conflict {
            why: "the change was overtaken by a later one before it was in force".to_owned(),
            allowed: Vec::new(),
        }));
    }
}

/// Answers those who wait for the record of a change that is in force, once it is safe or has been waited for enough.
pub fn recorded(case: &mut Case, now: Mono) {
    let Some((durable, until)) = &case.recording else { return };
    match durable.try_recv() {
        Err(TryRecvError::Empty) if now < *until => return,
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => {
            tracing::error!(rollout.name = %case.name, error = %failure, "a change is in force but the disk refuses its record: it is kept and tried again");
        }
        Err(_) => {
            tracing::error!(rollout.name = %case.name, "a change is in force and the journal has not recorded it: the disk hangs");
        }
    }
    case.recording = None;
    case.settled.extend(case.waiting.drain(..).map(|(answer, view)| (answer, Ok(Some(view)))));
}

/// Takes a waiting rise into force once its record is safe. `None`: still waiting.
pub fn settle(case: &mut Case, world: &mut World, now: Mono) -> Option<Result<(), String>> {
    let word = case.pending.as_ref()?.durable.try_recv();
    settle_by(case, world, now, word)
}

/// The same before anybody is served: waits for the disk, so that a split of the file is in force with the first request.
pub fn settle_at_start(case: &mut Case, world: &mut World, now: Mono) {
    let Some(pending) = case.pending.as_ref() else { return };
    let word = pending.durable.recv_timeout(DISK_PATIENCE).map_err(|error| match error {
        RecvTimeoutError::Timeout => TryRecvError::Empty,
        RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
    });
    // Whether it came or not stands in the case and in the log.
    settle_by(case, world, now, word);
}

fn settle_by(
    case: &mut Case,
    world: &mut World,
    now: Mono,
    word: Result<Result<u64, Failure>, TryRecvError>,
) -> Option<Result<(), String>> {
    let pending = case.pending.as_mut()?;
    let word = match word {
        Ok(word) => word.map_err(|failure| failure.to_string()),
        Err(TryRecvError::Empty) if now < pending.until => return None,
        Err(TryRecvError::Empty) => {
            Err(format!("the journal has not answered for {DISK_PATIENCE:?}: the rise is not in force"))
        }
        Err(TryRecvError::Disconnected) => Err("the journal's thread has ended".to_owned()),
    };
    let Pending { state, rest, answer, .. } = case.pending.take()?;
    let result = word.and_then(|_| {
        case.state = state;
        go_on(case, world, rest, now).map(drop)
    });
    case.changed = true;
    if let Err(why) = &result {
        tracing::error!(rollout.name = %case.name, error = %why, "a rise is refused: it could not be recorded");
    }
    // The answer is given by the turn, which has the picture.
    if let Some(answer) = answer {
        case.settled.push((answer, result.clone().map(|()| None)));
    }
    Some(result)
}

type Waiting = (Receiver<Result<u64, Failure>>, Vec<Effect>);

/// Carries out effects until one has to wait for the disk; returns what is left then.
fn go_on(case: &mut Case, world: &mut World, effects: Vec<Effect>, now: Mono) -> Result<Option<Waiting>, String> {
    let enters = effects.iter().any(|e| matches!(e, Effect::EnterStage { .. }));
    // Before the numbers of the start are taken: they are its own.
    let begins = |record: &Record| record.from == Phase::Idle && record.to != Phase::Idle;
    if effects.iter().any(|e| matches!(e, Effect::Record(record) if begins(record))) {
        case.begin_release();
    }
    // Before a new stage makes the judge forget; but behind the latch, which waits for nothing.
    let wants = effects.iter().any(|e| matches!(e, Effect::Record(record) if record.decision.wants_numbers()));
    let mut numbers = None;
    let mut effects = effects.into_iter();
    while let Some(effect) = effects.next() {
        if wants && numbers.is_none() && effect != Effect::Latch {
            numbers = Some(Box::new(case.numbers(now)));
        }
        match effect {
            Effect::Latch => publish(world, &case.name, case::runtime(&case.state)),
            Effect::Unlatch => {
                unlatch(world, case);
                case.begin_release();
            }
            Effect::Weight { .. } => {
                publish(world, &case.name, case::runtime(&case.state));
                case.counts.cut();
                if !enters {
                    case.judge.weight_changed(share(case.state.weight), now);
                }
            }
            Effect::EnterStage { stage, .. } => enter(case, world, &stage, now),
            Effect::Adopt(_) | Effect::Swap => adopt(case, world, now),
            Effect::TakeGates => take_gates(case, now),
            Effect::Drill => case.drill_asked = true,
            Effect::Record(mut record) => {
                count(world, &record);
                record.numbers = numbers.take();
                let (say, word) = word(world);
                let rises = effects.as_slice().iter().any(publishes);
                if rises {
                    world.journal.append_first(vec![*record], say).map_err(hangs)?;
                    return Ok(Some((word, effects.collect())));
                }
                match world.journal.append(record, Some(say)) {
                    Ok(()) => case.recording = Some((word, now.plus(RECORD_PATIENCE))),
                    Err(_) => {
                        tracing::error!(rollout.name = %case.name, "a change is in force but its record is lost: the journal's queue is full, the disk hangs");
                    }
                }
            }
            Effect::Notify(notice) => world.notifier.tell(&notice),
        }
    }
    Ok(None)
}

/// The way of the journal's word: it comes by the receiver, and a letter wakes the evaluator.
fn word(world: &World) -> (Done, Receiver<Result<u64, Failure>>) {
    let (say, word) = sync_channel(1);
    let mailbox = world.mailbox.clone();
    let done = Box::new(move |result| {
        if say.try_send(result).is_ok() && mailbox.post(Letter { ask: Ask::Look, answer: Box::new(|_| ()) }).is_err() {
            tracing::debug!("the evaluator was not woken; it looks by itself soon");
        }
    });
    (done, word)
}

fn hangs(_: Full) -> String {
    "the journal's queue is full: the disk hangs, and a rise must be durable first".to_owned()
}

/// A step of a reload whose record must be durable before anything of it is in force.
pub struct First {
    state: State,
    record: Record,
    rest: Vec<Effect>,
}

/// Whether a step is one of those: its record comes before all that it publishes.
pub fn waits(effects: &[Effect]) -> bool {
    matches!(effects.first(), Some(Effect::Record(_))) && effects.iter().any(publishes)
}

/// Takes such a step apart; `None` for any other.
pub fn first(case: &Case, state: State, effects: Vec<Effect>, now: Mono) -> Option<First> {
    let mut rest = effects.into_iter();
    let Some(Effect::Record(mut record)) = rest.next() else { return None };
    record.numbers = record.decision.wants_numbers().then(|| Box::new(case.numbers(now)));
    Some(First { state, record: *record, rest: rest.collect() })
}

/// Makes the records of all these steps durable, or none of them; waits for the disk.
///
/// # Errors
/// The disk refuses them, or hangs; nothing has changed.
pub fn record_first<'a>(world: &World, steps: impl Iterator<Item = &'a First>) -> Result<(), String> {
    let records: Vec<Record> = steps.map(|step| step.record.clone()).collect();
    if records.is_empty() {
        return Ok(());
    }
    let (say, word) = word(world);
    world.journal.append_first(records, say).map_err(hangs)?;
    match word.recv_timeout(DISK_PATIENCE) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failure)) => Err(failure.to_string()),
        Err(_) => Err(format!("the journal has not answered for {DISK_PATIENCE:?}")),
    }
}

/// Takes a step into force whose record is durable.
pub fn enforce(case: &mut Case, world: &mut World, step: First, now: Mono) -> Result<(), String> {
    overtake(case.pending.take());
    case.state = step.state;
    case.changed = true;
    go_on(case, world, step.rest, now).map(drop)
}

fn publishes(effect: &Effect) -> bool {
    !matches!(effect, Effect::Record(_) | Effect::Notify(_) | Effect::Drill)
}

fn count(world: &World, record: &Record) {
    if matches!(record.decision, Decision::Rollback | Decision::Abort) {
        let reason = if record.decision == Decision::Abort { "abort" } else { gate_of(&record.reason) };
        world.gauges.rollbacks.count(&record.rollout, reason);
    }
}

/// The gate's name at the front of a rollback's reason, `GATE: numbers`; names are few, so they may be a label.
fn gate_of(reason: &str) -> &str {
    reason.split(':').next().map(str::trim).filter(|name| name.len() <= 64).unwrap_or("gate")
}

fn publish(world: &World, name: &crate::names::RolloutName, next: Runtime) {
    world.live.update_runtime(name.as_str(), |current| Some(standing(current, &next)));
}

/// What comes into force: a latch that the guard or an abort has set meanwhile stands, whoever publishes.
fn standing(current: &Runtime, next: &Runtime) -> Runtime {
    match current.latch.clone().filter(|_| next.latch.is_none()) {
        None => next.clone(),
        Some(latch) => Runtime { weight: Weight::ZERO, latch: Some(latch), open: crate::split::OpenCohorts::None },
    }
}

fn unlatch(world: &World, case: &Case) {
    let next = case::runtime(&case.state);
    world.live.update_runtime(case.name.as_str(), |_| Some(Runtime { latch: None, ..next.clone() }));
}

fn enter(case: &mut Case, world: &World, stage: &crate::rollout::Stage, now: Mono) {
    let weight = share(stage.weight);
    case.counts.stage();
    // The gates that were frozen with this start, whatever was in force for the release before.
    let policy = case.policy();
    if *case.judge.policy() != policy {
        case.judge.renew(policy, now);
    }
    case.judge.enter_stage(judge::Stage { weight, residence: stage.residence, samples: stage.samples }, now);
    let order = Order::StageEntered { slot: case.fixed.slot, weight, at: now };
    if world.guard.try_send(order).is_err() {
        tracing::warn!(rollout.name = %case.name, "the guard could not be told of the stage; its breaker goes on as it was");
    }
}

/// The newest file's tables come into force for this rollout.
fn adopt(case: &mut Case, world: &World, now: Mono) {
    let Some((fixed, seed)) = world.prepared.rollout(case.name.as_str()) else { return };
    let next = case::runtime(&case.state);
    world.live.update(|current| {
        let known = current.rollout(case.name.as_str())?;
        current.replacing(&fixed, seed, standing(&known.runtime, &next))
    });
    case.fixed = fixed;
    case.terms = case::terms(&case.fixed.config);
    case.judge.renew(Arc::clone(&case.fixed.config.policy), now);
    case.judge.record(world.tracing.as_ref(), case.fixed.config.trace.as_ref(), now);
    case.begin_release();
}

/// An owner takes the file's gates into a running rollout: evidence under other gates is other evidence.
fn take_gates(case: &mut Case, now: Mono) {
    case.judge.renew(case.policy(), now);
}

/// Whether the gates stand as they are, whatever the file says: from the start of a rollout to its end.
pub fn are_frozen(state: &State) -> bool {
    !matches!(state.phase, Phase::Idle | Phase::RolledBack)
}

/// Where nothing runs, the file's gates are the judge's.
pub fn thaw_gates(case: &mut Case, now: Mono) {
    let (in_force, of_file) = (case.judge.policy(), &case.fixed.config.policy);
    if !are_frozen(&case.state) && !Arc::ptr_eq(in_force, of_file) && **in_force != **of_file {
        case.judge.renew(Arc::clone(of_file), now);
        case.changed = true;
    }
}

/// The guard's breaker judges by the judge's gates, frozen as those are; told again each turn until it is.
pub fn tell_gates(case: &mut Case, world: &World) {
    let policy = case.judge.policy();
    if case.guarded.as_ref().is_some_and(|known| Arc::ptr_eq(known, policy)) {
        return;
    }
    let policy = Arc::clone(policy);
    if world.guard.try_send(Order::Gates { slot: case.fixed.slot, policy: Arc::clone(&policy) }).is_ok() {
        case.guarded = Some(policy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Latch;
    use crate::split::OpenCohorts;

    #[test]
    fn a_latch_that_others_have_set_stands_whatever_is_published() {
        let latch = |actor: &str| {
            Some(Arc::new(Latch { at: crate::names::Wall(1), actor: actor.to_owned(), reason: String::new() }))
        };
        let runtime = |buckets: u32, latch| Runtime {
            weight: Weight::from_buckets(buckets),
            latch,
            open: if buckets > 0 { OpenCohorts::AllBut(Vec::new()) } else { OpenCohorts::None },
        };
        let next = runtime(5_000, None);
        assert_eq!(standing(&runtime(10, None), &next), next);
        assert_eq!(standing(&runtime(0, latch("breaker")), &next), runtime(0, latch("breaker")));
        let own = runtime(0, latch("alice"));
        assert_eq!(standing(&runtime(0, latch("breaker")), &own), own, "the state's own word is the newest");
    }
}
