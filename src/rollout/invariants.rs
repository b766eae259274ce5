//! What holds of every state, whatever happened: checked after every step.

use crate::rollout::effect::Cohorts;
use crate::rollout::state::{Phase, State};
use crate::split::weight::Weight;

impl State {
    /// What must hold of every state; the first thing that does not.
    ///
    /// # Errors
    /// The law that is broken. That is a fault of ours, never of traffic or of a person.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        let law = |holds: bool, law: &'static str| if holds { Ok(()) } else { Err(law) };
        let in_stage = self.plan.as_ref().zip(self.stage);
        law((self.phase == Phase::RolledBack) == self.latch.is_some(), "latched exactly while rolled back")?;
        law(self.latch.is_none() || self.weight == Weight::ZERO, "a latched rollout is at 0")?;
        law(self.latch.is_none() || self.cohorts() == Cohorts::Closed, "a latched rollout has no cohorts open")?;
        law((self.phase == Phase::Paused) == self.paused.is_some(), "paused exactly in the phase paused")?;
        law(self.approvals.is_empty() || self.phase == Phase::Awaiting, "only an awaiting rollout is signed")?;
        law(
            self.target.is_none() || matches!(self.phase, Phase::Awaiting | Phase::Paused),
            "only an awaiting rollout, or one paused from there, has a target",
        )?;
        law(self.plan.is_some() == self.stage.is_some(), "a stage and its plan come together")?;
        law(self.stage.is_none_or(|s| self.entered.contains(&s)), "the stage was entered")?;
        law(self.deadline().is_some() || self.may_wait(), "no phase waits for ever")?;
        match (self.phase, in_stage) {
            (Phase::Idle, Some(_)) => law(false, "an idle rollout is in no stage"),
            (Phase::Idle, None) => law(self.weight == Weight::ZERO, "an idle rollout is at 0"),
            (Phase::Running, None) => law(self.weight > Weight::ZERO, "a plain split at 0 is idle"),
            (Phase::Running, Some((plan, stage))) => {
                law(stage < plan.last(), "the last stage is the soak")?;
                law(self.weight == plan.weight_of(stage), "a running rollout has its stage's weight")
            }
            (Phase::Awaiting, None) => law(false, "only a stage waits for a person"),
            (Phase::Awaiting, Some((plan, stage))) => {
                law(self.weight == plan.weight_of(stage), "an awaiting rollout has its stage's weight")?;
                let target = self.target.as_ref();
                law(
                    target.is_some_and(|t| t.stage > stage && t.stage <= plan.last()),
                    "an awaiting rollout has a target",
                )
            }
            (Phase::Soaking, None) => law(false, "only a plan has a soak"),
            (Phase::Soaking, Some((plan, stage))) => {
                law(stage == plan.last(), "the soak is the last stage")?;
                law(self.weight == plan.weight_of(stage), "a soaking rollout leaves the holdback")
            }
            (Phase::Completed, _) => law(self.weight == Weight::FULL, "a completed rollout serves everybody"),
            (Phase::Paused | Phase::RolledBack, _) => Ok(()),
        }
    }

    /// Whether this phase needs no deadline: nothing is sent to the canary, or it is a split without a plan.
    fn may_wait(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::RolledBack) || self.plan.is_none()
    }
}
