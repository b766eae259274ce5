//! Who gets what: exact shares, people who stay, releases that draw anew. A million units, and random schedules.

use proptest::prelude::*;
use serin::names::Arm;
use serin::split::{Bucket, Seed, Unit, Weight};

/// Units of a large service.
const UNITS: u32 = 1_000_000;

fn seed(salt: &str, version: &str) -> Seed {
    Seed::derive(salt.as_bytes(), "bucket", "chat", version)
}

/// The places of users `0..count`.
fn places(count: u32, seed: Seed) -> Vec<Bucket> {
    let mut name = Vec::with_capacity(16);
    (0..count)
        .map(|user| {
            name.clear();
            name.extend_from_slice(b"user-");
            name.extend_from_slice(user.to_string().as_bytes());
            Bucket::of(Unit::new(&name).unwrap(), seed)
        })
        .collect()
}

/// Whether `hits` of `n` draws of probability `p` are no rarer than about one in ten million (Chernoff's bound).
fn as_chance_says(hits: u32, n: u32, p: f64) -> bool {
    let x = f64::from(hits) / f64::from(n);
    let term = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a * (a / b).ln() };
    f64::from(n) * (term(x, p) + term(1.0 - x, 1.0 - p)) <= 16.0
}

fn count(places: &[Bucket], arm: Arm, weight: Weight) -> u32 {
    u32::try_from(places.iter().filter(|place| place.arm(weight, true) == arm).count()).unwrap()
}

#[test]
fn a_million_units_are_shared_out_within_binomial_bounds() {
    for salt in ["one", "two", "three"] {
        let places = places(UNITS, seed(salt, "b"));
        for percent in [0.001, 0.5, 1.0, 10.0, 50.0, 100.0] {
            let weight = Weight::from_percent(percent).unwrap();
            let control = weight.buckets().min(weight.complement().buckets());
            let [canary, baseline] = [Arm::Canary, Arm::Baseline].map(|arm| count(&places, arm, weight));
            assert!(as_chance_says(canary, UNITS, percent / 100.0), "salt {salt}, {percent} %: {canary} on the canary");
            assert!(as_chance_says(baseline, UNITS, f64::from(control) / 1e5), "salt {salt}, {percent} %: {baseline}");
            println!("salt {salt}: {percent} % of {UNITS}: canary {canary}, baseline {baseline}");
        }
        assert_eq!(count(&places, Arm::Canary, Weight::FULL), UNITS, "100 % is everybody");
        assert_eq!(count(&places, Arm::Canary, Weight::ZERO), 0, "0 % is nobody");
    }
}

/// Whether every one keeps his arm from one weight to a higher one: the canary's always, the baseline's up to 50 %.
fn moved(places: &[Bucket], from: Weight, to: Weight) -> u32 {
    let lost = |place: &&Bucket| match place.arm(from, true) {
        Arm::Canary => place.arm(to, true) != Arm::Canary,
        Arm::Baseline => to.buckets() <= 50_000 && place.arm(to, true) != Arm::Baseline,
        Arm::Stable => false,
    };
    u32::try_from(places.iter().filter(lost).count()).unwrap()
}

#[test]
fn a_million_units_keep_their_arm_at_every_raise() {
    let places = places(UNITS, seed("one", "b"));
    let steps = [0.001, 0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 99.0, 100.0].map(|p| Weight::from_percent(p).unwrap());
    for pair in steps.windows(2) {
        assert_eq!(moved(&places, pair[0], pair[1]), 0, "from {} to {}", pair[0], pair[1]);
    }
}

#[test]
fn two_salts_or_two_releases_overlap_as_chance_says() {
    let first = places(UNITS, seed("one", "b"));
    for (salt, version) in [("two", "b"), ("one", "c")] {
        let second = places(UNITS, seed(salt, version));
        for percent in [0.5, 1.0, 10.0, 50.0] {
            let weight = Weight::from_percent(percent).unwrap();
            let on = |place: &Bucket| place.arm(weight, true) == Arm::Canary;
            let both = first.iter().zip(&second).filter(|(a, b)| on(a) && on(b)).count();
            let both = u32::try_from(both).unwrap();
            let p = percent / 100.0;
            assert!(as_chance_says(both, UNITS, p * p), "salt {salt}, version {version}, {percent} %: {both} in both");
            println!("salt {salt}, version {version}, {percent} %: {both} units in both, {:.0} expected", p * p * 1e6);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any salt, any users, any rising schedule.
    #[test]
    fn any_rising_schedule_moves_nobody_and_gives_exact_shares(
        salt in ".{0,12}",
        version in "[a-z0-9.-]{1,12}",
        mut steps in proptest::collection::vec(0u32..=100_000, 2..12),
    ) {
        const SOME: u32 = 20_000;
        steps.sort_unstable();
        let places = places(SOME, seed(&salt, &version));
        for pair in steps.windows(2) {
            let [from, to] = [pair[0], pair[1]].map(Weight::from_buckets);
            prop_assert_eq!(moved(&places, from, to), 0, "from {} to {}", from, to);
            let canary = count(&places, Arm::Canary, to);
            prop_assert!(as_chance_says(canary, SOME, to.percent() / 100.0), "{} at {}", canary, to);
        }
    }
}
