//! Groups that move together: all of them pass a barrier in one turn or none does, and one that falls takes all along.
//!
//! Each member lives in the machine alone; here is decided when the barrier opens. It opens when every member that could
//! still rise stands at it: proven, resided, signed, inside its hours. What the members would do is computed for all
//! before anything is done for one, so that hours, freezes, drills and proof are looked at again at that very moment.

use crate::names::RolloutName;
use crate::rollout::effect::Effect;
use crate::rollout::event::{Event, Now};
use crate::rollout::machine::step;
use crate::rollout::state::{Phase, State, Terms};

/// A rollout as its group sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What its file says.
    pub terms: &'a Terms,
    /// Where it stands.
    pub state: &'a State,
}

impl Member<'_> {
    /// The group it moves with: that of the plan in force, or of the file's while it is idle.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.state.plan.as_ref().or(self.terms.plan.as_ref()).and_then(|plan| plan.lockstep.as_deref())
    }

    /// Whether the others wait for it: it has a version under release that has not reached everybody.
    fn is_waited_for(&self) -> bool {
        self.state.version.is_some() && self.state.phase != Phase::Completed
    }
}

/// What a member does when its barrier opens: its place in the list, its next state, and the effects.
pub type Move = (usize, State, Vec<Effect>);

/// The moves of a group whose barrier opens now; empty while anybody is waited for.
#[must_use]
pub fn open(members: &[Member<'_>], group: &str, now: Now) -> Vec<Move> {
    let of_group = || members.iter().enumerate().filter(|(_, m)| m.group() == Some(group) && m.is_waited_for());
    if of_group().count() == 0 || !of_group().all(|(_, member)| member.state.at_barrier) {
        return Vec::new();
    }
    let mut moves = Vec::new();
    for (at, member) in of_group() {
        match step(member.terms, member.state, Event::Barrier, now) {
            Ok((state, effects)) if state.generation != member.state.generation => moves.push((at, state, effects)),
            // One that cannot pass at this moment keeps the barrier shut for all.
            _ => return Vec::new(),
        }
    }
    moves
}

/// The members that fall with the one that fell; it is not among them.
#[must_use]
pub fn fall_with(members: &[Member<'_>], group: &str, fallen: &RolloutName) -> Vec<usize> {
    let falls = |member: &Member<'_>| {
        member.group() == Some(group)
            && member.terms.rollout != *fallen
            && !matches!(member.state.phase, Phase::Idle | Phase::RolledBack)
    };
    members.iter().enumerate().filter(|(_, member)| falls(member)).map(|(at, _)| at).collect()
}

/// The groups that have a member at their barrier, each once.
#[must_use]
pub fn waiting(members: &[Member<'_>]) -> Vec<String> {
    let mut groups: Vec<String> = Vec::new();
    for member in members.iter().filter(|member| member.state.at_barrier) {
        if let Some(group) = member.group()
            && !groups.iter().any(|known| known == group)
        {
            groups.push(group.to_owned());
        }
    }
    groups
}
