//! Drift: whether the canary's answers are distributed as stable's are, in length, refusals, use of tools and language.
//! Neither side is worse; a gate of drift holds, it does not roll back, unless it is told to.
//!
//! Nothing new is computed: a distribution is cut into classes, and each class is a rate (or one side of a median) of its own,
//! compared by the same test as every gate, by users and at any time. Shares add up to one, so that a class that shrinks
//! shows in those that grow: where there are two classes, each of them is a rule; of languages, every one. Which tool an answer
//! calls first is a class by a keyed hash of the tool's name, of eight: two tools share one in an eighth of all cases.

use std::sync::Arc;

use super::case::Case;
use super::policy::{Direction, Margin, Metric, On, Rule, Stat};
use crate::names::{Script, TOOL_CLASSES};

/// The names of the gates.
pub const GATES: [&str; 4] = ["drift_length", "drift_refusal", "drift_tools", "drift_language"];
/// Of stable's answers, so many must be known before a class is called too common to grow.
const KNOWN: f64 = 200.0;
/// A median that differs by less is the same length, by more surely another.
const LENGTH: [f64; 2] = [1.1, 1.3];
/// Percentage points by which a share may surely differ, and surely not.
const SHARE: [f64; 2] = [0.02, 0.10];

/// The rules that a gate of drift stands for; `None` for a name that is no such gate.
#[must_use]
pub fn rules(name: &str) -> Option<Vec<Rule>> {
    let length = |class: &str, direction| {
        let [promote, rollback] = LENGTH.map(Margin::Relative);
        let mut rule = Rule::new(&format!("{name}/{class}"), Metric::TokensOut, Stat::Quantile(0.5), promote, rollback);
        rule.direction = direction;
        if direction == Direction::Lower {
            (rule.promote, rule.rollback) = (mirrored(promote), mirrored(rollback));
        }
        rule
    };
    let share = |class: &str, metric: Metric| {
        let [promote, rollback] = SHARE.map(Margin::Absolute);
        Rule::new(&format!("{name}/{class}"), metric, Stat::Rate, promote, rollback)
    };
    let both = |metric: Metric| vec![share("more", metric.clone()), share("less", Metric::Not(Arc::new(metric)))];
    let mut rules = match name {
        "drift_length" => vec![length("longer", Direction::Higher), length("shorter", Direction::Lower)],
        "drift_refusal" => both(Metric::Refusal),
        "drift_tools" => {
            let classes = (0..TOOL_CLASSES).map(|class| share(&format!("tool{class}"), Metric::Tool(class)));
            both(Metric::ToolCall).into_iter().chain(classes).collect()
        }
        "drift_language" => {
            Script::ALL.into_iter().map(|script| share(script.as_str(), Metric::Script(script))).collect()
        }
        _ => return None,
    };
    rules.iter_mut().for_each(|rule| rule.on = On::Hold);
    Some(rules)
}

/// The margin as far to the other side.
#[must_use]
pub fn mirrored(margin: Margin) -> Margin {
    match margin {
        Margin::Absolute(by) => Margin::Absolute(-by),
        Margin::Relative(ratio) => Margin::Relative((2.0 - ratio).max(0.01)),
    }
}

/// Whether a class is so common in stable that the canary cannot have more of it by the rollback margin: shares end at one.
/// Faults are never that; their rules are left as they are.
pub(super) fn is_without_room(case: &Case, rule: &Rule) -> bool {
    let (Margin::Absolute(by), false) = (rule.rollback, rule.metric.is_fault()) else { return false };
    let Some(sums) = case.soft.as_ref().map(super::contest::Contest::total) else { return false };
    sums.n_s >= KNOWN && sums.n_c >= 1.0 && sums.k_s / sums.n_s + by >= 1.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{End, Fact, Flags, Judge, Outcome, Policy, Stage, Verdict};
    use super::*;
    use crate::names::{Arm, Mono};

    /// What an arm's answers are like: shares of refusals and tool calls, of the second of two tools among these, of answers
    /// in Han, and the tokens of the median.
    #[derive(Clone, Copy)]
    struct Like {
        refusals: f64,
        tools: f64,
        second: f64,
        han: f64,
        tokens: f64,
    }

    const USUAL: Like = Like { refusals: 0.03, tools: 0.3, second: 0.2, han: 0.05, tokens: 200.0 };

    struct Dice(u64);

    impl Dice {
        fn share(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }

        fn answer(&mut self, like: Like) -> End {
            let flags = Flags {
                refusal: self.share() < like.refusals,
                tool_called: self.share() < like.tools,
                ..Flags::default()
            };
            let tool = flags.tool_called.then(|| if self.share() < like.second { 5 } else { 2 });
            let script = if self.share() < like.han { Script::Han } else { Script::Latin };
            let tokens = (like.tokens * (1.5 * (self.share() + self.share() - 1.0)).exp()) as u64;
            End { tokens_out: Some(tokens), flags, script: Some(script), tool, ..End::plain(Outcome::Success, 200) }
        }
    }

    /// The gates that fail, the classes that do, and whether all are proven, after half an hour at 20 %.
    fn judged(seed: u64, canary: Like) -> (Vec<String>, bool) {
        let policy =
            Policy { rules: GATES.iter().filter_map(|name| rules(name)).flatten().collect(), ..Policy::default() };
        let mut judge = Judge::new(Arc::new(policy), Mono(0));
        let (mut dice, mut id, mut advanced) = (Dice(seed), 0, false);
        let stage = Stage { weight: 0.2, residence: Duration::from_secs(600), samples: 100 };
        for second in 1..3_000u64 {
            if second == 1_200 {
                judge.enter_stage(stage, Mono(second * 1_000_000_000));
            }
            for n in 0..10u64 {
                let at = Mono(second * 1_000_000_000 + n * 90_000_000);
                let user = (dice.share() * 300.0) as u64 + 1;
                let arm = if second >= 1_200 && user.is_multiple_of(5) { Arm::Canary } else { Arm::Stable };
                id += 1;
                judge.observe(&Fact::Start { id, at, arm, user, drawn: true });
                let end = dice.answer(if arm == Arm::Canary { canary } else { USUAL });
                judge.observe(&Fact::End { id, at: at.plus(Duration::from_millis(50)), end });
            }
            match judge.tick(Mono((second + 1) * 1_000_000_000)) {
                Verdict::Advance { .. } => advanced = true,
                Verdict::StepBack { rule, .. } | Verdict::Rollback { rule, .. } => {
                    return (vec![format!("rolled back by {rule}")], false);
                }
                Verdict::Hold { .. } => {}
            }
        }
        let failing = judge.report(Mono(3_000_000_000_000)).into_iter();
        let failing = failing.filter(|gate| gate.result == super::super::GateResult::Fail).map(|gate| gate.name);
        (failing.collect(), advanced)
    }

    #[test]
    fn answers_that_are_alike_are_proven_to_be() {
        for seed in 1..=3 {
            assert_eq!(judged(seed, USUAL), (Vec::new(), true), "seed {seed}");
        }
    }

    #[test]
    fn every_kind_of_drift_holds_on_its_own_side_and_rolls_nothing_back() {
        for (canary, expect) in [
            (Like { refusals: 0.25, ..USUAL }, "drift_refusal/more"),
            (Like { tools: 0.6, second: 0.6, ..USUAL }, "drift_tools/more drift_tools/tool5"),
            (Like { tools: 0.05, ..USUAL }, "drift_tools/less"),
            (Like { second: 0.9, ..USUAL }, "drift_tools/tool5"),
            (Like { han: 0.4, ..USUAL }, "drift_language/han"),
            (Like { tokens: 400.0, ..USUAL }, "drift_length/longer"),
            (Like { tokens: 100.0, ..USUAL }, "drift_length/shorter"),
        ] {
            let expect = expect.split(' ').map(str::to_owned).collect();
            assert_eq!(judged(7, canary), (expect, false));
        }
    }
}
