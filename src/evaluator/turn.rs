//! One turn of the evaluator: letters, facts, latches of others, verdicts, ticks, pictures. `now` is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::case::{self, Case};
use super::effects::{self, World};
use super::exposure::{self, Seen};
use super::guard::{BREAKER, Batch};
use super::heartbeat::Heartbeat;
use super::mailbox::{Answer, Ask, Command, Confirmed, Drilled, Letter, Refused, Reload, Taken};
use super::picture;
use super::reload::take_up;
use super::view::Board;
use crate::config::OnSpent;
use crate::journal::Kept;
use crate::judge::Verdict;
use crate::names::{Arm, Mono, RolloutName};
use crate::rollout;
use crate::rollout::lockstep::{self, Member};
use crate::rollout::{Actor, Event, Now, Phase, Refusal, RefusalKind, Role, State, Verb, machine};
use crate::snapshot::{GROUP, Latch};

/// At least four ticks a second.
pub const TICK_EVERY: Duration = Duration::from_millis(250);
/// Pictures are painted after every change, and this often.
const PAINT_EVERY: Duration = Duration::from_secs(1);
/// The same where no canary has traffic, or none came, and of all while nobody looks.
const PAINT_IDLE_EVERY: Duration = Duration::from_secs(5);
/// Who has read the board is expected again: the dashboard and the terminal ask each second or two.
const LOOKED_FOR: Duration = Duration::from_secs(4);
/// Of pictures that are only due, an eighth are painted in one turn, or so few: a hundred at once would be one long turn a second.
/// So each of up to 32 is a second old at most, and of more than 64 two.
const PAINTS_OF: usize = 8;
const PAINTS_LEAST: usize = 8;

/// How long the end of a drill is waited for.
const DRILL_PATIENCE: Duration = Duration::from_secs(15);

/// What is known of a rollout from before a restart.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its last state in the journal.
    pub state: State,
    /// Its evidence, where a checkpoint was kept.
    pub kept: Option<Kept>,
    /// A latch that was set past the judge, which ended before it had taken it up.
    pub latch: Option<rollout::Latch>,
}

pub(super) type Recall = Box<dyn Fn(&RolloutName) -> Option<Known> + Send>;

/// The judge of all rollouts of this process.
pub struct Evaluator {
    pub(super) cases: Vec<Case>,
    pub(super) world: World,
    board: Board,
    heartbeat: Heartbeat,
    last_turn: Option<Mono>,
    posted: usize,
    last_tick: Option<Mono>,
    /// When somebody was last seen to have read the board.
    looked: Option<Mono>,
    /// Where the case of a rollout's slot was last found.
    places: Vec<usize>,
    /// What the journal knew at the start.
    pub(super) known: Recall,
    /// Where rollouts stood when the file lost them: one that comes back is as latched as it went.
    pub(super) gone: HashMap<RolloutName, State>,
    /// Files that were taken or refused in this turn; who brought one is answered once the board shows it.
    reloaded: Vec<(Taken, Result<(), String>)>,
}

impl Evaluator {
    /// An evaluator of the rollouts of `world.prepared`, each taken up where `state` says (of the journal), or new.
    /// The snapshot is brought to those states; a file that has changed meanwhile is heeded.
    pub fn new(
        mut world: World,
        board: Board,
        heartbeat: Heartbeat,
        now: Now,
        known: impl Fn(&RolloutName) -> Option<Known> + Send + 'static,
    ) -> Self {
        let snapshot = world.live.load();
        let mut cases = Vec::new();
        for rollout in &snapshot.rollouts {
            let config = &rollout.fixed.config;
            let known = known(&config.name);
            let mut state = known.as_ref().map_or_else(|| State::initial(&case::terms(config)), |k| k.state.clone());
            let (kept, latch) = known.map_or((None, None), |k| (k.kept, k.latch));
            // Who has seen the canary outlives the stage: it is of the release.
            let counts = kept.as_ref().filter(|k| same_release(&k.state, &state)).and_then(|k| k.counts.clone());
            let kept = kept.filter(|kept| state.catch_up(&kept.state));
            let mut case = Case::new(Arc::clone(&rollout.fixed), state, now.mono);
            let canary = &rollout.target(Arm::Canary).recorder;
            case.counts.exposed =
                counts.and_then(|text| Seen::parse(&text, canary)).unwrap_or_else(|| Seen::new(canary));
            case.judge.record_new(world.tracing.as_ref(), rollout.fixed.config.trace.as_ref(), now.mono);
            take_up(&mut case, &mut world, kept.as_ref(), latch.as_ref(), now);
            cases.push(case);
        }
        let mut this = Self {
            cases,
            world,
            board,
            heartbeat,
            last_turn: None,
            posted: usize::MAX,
            last_tick: None,
            looked: None,
            places: Vec::new(),
            known: Box::new(known),
            gone: HashMap::new(),
            reloaded: Vec::new(),
        };
        this.tick(now);
        for case in &mut this.cases {
            effects::settle_at_start(case, &mut this.world, now.mono);
        }
        this.paint(now);
        this
    }

    /// One turn. Facts first, so that a letter is answered on the newest evidence.
    pub fn turn(&mut self, letters: Vec<Letter>, batches: Vec<Batch>, now: Now) {
        self.mind_the_gap(now);
        for batch in batches {
            self.observe(&batch, now);
        }
        self.adopt_latches(now);
        for letter in letters {
            self.open(letter, now);
        }
        if self.last_tick.is_none_or(|at| now.mono.since(at) >= TICK_EVERY) {
            self.last_tick = Some(now.mono);
            self.tick(now);
        }
        for case in &mut self.cases {
            // What came of it stands in the case; the picture tells.
            effects::settle(case, &mut self.world, now.mono);
            effects::recorded(case, now.mono);
            effects::tell_gates(case, &self.world);
        }
        self.paint(now);
        self.last_turn = Some(now.mono);
        self.heartbeat.beat(now.mono, now.wall);
    }

    /// How long until the next tick is due.
    #[must_use]
    pub fn due(&self, now: Mono) -> Duration {
        self.last_tick.map_or(Duration::ZERO, |at| TICK_EVERY.saturating_sub(now.since(at)))
    }

    /// A turn that comes late was a stale heartbeat: what stood as proof must be proven again.
    fn mind_the_gap(&mut self, now: Now) {
        let Some(last) = self.last_turn else { return };
        let gap = now.mono.since(last);
        for at in 0..self.cases.len() {
            if gap > self.cases[at].fixed.config.evaluator.heartbeat_timeout {
                self.apply_quietly(at, Event::HeartbeatLost, now);
                self.apply_quietly(at, Event::HeartbeatFound, now);
            }
        }
    }

    fn observe(&mut self, batch: &Batch, now: Now) {
        for record in &batch.records {
            if let Some(at) = self.place(record.rollout) {
                self.cases[at].observe(&record.fact);
            }
        }
        if batch.dropped > 0 {
            for case in &mut self.cases {
                case.judge.records_dropped(now.mono);
            }
        }
    }

    /// Where the case of a slot is. Looked up, not looked for: with a hundred rollouts each record met fifty others first.
    fn place(&mut self, slot: u32) -> Option<usize> {
        let is_here = |at: &usize| self.cases.get(*at).is_some_and(|case| case.fixed.slot == slot);
        let index = slot as usize;
        if let Some(at) = self.places.get(index).copied().filter(is_here) {
            return Some(at);
        }
        let at = self.cases.iter().position(|case| case.fixed.slot == slot)?;
        if index >= self.places.len() {
            self.places.resize(index + 1, usize::MAX);
        }
        self.places[index] = at;
        Some(at)
    }

    /// A latch that the guard or an abort has published is taken into the state before anything else is published.
    fn adopt_latches(&mut self, now: Now) {
        let snapshot = self.world.live.load();
        // Who fell first takes his group along in the machine too; what is left then was latched by a group that the file
        // has and the plan in force has not.
        for of_group in [false, true] {
            for rollout in &snapshot.rollouts {
                let Some(latch) = rollout.runtime.latch.as_ref().filter(|l| (l.actor == GROUP) == of_group) else {
                    continue;
                };
                if let Some(at) = self.place(rollout.fixed.slot).filter(|at| self.cases[*at].state.latch.is_none()) {
                    self.adopt_latch(at, latch, now);
                }
            }
        }
    }

    fn adopt_latch(&mut self, at: usize, latch: &Latch, now: Now) {
        self.apply_quietly(at, adoption(&latch.actor, &latch.reason), now);
        if self.cases[at].state.latch.is_none() {
            // Nothing ran that could be rolled back: a latch without a rollout would stand for ever.
            let next = case::runtime(&self.cases[at].state);
            self.world.live.update_runtime(self.cases[at].name.as_str(), |_| Some(next.clone()));
        }
    }

    fn open(&mut self, letter: Letter, now: Now) {
        match letter.ask {
            Ask::Look | Ask::End => {}
            Ask::Drilled(ended) => {
                // One that was given up on is told of no second time.
                let known = self.cases.iter().position(|c| c.name == ended.rollout && c.drilling.is_some());
                if let Some(at) = known {
                    self.end_drill(at, ended, now);
                }
            }
            Ask::Confirmed(said) => {
                let Confirmed { rollout, gate, version, generation, answer } = said;
                if let Some(at) = self.cases.iter().position(|c| c.name == rollout) {
                    self.apply_quietly(at, Event::Confirmed { gate, version, generation, answer }, now);
                }
            }
            Ask::Scores(scores) => {
                for score in scores {
                    if let Some(case) = self.cases.iter_mut().find(|c| c.name == score.rollout) {
                        case.observe(&score.fact);
                    }
                }
            }
            Ask::Reload(Reload { prepared, claimed, answer }) => {
                if !claimed.swap(true, Ordering::AcqRel) {
                    let taken = self.reload(&prepared, now);
                    self.reloaded.push((answer, taken));
                }
            }
            Ask::Command(command) => self.command(command, letter.answer, now),
        }
    }

    fn command(&mut self, command: Command, answer: Box<dyn FnOnce(Answer) + Send>, now: Now) {
        let Some(at) = self.cases.iter().position(|c| c.name == command.rollout) else {
            return answer(Err(Refused::NotFound(command.rollout.to_string())));
        };
        let case = &self.cases[at];
        if command.if_match.is_some_and(|seen| seen != case.state.generation) {
            return answer(Err(Refused::Changed(case.state.generation)));
        }
        let goes_down = matches!(command.verb, Verb::Abort);
        if case.pending.is_some() && !goes_down {
            return answer(Err(Refused::Unavailable(
                "a change of this rollout is on its way to the disk; try again in a second".to_owned(),
            )));
        }
        let drill = command.verb == Verb::Drill;
        let event = Event::Command { verb: command.verb, actor: command.actor, reason: command.reason };
        match self.apply(at, event, now) {
            Ok(()) => {
                let case = &mut self.cases[at];
                if drill && case.drilling.is_some() {
                    case.drill_waits.push(answer);
                    return;
                }
                match case.pending.as_mut() {
                    Some(pending) => pending.answer = Some(answer),
                    None => {
                        let view = Arc::new(picture::paint(case, now, Duration::ZERO));
                        match case.recording {
                            Some(_) => case.waiting.push((answer, view)),
                            None => case.settled.push((answer, Ok(Some(view)))),
                        }
                    }
                }
            }
            Err(refused) => answer(Err(refused)),
        }
    }

    fn apply(&mut self, at: usize, event: Event, now: Now) -> Result<(), Refused> {
        let case = &mut self.cases[at];
        effects::thaw_gates(case, now.mono);
        // A waiting rise is stepped from as if it were in force, so that its record and what follows agree.
        let from = case.pending.as_ref().map_or(&case.state, |pending| &pending.state);
        let (state, effects) = machine::step(&case.terms, from, event, now).map_err(refused)?;
        if effects.is_empty() && case.pending.is_some() {
            return Ok(());
        }
        let fell = state.latch.is_some() && from.latch.is_none();
        case.changed |= !state.confirm.shows_as(&from.confirm);
        effects::carry_out(case, &mut self.world, state, effects, now.mono).map_err(Refused::Unavailable)?;
        if std::mem::take(&mut case.drill_asked) {
            self.begin_drill(at, now);
        }
        if fell {
            self.fall_together(at, now);
        }
        Ok(())
    }

    pub(super) fn apply_quietly(&mut self, at: usize, event: Event, now: Now) {
        if let Err(refused) = self.apply(at, event, now) {
            tracing::warn!(rollout.name = %self.cases[at].name, error = %refused, "an event could not be carried out");
        }
    }

    fn tick(&mut self, now: Now) {
        for at in 0..self.cases.len() {
            if self.cases[at].drilling.is_some_and(|until| now.mono >= until) {
                let failed = Some(format!("it did not end within {DRILL_PATIENCE:?}"));
                let ended = Drilled { rollout: self.cases[at].name.clone(), took: Duration::ZERO, failed };
                self.end_drill(at, ended, now);
            }
            let case = &mut self.cases[at];
            if case.fixed.config.evaluator.enabled && case.fixed.config.canary.is_some() {
                let under_trial = matches!(case.state.phase, Phase::Running | Phase::Awaiting);
                let spent = case.spent().filter(|_| under_trial);
                let verdict = exposure::held(case.judge.tick(now.mono), spent.as_ref());
                let waits = case.pending.is_some() && !matches!(verdict, Verdict::Rollback { .. });
                if case.verdict != verdict {
                    case.verdict = verdict.clone();
                    case.heard = true;
                }
                if !waits {
                    self.apply_quietly(at, Event::Judged(verdict), now);
                }
            }
            if self.cases[at].pending.is_none() {
                self.mind_exposure(at, now);
                self.apply_quietly(at, Event::Tick, now);
            }
        }
        self.barriers(now);
    }

    /// Asks for a rehearsal on the real path; its end comes as a letter.
    fn begin_drill(&mut self, at: usize, now: Now) {
        let case = &mut self.cases[at];
        // At the very start nobody serves yet: the next tick asks again.
        if case.drilling.is_some() || self.last_turn.is_none() {
            return;
        }
        let refused = match &self.world.drills {
            None => Some("there are no workers here"),
            Some(drills) => drills.try_send(case.name.clone()).is_err().then_some("too many drills wait already"),
        };
        match refused {
            None => case.drilling = Some(now.mono.plus(DRILL_PATIENCE)),
            Some(why) => {
                let ended = Drilled { rollout: case.name.clone(), took: Duration::ZERO, failed: Some(why.to_owned()) };
                self.end_drill(at, ended, now);
            }
        }
    }

    /// Records how a drill ended, and answers who asked for it once that is durable.
    fn end_drill(&mut self, at: usize, ended: Drilled, now: Now) {
        self.cases[at].drilling = None;
        self.apply_quietly(at, Event::Drilled { took: ended.took, failed: ended.failed }, now);
        let case = &mut self.cases[at];
        let view = Arc::new(picture::paint(case, now, Duration::ZERO));
        for answer in std::mem::take(&mut case.drill_waits) {
            match case.recording {
                Some(_) => case.waiting.push((answer, Arc::clone(&view))),
                None => case.settled.push((answer, Ok(Some(Arc::clone(&view))))),
            }
        }
    }

    /// Lets those groups pass their barrier of which every member stands there.
    fn barriers(&mut self, now: Now) {
        if !self.cases.iter().any(|case| case.state.at_barrier) {
            return;
        }
        let members: Vec<Member<'_>> = self.cases.iter().map(|c| Member { terms: &c.terms, state: &c.state }).collect();
        let mut moves = Vec::new();
        for group in lockstep::waiting(&members) {
            let mut of_group = self.cases.iter().zip(&members).filter(|(_, m)| m.group() == Some(group.as_str()));
            if !of_group.any(|(case, _)| case.pending.is_some()) {
                moves.extend(lockstep::open(&members, &group, now));
            }
        }
        for (at, state, effects) in moves {
            let case = &mut self.cases[at];
            if let Err(why) = effects::carry_out(case, &mut self.world, state, effects, now.mono) {
                tracing::error!(rollout.name = %case.name, error = %why, "it could not pass the barrier with its group");
            }
        }
    }

    /// A budget that is spent, or has room again, is recorded and told once, and heeded.
    fn mind_exposure(&mut self, at: usize, now: Now) {
        let case = &self.cases[at];
        let spent = case.spent();
        if spent.is_some() || case.state.spent.is_some() {
            let stops = case.fixed.config.exposure.on == OnSpent::Stop;
            let spent = spent.map(|spent| (spent.bound.to_owned(), spent.missing().to_string()));
            self.apply_quietly(at, Event::Exposure { spent, stops }, now);
        }
    }

    /// One that fell takes its group along.
    fn fall_together(&mut self, at: usize, now: Now) {
        let case = &self.cases[at];
        let (which, reason) =
            (case.name.clone(), case.state.latch.as_ref().map_or("", |l| l.reason.as_str()).to_owned());
        let members: Vec<Member<'_>> = self.cases.iter().map(|c| Member { terms: &c.terms, state: &c.state }).collect();
        let Some(group) = members.get(at).and_then(Member::group) else { return };
        for other in lockstep::fall_with(&members, group, &which) {
            self.apply_quietly(other, Event::GroupFell { which: which.clone(), reason: reason.clone() }, now);
        }
    }

    /// Hands every rollout's evidence on to be written; what finds no room is written the next time.
    pub fn keep(&mut self, evidence: &SyncSender<(RolloutName, Kept)>) {
        for case in self.cases.iter_mut().filter(|c| c.state.has_canary_traffic() || c.counts.unkept) {
            case.counts.unkept = false;
            let counts = Some(case.counts.exposed.text(case.canary()));
            let kept = Kept { state: case.state.clone(), judge: case.judge.checkpoint(), counts };
            if evidence.try_send((case.name.clone(), kept)).is_err() {
                tracing::warn!(rollout.name = %case.name, "the evidence was not kept this time: the disk is behind");
            }
        }
    }

    /// Paints what changed at once, and the numbers now and then: where a canary's traffic came and somebody looks each second,
    /// else rarely; a part of the rollouts at each turn.
    fn paint(&mut self, now: Now) {
        if self.board.was_read() {
            self.looked = Some(now.mono);
        }
        let looked = self.looked.is_some_and(|at| now.mono.since(at) < LOOKED_FOR);
        let (mut painted, mut ready) = (false, Vec::new());
        let mut left = self.cases.len().div_ceil(PAINTS_OF).max(PAINTS_LEAST);
        for case in &mut self.cases {
            let lives = looked && case.heard && case.state.has_canary_traffic();
            let often = if lives { PAINT_EVERY } else { PAINT_IDLE_EVERY };
            let due = case.view.as_ref().is_none_or(|(at, _)| left > 0 && now.mono.since(*at) >= often);
            if due || case.changed || !case.settled.is_empty() {
                left = left.saturating_sub(1);
                let view = Arc::new(picture::paint(case, now, Duration::ZERO));
                (case.changed, case.heard) = (false, false);
                for (answer, result) in case.settled.drain(..) {
                    let said = result.map(|then| then.unwrap_or_else(|| Arc::clone(&view)));
                    ready.push((answer, said.map_err(Refused::Unavailable)));
                }
                case.view = Some((now.mono, view));
                painted = true;
            }
        }
        if painted || self.cases.len() != self.posted {
            self.posted = self.cases.len();
            let views = self.cases.iter().filter_map(|c| c.view.as_ref().map(|(_, view)| Arc::clone(view)));
            self.board.post(views.collect());
        }
        // Whoever is answered and reads at once finds his change on the board.
        for (answer, said) in ready {
            answer(said);
        }
        for (answer, taken) in self.reloaded.drain(..) {
            answer(taken);
        }
    }
}

/// Whether a checkpoint and the journal's last state are of one release: the same version, rolled back as often.
fn same_release(kept: &State, state: &State) -> bool {
    state.phase != Phase::Idle && kept.version == state.version && kept.rollbacks == state.rollbacks
}

/// What the machine is told of a latch that was set past the judge.
pub(super) fn adoption(actor: &str, reason: &str) -> Event {
    if actor == BREAKER {
        return Event::Tripped { reason: reason.to_owned() };
    }
    let actor = Actor::new(actor, &[Role::Owner]);
    Event::Command { verb: Verb::Abort, actor, reason: reason.to_owned() }
}

fn refused(refusal: Refusal) -> Refused {
    match refusal.kind {
        RefusalKind::Forbidden => Refused::Forbidden(refusal.why),
        RefusalKind::Conflict => Refused::Conflict { why: refusal.why, allowed: refusal.allowed },
        RefusalKind::Invalid => Refused::Invalid(refusal.why),
        RefusalKind::Stale => Refused::Unavailable(refusal.why),
    }
}
