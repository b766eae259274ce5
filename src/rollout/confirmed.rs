//! Confirm gates under trial: asked last, answered freshly, about this entry of this stage; and never in the way of a fall.

use std::sync::Arc;
use std::time::Duration;

use super::testing::{Trial, terms};
use super::*;
use crate::judge::Verdict;
use crate::names::VersionName;
use crate::split::weight::Weight;

fn gates(all: &[(&str, Hook)]) -> Arc<[ConfirmGate]> {
    let valid = Duration::from_secs(40);
    all.iter().map(|(name, hook)| ConfirmGate { name: (*name).to_owned(), hook: *hook, valid }).collect()
}

/// Four stages of an hour without signatures, and the last.
fn gated(all: &[(&str, Hook)]) -> Trial {
    Trial::under(Terms { confirm: gates(all), ..terms(Some(Plan::preset("gradual").unwrap())) })
}

impl Trial {
    /// What a turn of the evaluator does: the judge's word, then a tick.
    fn turn(&mut self, proven: bool) -> Vec<Record> {
        let mut done = Vec::new();
        if proven {
            done.extend(self.recorded(Event::Judged(Verdict::Advance { reason: "proven".to_owned() })).unwrap());
        }
        done.extend(self.recorded(Event::Tick).unwrap());
        done
    }

    fn says(&mut self, gate: &str, answer: Result<(), &str>) -> Vec<Record> {
        let generation = self.state.generation;
        self.says_of(gate, "b", generation, answer)
    }

    fn says_of(&mut self, gate: &str, version: &str, generation: u64, answer: Result<(), &str>) -> Vec<Record> {
        let (version, answer) = (VersionName::new(version), answer.map_err(str::to_owned));
        self.recorded(Event::Confirmed { gate: gate.to_owned(), version, generation, answer }).unwrap()
    }

    fn asks(&self) -> Option<&'static str> {
        confirm::question(&self.state, &self.terms).map(|question| question.hook.as_str())
    }

    fn held(&self) -> Vec<String> {
        let question = confirm::question(&self.state, &self.terms);
        question.map(|q| q.held.into_iter().map(|(gate, why)| format!("{gate} {why}")).collect()).unwrap_or_default()
    }
}

#[test]
fn a_gate_is_asked_when_all_else_is_ready_and_lets_one_rise_through() {
    let mut trial = gated(&[("board", Hook::ConfirmTrafficIncrease), ("last", Hook::ConfirmPromotion)]);
    trial.by(Role::Owner, Verb::Start).unwrap();
    trial.passes(Duration::from_secs(3_000));
    trial.turn(true);
    assert_eq!((trial.asks(), trial.waits_for()), (None, Some("residence")), "nobody is asked too early");
    trial.passes(Duration::from_secs(601));
    trial.turn(true);
    assert_eq!((trial.asks(), trial.waits_for()), (Some("confirm-traffic-increase"), Some("confirm")));
    assert_eq!(trial.held(), ["board has not answered yet"]);
    let since = confirm::question(&trial.state, &trial.terms).unwrap().since;
    trial.passes(Duration::from_secs(10));
    trial.says("board", Err("answered 403"));
    assert!(trial.turn(true).is_empty());
    assert_eq!(trial.held(), ["board answered 403"]);
    assert_eq!(confirm::question(&trial.state, &trial.terms).unwrap().since, since, "since when it has held");
    assert!(trial.says("board", Ok(())).is_empty(), "the next turn rises");
    let risen = trial.turn(true);
    assert_eq!((risen[0].decision, risen[0].stage, risen[0].proven), (Decision::Advance, Some(1), true));
    // A yes is good for one rise.
    for stage in 2..4 {
        trial.passes(Duration::from_secs(3_601));
        assert!(trial.turn(true).is_empty());
        assert_eq!(trial.held(), ["board has not answered yet"]);
        trial.says("board", Ok(()));
        assert_eq!(trial.turn(true)[0].stage, Some(stage));
    }
    trial.passes(Duration::from_secs(3_601));
    trial.turn(true);
    assert_eq!(trial.asks(), Some("confirm-promotion"), "the last stage serves everybody");
    trial.says("board", Ok(()));
    assert!(trial.turn(true).is_empty(), "another gate's yes");
    trial.says("last", Ok(()));
    assert_eq!(trial.turn(true)[0].to, Phase::Soaking);
}

#[test]
fn every_gate_of_a_hook_must_open_and_a_yes_grows_old() {
    let both = [("one", Hook::ConfirmTrafficIncrease), ("two", Hook::ConfirmTrafficIncrease)];
    let mut trial = gated(&both);
    trial.by(Role::Owner, Verb::Start).unwrap();
    trial.passes(Duration::from_secs(3_601));
    trial.turn(true);
    trial.says("one", Ok(()));
    assert!(trial.turn(true).is_empty());
    assert_eq!(trial.held(), ["two has not answered yet"]);
    trial.passes(Duration::from_secs(41));
    trial.turn(true);
    assert_eq!(trial.held(), ["one has not answered for 41 s", "two has not answered yet"]);
    trial.says("two", Ok(()));
    assert!(trial.turn(true).is_empty(), "no answer is no yes, whatever was said before");
    trial.says("one", Ok(()));
    assert_eq!(trial.turn(true)[0].decision, Decision::Advance);
}

#[test]
fn a_yes_about_something_else_is_no_yes() {
    let mut trial = gated(&[("board", Hook::ConfirmTrafficIncrease)]);
    trial.by(Role::Owner, Verb::Start).unwrap();
    trial.passes(Duration::from_secs(3_601));
    trial.turn(true);
    let generation = trial.state.generation;
    trial.says_of("board", "c", generation, Ok(()));
    trial.says_of("board", "b", generation - 1, Ok(()));
    trial.says_of("nobody", "b", generation, Ok(()));
    assert!(trial.turn(true).is_empty());
    assert_eq!(trial.held(), ["board has not answered yet"]);
    trial.says("board", Ok(()));
    // A pause and a resume are another entry: what was said before is about the one before.
    trial.by(Role::Owner, Verb::Pause).unwrap();
    trial.by(Role::Owner, Verb::Resume).unwrap();
    assert!(trial.turn(true).is_empty());
    trial.says("board", Ok(()));
    let mut restarted = gated(&[("board", Hook::ConfirmTrafficIncrease)]);
    let text = serde_json::to_string(&trial.state).unwrap();
    restarted.now = trial.now;
    restarted.state = serde_json::from_str::<State>(&text).unwrap().resume(trial.now.mono);
    assert!(restarted.turn(true).is_empty(), "after a restart it is asked again");
    assert_eq!(trial.turn(true)[0].decision, Decision::Advance);
}

#[test]
fn a_promotion_by_hand_skips_residence_and_judge_but_no_gate() {
    let mut trial = gated(&[("board", Hook::ConfirmTrafficIncrease)]);
    trial.by(Role::Owner, Verb::Start).unwrap();
    let waits = trial.by(Role::Owner, Verb::Promote { full: false }).unwrap();
    assert_eq!((waits[0].decision, waits[0].to, waits[0].stage), (Decision::Await, Phase::Awaiting, Some(0)));
    trial.turn(false);
    assert_eq!(trial.waits_for(), Some("confirm"));
    trial.says("board", Err("answered 403"));
    assert!(trial.turn(false).is_empty());
    trial.says("board", Ok(()));
    let risen = trial.turn(false);
    assert_eq!((risen[0].decision, risen[0].stage, risen[0].proven), (Decision::Promote, Some(1), false));
    // One who waits longer than the stage's deadline is told so.
    trial.by(Role::Owner, Verb::Promote { full: false }).unwrap();
    trial.turn(false);
    trial.passes(Duration::from_secs(4 * 3_600 + 1));
    let paused = trial.turn(false);
    assert_eq!(paused[0].decision, Decision::Deadline);
    assert_eq!(paused[0].reason, "no confirm gate has opened by the stage's deadline");
}

#[test]
fn a_release_begins_when_its_gate_is_open_by_hand_and_by_itself() {
    let mut trial = gated(&[("board", Hook::ConfirmRollout)]);
    let refused = trial.by(Role::Owner, Verb::Start).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Conflict);
    assert_eq!(refused.why, "confirm-rollout holds: board has not answered yet; start again when it opens");
    trial.turn(false);
    assert_eq!(trial.asks(), Some("confirm-rollout"), "asked before anybody begins it");
    trial.says("board", Err("answered 403"));
    trial.turn(false);
    assert!(trial.by(Role::Owner, Verb::Start).unwrap_err().why.contains("board answered 403"));
    trial.says("board", Ok(()));
    assert_eq!(trial.by(Role::Owner, Verb::Start).unwrap()[0].decision, Decision::Start);
    assert_eq!(trial.asks(), None);

    let mut itself = gated(&[("board", Hook::ConfirmRollout)]);
    let plan = Plan { start: Start::OnNewVersion, ..Plan::preset("gradual").unwrap() };
    itself.terms.plan = Some(Arc::new(plan));
    itself.state = State::initial(&itself.terms).resume(itself.now.mono);
    assert!(itself.turn(false).is_empty());
    itself.says("board", Ok(()));
    let begun = itself.turn(false);
    assert_eq!((begun[0].decision, begun[0].actor.as_str()), (Decision::Start, "config"));

    let mut plain = gated(&[("board", Hook::ConfirmRollout)]);
    (plain.terms.plan, plain.terms.weight) = (None, Some(Weight::from_percent(5.0).unwrap()));
    plain.state = State::initial(&plain.terms).resume(plain.now.mono);
    assert!(plain.turn(false).is_empty());
    plain.says("board", Ok(()));
    assert_eq!(plain.turn(false)[0].decision, Decision::Start);
}

#[test]
fn a_rollback_hook_that_says_yes_rolls_back_from_wherever_the_canary_is_under_trial() {
    let hooks = [("oncall", Hook::Rollback), ("board", Hook::ConfirmTrafficIncrease)];
    let mut trial = gated(&hooks);
    assert!(trial.says("oncall", Ok(())).is_empty(), "nothing runs");
    trial.by(Role::Owner, Verb::Start).unwrap();
    assert!(trial.says("oncall", Err("answered 403")).is_empty());
    let other = trial.state.generation + 1;
    assert!(trial.says_of("oncall", "c", other, Ok(())).is_empty(), "about another version");
    trial.passes(Duration::from_secs(3_601));
    trial.turn(true);
    assert_eq!(trial.waits_for(), Some("confirm"));
    // It is not asked of the generation: a fall waits for nothing.
    let fallen = trial.says_of("oncall", "b", 0, Ok(()));
    assert_eq!((fallen[0].decision, fallen[0].actor.as_str()), (Decision::Abort, "hook:oncall"));
    assert_eq!((trial.state.weight, trial.state.latch.is_some()), (Weight::ZERO, true));
    assert!(trial.says("oncall", Ok(())).is_empty(), "once");
    for verbs in [
        &[Verb::Start, Verb::Pause][..],
        &[Verb::Start, Verb::Promote { full: false }],
        &[Verb::Start, Verb::Promote { full: true }],
    ] {
        let mut trial = gated(&hooks[..1]);
        for verb in verbs {
            trial.by(Role::Owner, *verb).unwrap();
        }
        assert_eq!(trial.says("oncall", Ok(()))[0].to, Phase::RolledBack, "{verbs:?}");
    }
    let mut trial = gated(&hooks[..1]);
    for verb in [Verb::Start, Verb::Promote { full: true }, Verb::Promote { full: false }] {
        trial.by(Role::Owner, verb).unwrap();
    }
    assert_eq!(trial.state.phase, Phase::Completed);
    assert!(trial.says("oncall", Ok(())).is_empty(), "its trial is over: abort reverts");
}

#[test]
fn a_gate_that_holds_is_in_the_way_of_no_fall() {
    let mut trial = gated(&[("board", Hook::ConfirmTrafficIncrease)]);
    trial.by(Role::Owner, Verb::Start).unwrap();
    trial.passes(Duration::from_secs(3_601));
    trial.turn(true);
    assert_eq!(trial.waits_for(), Some("confirm"));
    let fallen =
        trial.recorded(Event::Judged(Verdict::Rollback { rule: "e".to_owned(), reason: "9".to_owned() })).unwrap();
    assert_eq!(fallen[0].decision, Decision::Rollback);
    assert_eq!(trial.asks(), None);
}
