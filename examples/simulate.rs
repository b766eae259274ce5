//! Makes the tables of `docs/evaluator.md`: `cargo run --profile sim --example simulate -- TABLE [--full] [--seed N]`.
//!
//! TABLE is `aa` (healthy canaries), `regressions`, `outage` (answers until a dead canary is cut), `promotion`, `plan`, or `joint`
//! (what `serin plan` foretells, beside what came).
//! `--sample`: the traffic of the sample traces instead of the heavier one of the simulator; `--onset SECONDS`: of faults,
//! after the stage began; `--alone`: neither rivals nor the judge that is told the onset, which take most of the time.

#![expect(clippy::print_stdout, reason = "a tool prints")]

#[path = "../tests/sim/mod.rs"]
mod sim;

use std::sync::Arc;
use std::time::Duration;

use serin::judge::Policy;
use sim::exact::{quantile, upper_bound};
use sim::foretold::{self, CASES};
use sim::harm::Harm;
use sim::kinds::{KINDS, SAMPLE, STEADY, Traffic};
use sim::run::{POLICY, Result as Outcome, Trial, many};

/// The columns of the rivals.
const RIVALS: [&str; 3] = ["thresholds", "3 of 5 intervals", "Mann-Whitney"];

struct Options {
    full: bool,
    seed: u64,
    only: Option<String>,
    threads: usize,
    length: f64,
    stages: Option<usize>,
    base: Traffic,
    onset: f64,
    alone: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let table = arguments.next().unwrap_or_default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        full: false,
        seed: 1,
        only: None,
        threads,
        length: 3_600.0,
        stages: None,
        base: STEADY,
        onset: 600.0,
        alone: false,
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--full" => options.full = true,
            "--seed" => options.seed = arguments.next().ok_or("--seed wants a number")?.parse()?,
            "--length" => options.length = arguments.next().ok_or("--length wants seconds")?.parse()?,
            "--stages" => options.stages = Some(arguments.next().ok_or("--stages wants a number")?.parse()?),
            "--sample" => options.base = SAMPLE,
            "--alone" => options.alone = true,
            "--onset" => options.onset = arguments.next().ok_or("--onset wants seconds")?.parse()?,
            "--threads" => options.threads = arguments.next().ok_or("--threads wants a number")?.parse()?,
            "--only" => options.only = arguments.next(),
            other => {
                let known =
                    "--full, --sample, --alone, --seed N, --stages N, --threads N, --length S, --onset S, --only NAME";
                return Err(format!("{other}: {known} are known").into());
            }
        }
    }
    let policy = Arc::new(Policy::from_toml(POLICY)?);
    match table.as_str() {
        "aa" => aa(&policy, &options),
        "regressions" => regressions(&policy, &options),
        "outage" => outage(&policy, &options),
        "promotion" => promotion(&policy, &options),
        "joint" => joint(&policy, &options),
        "plan" => plan(&options),
        _ => return Err("name a table: aa, regressions, outage, promotion, plan, joint".into()),
    }
    Ok(())
}

const TRIAL: Trial = Trial {
    traffic: STEADY,
    harm: Harm::NONE,
    history: 900.0,
    onset: 600.0,
    length: 3_600.0,
    rivals: false,
    told: None,
    until_verdict: false,
};

fn wanted(options: &Options, name: &str) -> bool {
    options.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
}

/// Healthy canaries: whole stages of an hour.
fn aa(policy: &Arc<Policy>, options: &Options) {
    let stages = options.stages.unwrap_or(if options.full { 300 } else { 80 });
    println!(
        "| traffic | what it is | stages | rolled back | 95 % upper bound | passed by the hour | thresholds | k of n | Mann-Whitney |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let (mut all, mut fallen_all) = (0, 0);
    for kind in KINDS.iter().filter(|kind| wanted(options, kind.name)) {
        let trial = Trial { traffic: *kind, onset: 0.0, rivals: true, length: options.length, ..TRIAL };
        let results = many(policy, &trial, options.seed, stages, options.threads);
        let fallen: Vec<&Outcome> = results.iter().filter(|result| result.rollback.is_some()).collect();
        let passed = results.iter().filter(|result| result.pass.is_some()).count();
        let rivals: [usize; 3] = std::array::from_fn(|i| results.iter().filter(|r| r.rivals[i].is_some()).count());
        println!(
            "| {} | {} | {stages} | {} | {:.1} % | {passed} | {} | {} | {} |",
            kind.name,
            kind.about,
            fallen.len(),
            100.0 * upper_bound(fallen.len() as u32, stages as u32, 0.95),
            rivals[0],
            rivals[1],
            rivals[2],
        );
        for result in &fallen {
            let at = result.rollback.unwrap_or_default();
            println!("<!-- seed {}: {} at {at:.2} s: {} -->", result.seed, result.rule, result.reason);
        }
        all += stages;
        fallen_all += fallen.len();
    }
    println!(
        "\n{fallen_all} of {all} healthy canaries rolled back: {:.2} %, at most {:.2} % (exact, 95 %).",
        100.0 * fallen_all as f64 / all as f64,
        100.0 * upper_bound(fallen_all as u32, all as u32, 0.95)
    );
}

/// A fault, on which traffic, which rule knows it best, and what evaluator.md states (seconds; 0: nothing).
struct Case {
    name: &'static str,
    harm: Harm,
    traffic: Traffic,
    told: &'static str,
    stated: f64,
    onset: f64,
}

fn cases(base: Traffic, onset: f64) -> Vec<Case> {
    let case = |name, harm, told, stated| Case { name, harm, traffic: base, told, stated, onset };
    let half = Traffic { rate: 40.0, weight: 0.5, ..base };
    let large = Traffic { rate: 60.0, weight: 0.5, ..base };
    let tenth = Traffic { rate: 300.0, weight: 0.1, users: 5 * base.users, ..base };
    let one = Traffic { rate: 100.0, weight: 0.01, users: 6_000, ..base };
    let two = Traffic { rate: 8.0, weight: 0.25, ..base };
    let none = Harm::NONE;
    let outage = Harm { outage: true, ..none };
    let on = |traffic, case: Case| Case { traffic, ..case };
    vec![
        on(half, case("total outage, 20 of 40 requests/s", outage, "errors", 1.25)),
        on(one, case("total outage, 1 % of 100 requests/s", outage, "errors", 0.0)),
        on(two, Case { onset: 10_800.0, ..case("total outage after 3 h, 2 of 8 requests/s", outage, "errors", 6.0) }),
        case("hang, 5 of 20 requests/s (and below)", Harm { hang: true, ..none }, "stall", 11.0),
        case("half the calls fail", Harm { errors: 0.5, ..none }, "errors", 15.0),
        case("errors +5 pp, 5 of 20 requests/s", Harm { errors: 0.05, ..none }, "errors", 0.0),
        case("errors +2 pp, 5 of 20 requests/s", Harm { errors: 0.02, ..none }, "errors", 0.0),
        on(large, case("errors +2 pp, 30 of 60 requests/s", Harm { errors: 0.02, ..none }, "errors", 0.0)),
        on(large, case("errors +1 pp, 30 of 60 requests/s", Harm { errors: 0.01, ..none }, "errors", 0.0)),
        on(large, case("errors +0.5 pp, 30 of 60 requests/s", Harm { errors: 0.005, ..none }, "errors", 0.0)),
        on(tenth, case("errors +2 pp, 30 of 300 requests/s", Harm { errors: 0.02, ..none }, "errors", 112.0)),
        on(tenth, case("errors +1 pp, 30 of 300 requests/s", Harm { errors: 0.01, ..none }, "errors", 231.0)),
        on(tenth, case("errors +0.5 pp, 30 of 300 requests/s", Harm { errors: 0.005, ..none }, "errors", 1_007.0)),
        case("90 % errors of an eighth of the users", Harm { errors: 0.9, subset: 0.125, ..none }, "errors", 51.0),
        case("latency x 1.5", Harm { latency: 1.5, ..none }, "latency-p50", 254.0),
        case("latency x 1.25", Harm { latency: 1.25, ..none }, "latency-p50", 419.0),
        on(half, case("latency x 1.2, 20 of 40 requests/s", Harm { latency: 1.2, ..none }, "latency-p50", 0.0)),
        on(half, case("p99 x 1.5, 20 of 40 requests/s", Harm { latency_tail: 1.5, ..none }, "latency-p99", 0.0)),
        case("slowest 5 % x 4", Harm { latency_tail: 4.0, ..none }, "latency-p99", 214.0),
        case("TTFT x 2", Harm { ttft: 2.0, ..none }, "ttft-p95", 94.0),
        case("10 % empty answers", Harm { empty: 0.1, ..none }, "empty", 0.0),
        case("30 % empty answers", Harm { empty: 0.3, ..none }, "empty", 37.0),
        case("tokens x 2", Harm { tokens: 2.0, ..none }, "tokens-p50", 0.0),
        case("cost x 2", Harm { cost: 2.0, ..none }, "cost-p99", 179.0),
        case("cost of the dearest 5 % x 4", Harm { cost_tail: 4.0, ..none }, "cost-p99", 126.0),
        on(half, case("quality -5 %, 20 of 40 requests/s", Harm { quality: 0.95, ..none }, "quality", 0.0)),
        case("quality -10 %", Harm { quality: 0.9, ..none }, "quality", 0.0),
        case("quality -12 %", Harm { quality: 0.88, ..none }, "quality", 265.0),
        case("quality -20 %", Harm { quality: 0.8, ..none }, "quality", 375.0),
        case("one safety violation", Harm { unsafe_once: true, ..none }, "safety", 0.0),
        case(
            "slow leak: +10 pp errors, latency x 2 over 30 min",
            Harm { errors: 0.1, latency: 2.0, grows_s: 1_800.0, ..none },
            "errors",
            0.0,
        ),
        Case { onset: 7_200.0, ..case("errors +5 pp after 2 h", Harm { errors: 0.05, ..none }, "errors", 0.0) },
    ]
}

fn times(mut all: Vec<f64>, of: usize) -> String {
    all.sort_by(f64::total_cmp);
    all.resize(of, f64::INFINITY);
    let show = |q: f64| match quantile(&all, q) {
        t if !t.is_finite() => "never".to_owned(),
        t if t < 10.0 => format!("{t:.2}"),
        t => format!("{t:.0}"),
    };
    format!("{} / {}", show(0.5), show(0.95))
}

fn middle(results: &[Outcome], of: impl Fn(&Outcome) -> usize) -> usize {
    let mut all: Vec<usize> = results.iter().map(of).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

/// Faults: how soon each is found, and what it harmed until then.
fn regressions(policy: &Arc<Policy>, options: &Options) {
    let stages = options.stages.unwrap_or(if options.full { 100 } else { 30 });
    println!(
        "Median / 95 % delay in seconds from the onset; answers and users harmed by then (median); {stages} stages each.\n"
    );
    if options.alone {
        println!("| fault | serin | stated | early | by | answers | users |");
        println!("|---|---|---|---|---|---|---|");
    } else {
        println!("| fault | serin | stated | early | by | answers | users | told the onset | {} |", RIVALS.join(" | "));
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
    }
    let (mut product, mut compared, mut stated_product, mut stated_compared) = (0.0, 0, 0.0, 0);
    for case in cases(options.base, options.onset).iter().filter(|case| wanted(options, case.name)) {
        let trial = Trial {
            traffic: case.traffic,
            harm: case.harm,
            onset: case.onset,
            rivals: !options.alone,
            told: (!options.alone).then_some(case.told),
            ..TRIAL
        };
        let results = many(policy, &trial, options.seed, stages, options.threads);
        let early = results.iter().filter(|r| r.rollback.is_some_and(|at| at < 0.0)).count();
        let delays: Vec<f64> = results.iter().filter_map(|r| r.rollback).collect();
        let told: Vec<f64> = results.iter().filter_map(|r| r.told).collect();
        let rival = |i: usize| {
            let late: Vec<f64> = results.iter().filter_map(|r| r.rivals[i]).filter(|at| *at > 0.0).collect();
            let early = results.iter().filter(|r| r.rivals[i].is_some_and(|at| at <= 0.0)).count();
            let kept = results.len() - early;
            let answers: Vec<Outcome> =
                results.iter().filter(|r| r.rivals[i].is_none_or(|at| at > 0.0)).cloned().collect();
            let harmed = middle(&answers, |r| r.rival_answers[i]);
            if kept == 0 {
                format!("all {early} early")
            } else {
                format!("{}, {harmed} ({early} early)", times(late, kept))
            }
        };
        let mut by = std::collections::BTreeMap::new();
        results.iter().filter(|r| r.rollback.is_some()).for_each(|r| *by.entry(r.rule.clone()).or_insert(0) += 1);
        let mut by: Vec<_> = by.into_iter().collect();
        by.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let by: Vec<String> = by.into_iter().take(3).map(|(rule, count)| format!("{rule} {count}")).collect();
        let stated = if case.stated > 0.0 { format!("{}", case.stated) } else { String::new() };
        print!(
            "| {} | {} | {stated} | {early} | {} | {} | {} |",
            case.name,
            times(delays.clone(), results.len()),
            by.join(", "),
            middle(&results, |r| r.answers),
            middle(&results, |r| r.users),
        );
        if !options.alone {
            print!(" {} | {} | {} | {} |", times(told.clone(), results.len()), rival(0), rival(1), rival(2));
        }
        println!();
        let median = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted.resize(results.len(), f64::INFINITY);
            quantile(&sorted, 0.5)
        };
        let (own, best) = (median(&delays), median(&told));
        if own.is_finite() && best.is_finite() && own > 0.0 {
            product += (own / best).ln();
            compared += 1;
        }
        if own.is_finite() && own > 0.0 && case.stated > 0.0 {
            stated_product += (own / case.stated).ln();
            stated_compared += 1;
        }
    }
    let mean = |product: f64, of: i32| (product / f64::from(of)).exp();
    println!();
    if !options.alone {
        println!(
            "Median delay over that of the judge told the onset, geometric mean of {compared}: {:.2}.",
            mean(product, compared)
        );
    }
    println!(
        "Median delay over the stated one, geometric mean of {stated_compared}: {:.2}.",
        mean(stated_product, stated_compared)
    );
}

/// Dead canaries: time and failed answers until the cut, at many rates.
fn outage(policy: &Arc<Policy>, options: &Options) {
    let stages = options.stages.unwrap_or(if options.full { 200 } else { 40 });
    println!(
        "| canary requests/s | of | failures | delay s, median / 95 % | failed by then, median / most | and in flight, median / 95 % / most | by |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (rate, weight, users) in
        [(4.0, 0.5, 600), (20.0, 0.05, 2_000), (40.0, 0.5, 600), (200.0, 0.1, 2_000), (200.0, 0.5, 2_000)]
    {
        for fast in [1.0, 0.5] {
            let traffic = Traffic { rate, weight, users, fast, ..options.base };
            let harm = Harm { outage: true, ..Harm::NONE };
            let trial = Trial { traffic, harm, onset: 120.0, length: 300.0, history: 300.0, ..TRIAL };
            let results = many(policy, &trial, options.seed, stages, options.threads);
            let delays = results.iter().filter_map(|r| r.rollback).collect();
            let mut answers: Vec<f64> = results.iter().map(|r| r.answers as f64).collect();
            answers.sort_by(f64::total_cmp);
            let mut known: Vec<f64> = results.iter().map(|r| r.known as f64).collect();
            known.sort_by(f64::total_cmp);
            let breaker = results.iter().filter(|r| r.rule == "breaker").count();
            println!(
                "| {:.0} | {rate:.0} | {} | {} | {:.0} / {:.0} | {:.0} / {:.0} / {:.0} | breaker {breaker} of {stages} |",
                rate * weight,
                if fast == 1.0 { "at once" } else { "half of them after 5 to 30 s" },
                times(delays, results.len()),
                quantile(&known, 0.5),
                quantile(&known, 1.0),
                quantile(&answers, 0.5),
                quantile(&answers, 0.95),
                quantile(&answers, 1.0),
            );
        }
    }
}

/// What `plan` foretells of one gate alone, and what the judge then needed.
fn plan(options: &Options) {
    let stages = options.stages.unwrap_or(if options.full { 400 } else { 100 });
    println!("Seconds from the stage's start by which 80 % and 95 % of {stages} stages were over.\n");
    println!("| gate alone | foretold 80 % / 95 % | simulated | foretold over simulated |");
    println!("|---|---|---|---|");
    for case in CASES.into_iter().filter(|case| wanted(options, case.name)) {
        let Some(row) = foretold::row(case, options.seed, 7, stages, options.threads) else { continue };
        let ([early, late], [soon, last]) = (row.foretold, row.simulated);
        println!(
            "| {}: {} | {early:.0} / {late:.0} | {soon:.0} / {last:.0} | {:.2} / {:.2} |",
            case.gate,
            case.name,
            early / soon,
            late / last
        );
    }
}

/// The time in which `plan` says that every gate has its proof with 90 % chance together, and how many equal canaries had theirs by then.
fn joint(policy: &Arc<Policy>, options: &Options) {
    let stages = options.stages.unwrap_or(if options.full { 300 } else { 60 });
    let cases = [
        ("steady, 25 of 50/s", Traffic { rate: 50.0, weight: 0.5, ..STEADY }),
        ("like the samples, 25 of 50/s", Traffic { rate: 50.0, weight: 0.5, ..SAMPLE }),
        ("like the samples, 5,000 users, 10 of 100/s", Traffic { rate: 100.0, weight: 0.1, users: 5_000, ..SAMPLE }),
    ];
    println!("Equal canaries, ten rules, {stages} stages each; with the policy's least residence, and with none.\n");
    println!(
        "Expected: what the verdict said after 300 s, over what it then took (a tenth, half, nine tenths of the stages).\n"
    );
    println!("| traffic | residence s | all gates by, s | the slowest | promoted by then | rolled back | expected |");
    println!("|---|---|---|---|---|---|---|");
    for (name, traffic) in cases.into_iter().filter(|(name, _)| wanted(options, name)) {
        let (proven, slowest) = foretold::proofs(policy, traffic, 3_600.0, options.seed);
        for min_stage in [policy.min_stage, Duration::ZERO] {
            let least = min_stage.as_secs_f64().max(policy.min_requests as f64 / (traffic.rate * traffic.weight));
            let by = proven.max(least);
            let policy = Arc::new(Policy { min_stage, ..(**policy).clone() });
            let trial =
                Trial { traffic, harm: Harm::NONE, onset: 0.0, length: by.min(28_800.0), until_verdict: true, ..TRIAL };
            let results = many(&policy, &trial, options.seed, stages, options.threads);
            let promoted = results.iter().filter(|r| r.pass.is_some_and(|at| at <= by)).count();
            let fallen = results.iter().filter(|r| r.rollback.is_some()).count();
            let residence = min_stage.as_secs();
            for late in results.iter().filter(|r| r.pass.is_none() && r.rollback.is_none()) {
                println!("<!-- seed {}: {} -->", late.seed, late.missing);
            }
            let mut ratios: Vec<f64> =
                results.iter().filter_map(|r| Some(r.expected? / (r.pass? - 300.0).max(1.0))).collect();
            ratios.sort_by(f64::total_cmp);
            let expected: Vec<String> =
                [0.1, 0.5, 0.9].iter().map(|q| format!("{:.2}", quantile(&ratios, *q))).collect();
            let expected = if min_stage.is_zero() { expected.join(", ") } else { String::new() };
            println!(
                "| {name} | {residence} | {by:.0} | {} | {promoted} of {stages} | {fallen} | {expected} |",
                slowest
            );
        }
    }
}

/// Canaries that are worse by the rollback margin, and equal ones: how many are promoted, and when.
fn promotion(policy: &Arc<Policy>, options: &Options) {
    let stages = options.stages.unwrap_or(if options.full { 300 } else { 60 });
    let traffic = Traffic { rate: 50.0, weight: 0.5, ..options.base };
    let none = Harm::NONE;
    let worse = [
        ("equal", none),
        ("errors +0.5 pp", Harm { errors: 0.005, ..none }),
        ("p99 x 1.5", Harm { latency_tail: 1.5, ..none }),
        ("latency x 1.2", Harm { latency: 1.2, ..none }),
        ("TTFT x 1.2", Harm { ttft: 1.2, ..none }),
        ("tokens x 1.2", Harm { tokens: 1.2, ..none }),
        ("cost of the dearest 5 % x 1.5", Harm { cost_tail: 1.5, ..none }),
        ("quality -10 %", Harm { quality: 0.9, ..none }),
    ];
    println!("25 of 50 requests/s from the stage's start, three hours at most; {stages} stages each.\n");
    println!("| canary | promoted | 95 % upper bound | rolled back first | time to promotion, median / 95 % s |");
    println!("|---|---|---|---|---|");
    for (name, harm) in worse.into_iter().filter(|(name, _)| wanted(options, name)) {
        let trial = Trial { traffic, harm, onset: 0.0, length: 10_800.0, until_verdict: true, ..TRIAL };
        let results = many(policy, &trial, options.seed, stages, options.threads);
        let passes: Vec<f64> = results.iter().filter_map(|r| r.pass).collect();
        let promoted = passes.len();
        let fallen = results.iter().filter(|r| r.rollback.is_some() && r.pass.is_none()).count();
        println!(
            "| {name} | {promoted} | {:.1} % | {fallen} | {} |",
            100.0 * upper_bound(promoted as u32, stages as u32, 0.95),
            times(passes, results.len())
        );
    }
}
