//! The choice: latch, then cohort, then bucket. One pure function of a table and the facts of a request.

use super::bucket::Bucket;
use super::cohort::{Ask, Cohort, CohortTo};
use super::unit::{Seed, Unit};
use super::weight::Weight;
use crate::names::Arm;

/// Why a request went where it went: the `Serin-Why` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Drawn by the bucket.
    Bucket,
    /// A cohort names the arm.
    Cohort,
    /// A stored assignment.
    Pin,
    /// A signed override.
    Override,
    /// The rollout is latched: stable for everybody.
    Latched,
    /// Stable answered because the canary could not.
    Fallback,
    /// No unit was found: stable, outside the gates.
    Unidentified,
}

impl Why {
    /// The word in the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::Bucket => "bucket",
            Why::Cohort => "cohort",
            Why::Pin => "pin",
            Why::Override => "override",
            Why::Latched => "latched",
            Why::Fallback => "fallback",
            Why::Unidentified => "unidentified",
        }
    }

    /// Position in per-why tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Which cohorts are open to the canary now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OpenCohorts {
    /// None: the rollout is idle or latched; everybody named "canary" goes to stable.
    #[default]
    None,
    /// All but these, which a later stage of the plan opens (`cohort_first`).
    AllBut(Vec<String>),
}

impl OpenCohorts {
    fn is_open(&self, name: &str) -> bool {
        match self {
            OpenCohorts::None => false,
            OpenCohorts::AllBut(closed) => !closed.iter().any(|n| n == name),
        }
    }
}

/// What the choice needs of a rollout. Part of the snapshot: immutable.
#[derive(Clone, Debug)]
pub struct Table {
    /// Seed of the release.
    pub seed: Seed,
    /// The canary's share.
    pub weight: Weight,
    /// Whether a baseline slice is marked.
    pub baseline: bool,
    /// Set by a rollback: everybody goes to stable.
    pub latched: bool,
    /// In order.
    pub cohorts: std::sync::Arc<[Cohort]>,
    /// Which of them may send to the canary.
    pub open: OpenCohorts,
}

/// Where one request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The arm.
    pub arm: Arm,
    /// The reason.
    pub why: Why,
    /// Placed by the bucket, so it enters the comparative gates.
    pub drawn: bool,
    /// The cohort that decided, as an index into the table.
    pub cohort: Option<u16>,
}

impl Choice {
    const fn to(arm: Arm, why: Why, drawn: bool) -> Self {
        Self { arm, why, drawn, cohort: None }
    }
}

/// Decides. Latch beats all; then the first matching cohort; then the bucket against the weight.
#[must_use]
pub fn choose(table: &Table, unit: Option<Unit<'_>>, ask: &dyn Ask) -> Choice {
    if table.latched {
        return Choice::to(Arm::Stable, Why::Latched, false);
    }
    for (index, cohort) in table.cohorts.iter().enumerate() {
        if cohort.matches(ask) {
            let index = u16::try_from(index).ok();
            return Choice { cohort: index, ..in_cohort(table, cohort, unit) };
        }
    }
    match unit {
        Some(unit) => Choice::to(Bucket::of(unit, table.seed).arm(table.weight, table.baseline), Why::Bucket, true),
        None => Choice::to(Arm::Stable, Why::Unidentified, false),
    }
}

fn in_cohort(table: &Table, cohort: &Cohort, unit: Option<Unit<'_>>) -> Choice {
    let open = table.open.is_open(&cohort.name);
    match (cohort.to, unit) {
        (CohortTo::Stable, _) => Choice::to(Arm::Stable, Why::Cohort, false),
        (CohortTo::Canary, _) => Choice::to(if open { Arm::Canary } else { Arm::Stable }, Why::Cohort, false),
        (CohortTo::Weight(weight), Some(unit)) if open => {
            // Drawn, but with another probability than the rest: compared within the cohort only, which the judge
            // does not do yet; so it counts in metrics, limits and the breaker, not in the comparative gates.
            Choice::to(Bucket::of(unit, table.seed).arm(weight, false), Why::Cohort, false)
        }
        (CohortTo::Weight(_), _) => Choice::to(Arm::Stable, Why::Cohort, false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cohort::{Condition, Subject, Test};
    use super::*;
    use std::net::IpAddr;

    struct Caller<'a>(Option<&'a str>, &'a [(&'a str, &'a str)]);
    impl Ask for Caller<'_> {
        fn header(&self, name: &http::HeaderName) -> Option<&str> {
            self.1.iter().find(|(k, _)| name == *k).map(|(_, v)| *v)
        }
        fn path(&self) -> &str {
            "/v1/chat/completions"
        }
        fn ip(&self) -> IpAddr {
            IpAddr::from([10, 0, 0, 7])
        }
        fn unit(&self) -> Option<&str> {
            self.0
        }
    }

    fn table(weight: f64) -> Table {
        let header = http::HeaderName::from_static("x-org");
        let when = vec![Condition { subject: Subject::Header(header), test: Test::Is(vec!["acme".to_owned()]) }];
        let office = vec![Condition { subject: Subject::Ip, test: Test::Within(vec!["10.9.0.0/16".parse().unwrap()]) }];
        let cohorts = vec![
            Cohort { name: "internal".into(), when, to: CohortTo::Canary },
            Cohort { name: "office".into(), when: office, to: CohortTo::Stable },
        ];
        Table {
            seed: Seed::derive(b"s", "bucket", "chat", "b"),
            weight: Weight::from_percent(weight).unwrap(),
            baseline: true,
            latched: false,
            cohorts: cohorts.into(),
            open: OpenCohorts::AllBut(Vec::new()),
        }
    }

    fn go(table: &Table, unit: Option<&str>, headers: &[(&str, &str)]) -> (Arm, Why) {
        let choice = choose(table, unit.and_then(|u| Unit::new(u.as_bytes())), &Caller(unit, headers));
        (choice.arm, choice.why)
    }

    #[test]
    fn the_order_is_latch_cohort_bucket() {
        let full = table(100.0);
        assert_eq!(go(&full, Some("u"), &[]), (Arm::Canary, Why::Bucket));
        assert_eq!(go(&full, None, &[]), (Arm::Stable, Why::Unidentified));
        let none = table(0.0);
        assert_eq!(go(&none, Some("u"), &[]), (Arm::Stable, Why::Bucket));
        assert_eq!(go(&none, None, &[("x-org", "acme")]), (Arm::Canary, Why::Cohort));
        let closed = Table { open: OpenCohorts::None, ..none };
        assert_eq!(go(&closed, None, &[("x-org", "acme")]), (Arm::Stable, Why::Cohort));
        let latched = Table { latched: true, ..full };
        assert_eq!(go(&latched, Some("u"), &[("x-org", "acme")]), (Arm::Stable, Why::Latched));
    }

    #[test]
    fn a_release_draws_other_people_than_the_one_before() {
        let (a, b) = (Seed::derive(b"s", "bucket", "chat", "b"), Seed::derive(b"s", "bucket", "chat", "c"));
        let weight = Weight::from_percent(10.0).unwrap();
        let both = (0..100_000u32)
            .filter(|i| {
                let text = i.to_string();
                let unit = Unit::new(text.as_bytes()).unwrap();
                Bucket::of(unit, a).arm(weight, false) == Arm::Canary
                    && Bucket::of(unit, b).arm(weight, false) == Arm::Canary
            })
            .count();
        // 1 % of 100,000 by chance; five standard deviations are 157.
        assert!((843..=1_157).contains(&both), "{both}");
    }
}
