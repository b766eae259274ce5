//! Confirm gates: somebody outside must answer yes before a weight rises. The hooks have the names that Flagger gave them.
//!
//! A gate is asked when everything else lets the rollout rise, again and again until it opens; only a yes that is fresh
//! and about this entry of this stage counts. No answer is no yes. Nothing here holds up a fall.

use std::time::Duration;

use crate::names::{VersionName, Wall};
use crate::rollout::moves::Draft;
use crate::rollout::plan::Plan;
use crate::rollout::record::Decision;
use crate::rollout::state::{Phase, State, Terms};

/// What is asked or told, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before the first stage is entered.
    ConfirmRollout,
    /// Before every further stage but the last.
    ConfirmTrafficIncrease,
    /// Before the last stage, which serves everybody.
    ConfirmPromotion,
    /// While the canary is under trial: a yes rolls back.
    Rollback,
    /// Told of everything that happens, and asked for nothing.
    Event,
}

impl Hook {
    /// All of them.
    pub const ALL: [Hook; 5] =
        [Hook::ConfirmRollout, Hook::ConfirmTrafficIncrease, Hook::ConfirmPromotion, Hook::Rollback, Hook::Event];

    /// Flagger's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Hook::ConfirmRollout => "confirm-rollout",
            Hook::ConfirmTrafficIncrease => "confirm-traffic-increase",
            Hook::ConfirmPromotion => "confirm-promotion",
            Hook::Rollback => "rollback",
            Hook::Event => "event",
        }
    }

    /// The one before the stage `index` of a plan is entered from below.
    #[must_use]
    pub fn into_stage(plan: &Plan, index: usize) -> Self {
        if index >= plan.last() { Hook::ConfirmPromotion } else { Hook::ConfirmTrafficIncrease }
    }
}

/// A gate of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmGate {
    /// Its name.
    pub name: String,
    /// When it is asked.
    pub hook: Hook,
    /// How long a yes is good for; it is asked again well before that.
    pub valid: Duration,
}

/// What is asked now, and what was answered. Not stored: after a restart everything is asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirm {
    /// What is asked in this entry of the stage, and since when.
    asked: Option<(Hook, Wall)>,
    /// Whether the rollout would rise now, were it not for the gates.
    wanted: bool,
    answers: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    gate: String,
    answer: Result<(), String>,
    age: Duration,
}

impl Confirm {
    /// Counts the time that has passed, before it is said anew whether anything is wanted.
    pub(crate) fn passes(&mut self, time: Duration) {
        self.wanted = false;
        for answer in &mut self.answers {
            answer.age = answer.age.saturating_add(time);
        }
    }

    /// Bounds what it counts, for a check of all states; what is older than `most` is as old as that.
    #[cfg(test)]
    pub(crate) fn clamp(&mut self, most: Duration) {
        self.answers.iter_mut().for_each(|answer| answer.age = answer.age.min(most));
        self.answers.sort_by(|one, other| one.gate.cmp(&other.gate));
    }

    /// Whether people are shown the same.
    #[must_use]
    pub fn shows_as(&self, other: &Self) -> bool {
        let said = |this: &Self| this.answers.iter().map(|a| (a.gate.clone(), a.answer.clone())).collect::<Vec<_>>();
        self.wanted == other.wanted && self.asked == other.asked && said(self) == said(other)
    }
}

/// What is asked before the rollout may rise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which hook.
    pub hook: Hook,
    /// Since when the rollout has waited for it.
    pub since: Wall,
    /// The gates that hold, and why. Empty: all have opened.
    pub held: Vec<(String, String)>,
}

/// What the rollout asks now; `None` where nothing but the gates' absence, or something else, decides.
#[must_use]
pub fn question(state: &State, terms: &Terms) -> Option<Question> {
    let (hook, since) = state.confirm.asked.filter(|_| state.confirm.wanted)?;
    let held = terms.confirm.iter().filter(|gate| gate.hook == hook).filter_map(|gate| {
        let why = match state.confirm.answers.iter().find(|answer| answer.gate == gate.name) {
            None => "has not answered yet".to_owned(),
            Some(answer) if answer.age > gate.valid => {
                format!("has not answered for {} s", answer.age.as_secs())
            }
            Some(Answer { answer: Ok(()), .. }) => return None,
            Some(Answer { answer: Err(why), .. }) => why.clone(),
        };
        Some((gate.name.clone(), why))
    });
    Some(Question { hook, since, held: held.collect() })
}

/// Whether a gate holds the rollout now.
pub(crate) fn holds(state: &State, terms: &Terms) -> bool {
    question(state, terms).is_some_and(|question| !question.held.is_empty())
}

impl Draft<'_> {
    /// Whether every gate of this hook has opened; they are asked from now on where they have not.
    pub(crate) fn confirmed(&mut self, hook: Hook) -> bool {
        if !self.terms.confirm.iter().any(|gate| gate.hook == hook) {
            return true;
        }
        let confirm = &mut self.state.confirm;
        if confirm.asked.map(|(asked, _)| asked) != Some(hook) {
            *confirm = Confirm { asked: Some((hook, self.now.wall)), ..Confirm::default() };
        }
        confirm.wanted = true;
        !holds(&self.state, self.terms)
    }

    /// The gates that hold, in a sentence.
    pub(crate) fn held(&self) -> String {
        question(&self.state, self.terms).map_or_else(String::new, |question| words(&question))
    }
}

/// `confirm-promotion holds: release-board answered 403`.
#[must_use]
pub fn words(question: &Question) -> String {
    if question.held.is_empty() {
        return format!("{} is open", question.hook.as_str());
    }
    let held: Vec<String> = question.held.iter().map(|(gate, why)| format!("{gate} {why}")).collect();
    format!("{} holds: {}", question.hook.as_str(), held.join(", "))
}

/// An answer has come. One about another version, another entry of the stage, or from a gate that the file no longer
/// has is nothing.
pub(crate) fn answered(
    mut draft: Draft<'_>,
    gate: &str,
    version: &VersionName,
    generation: u64,
    answer: Result<(), String>,
) -> (State, Vec<crate::rollout::Effect>) {
    draft.state.confirm.wanted = draft.before.confirm.wanted;
    let known = draft.terms.confirm.iter().find(|known| known.name == gate);
    let Some(known) = known.filter(|_| draft.state.version.as_ref() == Some(version)) else { return draft.quiet() };
    if known.hook == Hook::Rollback {
        let under_trial =
            matches!(draft.state.phase, Phase::Running | Phase::Awaiting | Phase::Paused | Phase::Soaking);
        return match answer {
            Ok(()) if under_trial => {
                let reason = format!("the hook {gate} asked for a rollback");
                draft.roll_back(Decision::Abort, &format!("hook:{gate}"), &reason)
            }
            _ => draft.quiet(),
        };
    }
    if generation == draft.state.generation {
        let answers = &mut draft.state.confirm.answers;
        answers.retain(|known| known.gate != gate);
        answers.push(Answer { gate: gate.to_owned(), answer, age: Duration::ZERO });
    }
    draft.quiet()
}
