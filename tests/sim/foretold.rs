//! What `plan` foretells beside what the judge then needs: one rule at a time, on simulated traffic.

use std::sync::Arc;
use std::time::Duration;

use serin::judge::forecast::{Assumed, Habit, forecast, is_proof};
use serin::judge::{Judge, Policy, Rule, Stage};
use serin::names::Mono;

use super::exact::quantile;
use super::harm::Harm;
use super::kinds::{STEADY, Traffic};
use super::run::{Trial, many};
use super::traffic::{Times, World};

/// Stable alone before a stage, and for how long it is watched for what users are like: seconds.
const HISTORY_S: f64 = 300.0;
const ALIKE_S: f64 = 7_200.0;

/// One comparison.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub traffic: Traffic,
    pub harm: Harm,
    /// The gate, and its margins where they are not its own.
    pub gate: &'static str,
    pub margins: Option<[f64; 2]>,
    /// Seconds in which it must be over.
    pub length: f64,
}

/// Seconds, with 80 % and 95 % chance: foretold, and simulated.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub foretold: [f64; 2],
    pub simulated: [f64; 2],
}

/// What is compared in the book; the first ones in CI too.
pub const CASES: [Case; 10] = {
    let none = Harm::NONE;
    let even = Traffic { rate: 20.0, weight: 0.5, users: 2_000, zipf: 0.5, error_spread: 0.0, ..STEADY };
    let sticky = Traffic { rate: 20.0, weight: 0.25, users: 1_000, ..STEADY };
    let large = Traffic { rate: 60.0, weight: 0.5, users: 2_000, ..STEADY };
    let errors = Some([0.005, 0.03]);
    [
        Case {
            name: "+3 pp errors, 10 of 20/s",
            traffic: even,
            harm: Harm { errors: 0.03, ..none },
            gate: "error_rate",
            margins: errors,
            length: 900.0,
        },
        Case {
            name: "equal, 10 of 20/s",
            traffic: even,
            harm: none,
            gate: "error_rate",
            margins: errors,
            length: 900.0,
        },
        Case {
            name: "+3 pp errors, 5 of 20/s, sticky",
            traffic: sticky,
            harm: Harm { errors: 0.03, ..none },
            gate: "error_rate",
            margins: errors,
            length: 1_800.0,
        },
        Case {
            name: "equal, 5 of 20/s, sticky",
            traffic: sticky,
            harm: none,
            gate: "error_rate",
            margins: errors,
            length: 1_800.0,
        },
        Case {
            name: "+1 pp errors, 30 of 60/s",
            traffic: large,
            harm: Harm { errors: 0.01, ..none },
            gate: "error_rate",
            margins: Some([0.001, 0.01]),
            length: 3_600.0,
        },
        Case {
            name: "equal, 30 of 60/s",
            traffic: large,
            harm: none,
            gate: "error_rate",
            margins: None,
            length: 3_600.0,
        },
        Case {
            name: "TTFT x 1.5, p95",
            traffic: sticky,
            harm: Harm { ttft: 1.5, ..none },
            gate: "ttft_p95",
            margins: Some([1.1, 1.5]),
            length: 1_800.0,
        },
        Case {
            name: "equal TTFT, p95",
            traffic: sticky,
            harm: none,
            gate: "ttft_p95",
            margins: Some([1.1, 1.5]),
            length: 1_800.0,
        },
        Case {
            name: "quality -10 %",
            traffic: large,
            harm: Harm { quality: 0.9, ..none },
            gate: "quality_mean",
            margins: None,
            length: 1_800.0,
        },
        Case {
            name: "equal quality",
            traffic: large,
            harm: none,
            gate: "quality_mean",
            margins: None,
            length: 1_800.0,
        },
    ]
};

/// As how many equal users these are, and the share of the heaviest that chance gave to the canary.
fn shares(traffic: Traffic) -> (f64, f64) {
    let shares: Vec<f64> = (1..=traffic.users).map(|rank| (rank as f64).powf(-traffic.zipf)).collect();
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
    let heaviest = (0..).zip(&shares).map(|(rank, share)| (1.0 - traffic.weight).powi(rank) * share / sum).sum();
    (sum * sum / squares, heaviest)
}

/// Runs one comparison; `populations`: forecast from so many traces, each of other users, of which the median counts.
pub fn row(case: Case, seed: u64, populations: u64, stages: usize, threads: usize) -> Option<Row> {
    let mut rule = Rule::gate(case.gate)?;
    if let Some([promote, rollback]) = case.margins {
        let margin = |of: serin::judge::Margin, by: f64| match of {
            serin::judge::Margin::Absolute(_) => serin::judge::Margin::Absolute(by),
            serin::judge::Margin::Relative(_) => serin::judge::Margin::Relative(by),
        };
        (rule.promote, rule.rollback) = (margin(rule.promote, promote), margin(rule.rollback, rollback));
    }
    let traffic = case.traffic;
    let mut policy = Policy { rules: vec![rule], min_requests: 0, min_users: 0.0, ..Policy::default() };
    policy.min_stage = Duration::ZERO;
    let (users, heaviest) = shares(traffic);
    let assumed = Assumed {
        rps: traffic.rate,
        weight: traffic.weight,
        users,
        heaviest,
        design_effect: 1.1,
        answer_s: if case.gate == "quality_mean" { 40.0 } else { 4.0 },
    };
    let policy = Arc::new(policy);
    let harmed = case.harm != Harm::NONE;
    let foretold = |seed: u64| {
        let habits = habits(&policy, traffic, HISTORY_S, ALIKE_S, seed);
        let of = forecast(&policy, Duration::from_secs(3_600), assumed, &habits).into_iter().next()?;
        let [some, most] = if harmed { of.rollback } else { of.promote };
        Some([some?, most?])
    };
    let foretold: Vec<[f64; 2]> = (seed..seed + populations).filter_map(foretold).collect();
    let foretold = [0, 1].map(|i| {
        let mut all: Vec<f64> = foretold.iter().map(|of| of[i]).collect();
        all.sort_by(f64::total_cmp);
        quantile(&all, 0.5)
    });
    let trial = Trial {
        traffic,
        harm: case.harm,
        history: HISTORY_S,
        onset: 0.0,
        length: case.length,
        rivals: false,
        told: None,
        until_verdict: true,
    };
    let results = many(&policy, &trial, seed, stages, threads);
    let mut times: Vec<f64> = results.iter().filter_map(|r| if harmed { r.rollback } else { r.pass }).collect();
    times.sort_by(f64::total_cmp);
    times.resize(stages, f64::INFINITY);
    let at = |power| quantile(&times, power);
    Some(Row { foretold, simulated: [at(0.8), at(0.95)] })
}

/// What stable alone is seen to do in `stage_s` of a stage after `history_s` before it, as `serin plan --trace` sees it.
fn habits(policy: &Arc<Policy>, traffic: Traffic, history_s: f64, stage_s: f64, seed: u64) -> Vec<Habit> {
    let times = Times { stage: f64::INFINITY, onset: f64::INFINITY };
    let mut world = World::new(traffic, Harm::NONE, times, seed, 0);
    let mut judge = Judge::new(Arc::clone(policy), Mono(0));
    while world.now() < history_s + stage_s {
        world.step().facts.iter().for_each(|fact| judge.observe(fact));
        let at = Mono::from_seconds(world.now());
        if world.now().fract() == 0.0 {
            judge.tick(at);
        }
        if world.now() == history_s {
            judge.enter_stage(Stage { weight: 0.01, residence: Duration::ZERO, samples: 0 }, at);
        }
    }
    let (users, _) = shares(traffic);
    let habits = judge.habits(traffic.rate * stage_s / users).into_iter().zip(&policy.rules);
    habits.map(|(habit, rule)| habit.unwrap_or_else(|| Habit::assumed(rule))).collect()
}

/// What `plan` says of every rule of a policy at this traffic, as `serin plan --trace` would from twice `half_s` of stable
/// alone: the time at which all gates of an equal canary are proven, with 90 % chance together, and the slowest of them.
/// Infinite where one never is.
pub fn proofs(policy: &Arc<Policy>, traffic: Traffic, half_s: f64, seed: u64) -> (f64, String) {
    let (users, heaviest) = shares(traffic);
    let habits = habits(policy, traffic, half_s, half_s, seed);
    let assumed =
        Assumed { rps: traffic.rate, weight: traffic.weight, users, heaviest, design_effect: 1.1, answer_s: 5.0 };
    let foretold = forecast(policy, policy.min_stage, assumed, &habits);
    let proofs = policy.rules.iter().zip(foretold).filter(|(rule, _)| is_proof(rule));
    let times = proofs.map(|(rule, of)| (of.joint.unwrap_or(f64::INFINITY), rule.name.to_string()));
    times.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default()
}
