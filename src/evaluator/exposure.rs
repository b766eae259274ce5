//! What the canary of a release has been seen by, and whether its exposure budget allows more.

use super::distinct::Distinct;
use super::view::{Bounds, Exposed};
use crate::config::Exposure;
use crate::judge::{Lack, Missing, Verdict};
use crate::measure::Recorder;

/// Counts of one release, kept across restarts.
#[derive(Debug, Default)]
pub struct Seen {
    /// Distinct units.
    pub users: Distinct,
    /// Requests.
    pub requests: u64,
    /// Billionths of a dollar.
    pub cost_nano: u64,
    /// Tokens of every kind before `since`.
    tokens: u64,
    /// The recorder's count when this process (or the release) began to count.
    since: u64,
}

/// A bound that is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// Its key.
    pub bound: &'static str,
    /// What was seen.
    pub have: f64,
    /// The bound.
    pub most: f64,
}

impl Spent {
    /// What it keeps a stage from.
    #[must_use]
    pub fn missing(&self) -> Missing {
        let rule = Some(format!("exposure.{}", self.bound).into());
        Missing { rule, lack: Lack::Exposure { have: self.have, most: self.most } }
    }
}

impl Seen {
    /// Of a release that begins.
    #[must_use]
    pub fn new(canary: &Recorder) -> Self {
        Self { since: canary.tokens_all(), ..Self::default() }
    }

    /// Tokens of every kind: input (fresh, read from or written into a cache) and output.
    #[must_use]
    pub fn tokens(&self, canary: &Recorder) -> u64 {
        self.tokens + canary.tokens_all().saturating_sub(self.since)
    }

    /// The bound that is reached, if any.
    #[must_use]
    pub fn spent(&self, bounds: &Exposure, canary: &Recorder) -> Option<Spent> {
        let check = |bound: &'static str, most: Option<u64>, have: &dyn Fn() -> u64, unit: f64| {
            let most = most?;
            let have = have();
            (have >= most).then(|| Spent { bound, have: have as f64 / unit, most: most as f64 / unit })
        };
        check("max_users", bounds.max_users, &|| self.users.count(), 1.0)
            .or_else(|| check("max_requests", bounds.max_requests, &|| self.requests, 1.0))
            .or_else(|| check("max_tokens", bounds.max_tokens, &|| self.tokens(canary), 1.0))
            .or_else(|| check("max_cost", bounds.max_cost_nano, &|| self.cost_nano, 1e9))
    }

    /// For people.
    #[must_use]
    pub fn view(&self, bounds: &Exposure, canary: &Recorder) -> Exposed {
        Exposed {
            users: self.users.count(),
            requests: self.requests,
            tokens: self.tokens(canary),
            cost_usd: self.cost_nano as f64 / 1e9,
            bounds: Bounds {
                max_users: bounds.max_users,
                max_requests: bounds.max_requests,
                max_tokens: bounds.max_tokens,
                max_cost_usd: bounds.max_cost_nano.map(|nano| nano as f64 / 1e9),
            },
            on: bounds.on.as_str(),
            spent: self.spent(bounds, canary).map(|spent| spent.bound),
        }
    }

    /// For records.
    #[must_use]
    pub fn numbers(&self) -> crate::rollout::Exposed {
        crate::rollout::Exposed { users: self.users.count(), requests: self.requests, cost_nano: self.cost_nano }
    }

    /// What must survive a restart, as text: three numbers and the registers.
    #[must_use]
    pub fn text(&self, canary: &Recorder) -> String {
        format!("{} {} {} {}", self.requests, self.cost_nano, self.tokens(canary), self.users.text())
    }

    /// What [`Seen::text`] wrote, counted on from here; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str, canary: &Recorder) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let mut number = || words.next()?.parse().ok();
        let (requests, cost_nano, kept) = (number()?, number()?, number()?);
        let users = Distinct::parse(words.next()?)?;
        Some(Self { users, requests, cost_nano, tokens: kept, since: canary.tokens_all() })
    }
}

/// The verdict under a spent budget: nothing advances, whatever is proven.
#[must_use]
pub fn held(verdict: Verdict, spent: Option<&Spent>) -> Verdict {
    let Some(spent) = spent else { return verdict };
    let last = spent.missing();
    match verdict {
        Verdict::StepBack { .. } | Verdict::Rollback { .. } => verdict,
        Verdict::Advance { .. } => Verdict::Hold { reason: last.to_string(), missing: vec![last] },
        Verdict::Hold { mut missing, reason } => {
            let reason = if reason.is_empty() { last.to_string() } else { format!("{last}; {reason}") };
            missing.push(last);
            Verdict::Hold { missing, reason }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Answer, Observation, Recorders};
    use crate::names::{Arm, RolloutName, VersionName};

    fn recorder() -> std::sync::Arc<Recorder> {
        let recorders = Recorders::new(1);
        recorders.slot(&RolloutName::new("chat"), Arm::Canary, &VersionName::new("b"))
    }

    fn generate(canary: &Recorder, input: u64, output: u64) {
        let answer = Answer { tokens_all: input + output, ..Answer::default() };
        canary.observe(0, &Observation { answer, ..Observation::default() });
    }

    #[test]
    fn tokens_count_from_the_release_on_and_across_restarts() {
        let canary = recorder();
        generate(&canary, 1_000, 1_000);
        let mut seen = Seen::new(&canary);
        assert_eq!(seen.tokens(&canary), 0, "the same version was tried before");
        generate(&canary, 30, 12);
        seen.requests = 5;
        seen.cost_nano = 6;
        (0..100).for_each(|n| seen.users.add(n));
        let kept = seen.text(&canary);
        let fresh = recorder();
        generate(&fresh, 500, 0);
        let back = Seen::parse(&kept, &fresh).unwrap();
        assert_eq!((back.tokens(&fresh), back.requests, back.cost_nano), (42, 5, 6));
        assert_eq!(back.users.count(), seen.users.count());
        assert!(Seen::parse(&kept[..kept.len() - 1], &fresh).is_none());
    }

    #[test]
    fn each_bound_is_reached_by_its_own_count() {
        let canary = recorder();
        let mut seen = Seen { requests: 10, cost_nano: 2_500_000_000, ..Seen::default() };
        seen.users.add(1);
        generate(&canary, 70, 30);
        let bound =
            |exposure: Exposure| seen.spent(&exposure, &canary).map(|spent| (spent.bound, spent.have, spent.most));
        let none = Exposure::default();
        assert_eq!(bound(none), None);
        assert_eq!(bound(Exposure { max_users: Some(1), ..none }), Some(("max_users", 1.0, 1.0)));
        assert_eq!(bound(Exposure { max_users: Some(2), ..none }), None);
        assert_eq!(bound(Exposure { max_requests: Some(10), ..none }), Some(("max_requests", 10.0, 10.0)));
        assert_eq!(bound(Exposure { max_tokens: Some(100), ..none }), Some(("max_tokens", 100.0, 100.0)));
        assert_eq!(bound(Exposure { max_tokens: Some(101), ..none }), None);
        assert_eq!(bound(Exposure { max_cost_nano: Some(2_000_000_000), ..none }), Some(("max_cost", 2.5, 2.0)));
    }

    #[test]
    fn a_spent_budget_holds_what_is_proven_and_rolls_back_what_is_worse() {
        let spent = Spent { bound: "max_users", have: 5.0, most: 5.0 };
        let advance = Verdict::Advance { reason: "proven".to_owned() };
        assert_eq!(held(advance.clone(), None), advance);
        let Verdict::Hold { reason, missing } = held(advance, Some(&spent)) else { panic!("it advances") };
        assert_eq!((reason.as_str(), missing.len()), ("exposure.max_users: 5 of 5 spent", 1));
        let worse = Verdict::Rollback { rule: "r".to_owned(), reason: "worse".to_owned() };
        assert_eq!(held(worse.clone(), Some(&spent)), worse);
    }
}
