//! One rollout before the judge: its state, its evidence, and what it counts for people.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use sha2::{Digest, Sha256};

use super::distinct::Distinct;
use super::exposure::{Seen, Spent};
use super::tracer::TracedJudge;
use super::view::RolloutView;
use crate::config;
use crate::journal::Failure;
use crate::judge::{Fact, Ids, Policy, Verdict};
use crate::measure::Recorder;
use crate::names::{Arm, Mono, RolloutName};
use crate::rollout::{ConfirmGate, Effect, GateNumbers, Numbers, State, Terms};
use crate::snapshot::{Fixed, Latch, Runtime};
use crate::split::OpenCohorts;

/// A rollout and everything the evaluator knows of it.
pub struct Case {
    /// Which.
    pub name: RolloutName,
    /// Its tables, as the snapshot has them.
    pub fixed: Arc<Fixed>,
    /// What the file says.
    pub terms: Terms,
    /// Where it stands.
    pub state: State,
    /// Its evidence.
    pub judge: TracedJudge,
    /// The gates that the guard was told of.
    pub guarded: Option<Arc<Policy>>,
    /// The judge's last word.
    pub verdict: Verdict,
    /// What people see of its arms.
    pub counts: Counts,
    /// A rise that waits for the disk.
    pub pending: Option<Pending>,
    /// The newest record of what is in force already, on its way to the disk, and how long it is waited for.
    pub recording: Option<(Receiver<Result<u64, Failure>>, Mono)>,
    /// Who waits for that, with the picture as it was after his change.
    pub waiting: Vec<(Reply, Arc<RolloutView>)>,
    /// Answers that are ready: given as soon as the board shows what they say.
    pub settled: Vec<Settled>,
    /// A drill was asked for and not yet carried out.
    pub drill_asked: bool,
    /// A drill is under way, and until when its end is waited for.
    pub drilling: Option<Mono>,
    /// Who waits for its end.
    pub drill_waits: Vec<Reply>,
    /// The last picture, and when it was painted.
    pub view: Option<(Mono, Arc<RolloutView>)>,
    /// Something that people see has changed since the last picture.
    pub changed: bool,
    /// A fact has come since then: the numbers have changed.
    pub heard: bool,
}

/// The way back to who asked.
pub type Reply = Box<dyn FnOnce(super::mailbox::Answer) + Send>;

/// Who waits, and what became of it; no picture means the next one.
pub type Settled = (Reply, Result<Option<Arc<RolloutView>>, String>);

/// A rise whose record is on its way to the disk: nothing of it is in force.
pub struct Pending {
    /// The state to be.
    pub state: State,
    /// What is to be done then.
    pub rest: Vec<Effect>,
    /// The record's word.
    pub durable: Receiver<Result<u64, Failure>>,
    /// When it gives up.
    pub until: Mono,
    /// Who waits for the answer.
    pub answer: Option<Reply>,
}

/// Counts by arm since the last change of weight (shares) and of the release (exposure).
#[derive(Debug, Default)]
pub struct Counts {
    /// Distinct units by arm, since the stage began.
    pub users: [Distinct; 3],
    /// Drawn arrivals by arm, since the weight changed.
    pub drawn: [u64; 3],
    /// What the canary has been seen by in this release.
    pub exposed: Seen,
    /// It was seen by more since this was last kept.
    pub unkept: bool,
    /// Arms of canary exchanges under way, to charge their cost: only ids of the canary.
    canary_ids: Ids,
}

impl Counts {
    fn see(&mut self, fact: &Fact) {
        match fact {
            Fact::Start { id, arm, user, drawn, .. } => {
                if *drawn {
                    self.drawn[arm.index()] += 1;
                }
                if *user != 0 {
                    self.users[arm.index()].add(*user);
                }
                if *arm == Arm::Canary {
                    self.unkept = true;
                    self.exposed.requests += 1;
                    if *user != 0 {
                        self.exposed.users.add(*user);
                    }
                    self.canary_ids.insert(*id);
                }
            }
            Fact::End { id, end, .. } if self.canary_ids.remove(id) => {
                self.exposed.cost_nano += end.cost_nano.unwrap_or(0);
            }
            _ => {}
        }
    }

    /// The weight changed: shares start anew.
    pub fn cut(&mut self) {
        self.drawn = [0; 3];
    }

    /// A stage began.
    pub fn stage(&mut self) {
        self.users = Default::default();
        self.drawn = [0; 3];
    }

    /// A release began; `canary` is the recorder of its canary.
    pub fn release(&mut self, canary: &Recorder) {
        let canary_ids = std::mem::take(&mut self.canary_ids);
        *self = Self { canary_ids, unkept: true, exposed: Seen::new(canary), ..Self::default() };
    }
}

impl Case {
    /// A rollout that is taken up now, in `state`.
    #[must_use]
    pub fn new(fixed: Arc<Fixed>, state: State, now: Mono) -> Self {
        let config = &fixed.config;
        let policy = state.policy.as_ref().unwrap_or(&config.policy);
        Self {
            name: config.name.clone(),
            terms: terms(config),
            judge: TracedJudge::new(Arc::clone(policy), now),
            guarded: None,
            verdict: Verdict::Hold { missing: Vec::new(), reason: "nothing has been judged yet".to_owned() },
            counts: Counts::default(),
            pending: None,
            recording: None,
            waiting: Vec::new(),
            settled: Vec::new(),
            drill_asked: false,
            drilling: None,
            drill_waits: Vec::new(),
            view: None,
            changed: true,
            heard: false,
            fixed,
            state: state.resume(now),
        }
    }

    /// The numbers of this moment, for a record.
    #[must_use]
    pub fn numbers(&self, now: Mono) -> Numbers {
        Numbers {
            gates: self.judge.report(now).iter().map(GateNumbers::from).collect(),
            exposed: self.counts.exposed.numbers(),
            users: self.counts.users.each_ref().map(Distinct::count),
        }
    }

    /// The gates in force: those frozen at the start, or the file's where nothing runs.
    #[must_use]
    pub fn policy(&self) -> Arc<crate::judge::Policy> {
        Arc::clone(self.state.policy.as_ref().unwrap_or(&self.fixed.config.policy))
    }

    /// The recorder of its canary.
    #[must_use]
    pub fn canary(&self) -> &Recorder {
        &self.fixed.targets[Arm::Canary.index()].recorder
    }

    /// A release begins.
    pub fn begin_release(&mut self) {
        let fixed = Arc::clone(&self.fixed);
        self.counts.release(&fixed.targets[Arm::Canary.index()].recorder);
    }

    /// The bound of the exposure budget that is reached.
    #[must_use]
    pub fn spent(&self) -> Option<Spent> {
        self.counts.exposed.spent(&self.fixed.config.exposure, self.canary())
    }

    /// Takes in one fact.
    pub fn observe(&mut self, fact: &Fact) {
        self.heard = true;
        self.judge.observe(fact);
        self.counts.see(fact);
    }
}

/// What the file says of a rollout, as the machine reads it.
#[must_use]
pub fn terms(config: &config::Rollout) -> Terms {
    Terms {
        rollout: config.name.clone(),
        stable: config.stable.name.clone(),
        canary: config.canary.as_ref().map(|canary| canary.name.clone()),
        plan: config.plan.clone(),
        weight: config.weight,
        gates: gates_hash(config),
        policy: Some(Arc::clone(&config.policy)),
        drill_every: config.evaluator.drill_every,
        register: config.register.clone(),
        confirm: config.confirm.iter().map(|hook| gate(hook)).collect(),
    }
}

fn gate(hook: &config::ConfirmHook) -> ConfirmGate {
    ConfirmGate { name: hook.name.clone(), hook: hook.hook, valid: hook.valid() }
}

/// SHA-256 of the policy as JSON: what the journal holds against later changes of the gates.
fn gates_hash(config: &config::Rollout) -> String {
    let text = serde_json::to_vec(&*config.policy).unwrap_or_default();
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is published for a state. A latch that others have set in the meantime is never taken away here.
#[must_use]
pub fn runtime(state: &State) -> Runtime {
    let open = match state.cohorts() {
        crate::rollout::Cohorts::Closed => OpenCohorts::None,
        crate::rollout::Cohorts::AllBut(closed) => OpenCohorts::AllBut(closed),
    };
    let latch = state
        .latch
        .as_ref()
        .map(|latch| Arc::new(Latch { at: latch.at, actor: latch.actor.clone(), reason: latch.reason.clone() }));
    Runtime { weight: state.weight, latch, open }
}
