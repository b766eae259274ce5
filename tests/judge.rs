//! What must hold of the judge: its formulas agree with scipy's, a restart at any tick and order within a tick change nothing.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serin::judge::{Fact, Judge, Lack, Metric, Policy, Rule, Stage, Verdict, trace::Line};
use serin::names::{Arm, Mono};
use serin::stats::proportion::{self, Line as Null, Pair, Weights};
use serin::stats::{cluster, mean};

const POLICY: &str = include_str!("fixtures/traces/policy.toml");
const ANSWERS: &str = include_str!("fixtures/stats/known_answers.json");

fn near(got: f64, expect: f64, what: &str) {
    assert!((got - expect).abs() <= 1e-8 * (1.0 + expect.abs()), "{what}: {got} instead of {expect}");
}

/// Calls `check` with each known answer of a kind; its argument reads a number by name.
fn known(kind: &str, check: impl Fn(&dyn Fn(&str) -> f64, &Value)) {
    let all: Value = serde_json::from_str(ANSWERS).unwrap();
    let rows = all[kind].as_array().unwrap();
    assert!(rows.len() >= 20, "{kind}");
    for row in rows {
        check(&|name| row[name].as_f64().unwrap(), row);
    }
}

#[test]
fn the_nearest_null_and_its_weights_are_those_of_scipy() {
    known("nulls", |of, row| {
        let alternative = Pair { stable: of("p_s"), canary: of("p_c") };
        let line = Null { stable: of("rho_s"), canary: of("rho_c"), delta: of("delta"), share: of("share") };
        let null = proportion::nearest_null(alternative, line);
        near(null.stable, of("q_s"), "q_s");
        near(null.canary, of("q_c"), "q_c");
        let weights = Weights::new(alternative, null);
        let got = [weights.canary_bad, weights.canary_good, weights.stable_bad, weights.stable_good];
        for (got, expect) in got.into_iter().zip(row["weights"].as_array().unwrap()) {
            near(got, expect.as_f64().unwrap(), "weight");
        }
    });
}

#[test]
fn divergences_shares_and_mixtures_are_those_of_scipy() {
    known("divergences", |of, _| near(proportion::divergence(of("a"), of("p")), of("value"), "KL"));
    known("costs", |of, _| near(proportion::share_cost(of("omega"), of("odds")), of("cost"), "cost"));
    known("mixes", |of, row| {
        let list = |name: &str| row[name].as_array().unwrap().iter().filter_map(Value::as_f64).collect::<Vec<f64>>();
        near(proportion::log_mix_exp(&list("logs"), &list("shares")), of("value"), "mixture");
    });
}

#[test]
fn rates_told_from_log_ratios_and_the_ratios_of_counts_are_those_of_scipy() {
    known("rates", |of, _| {
        let [p, q] = proportion::rates(of("bad"), of("good")).unwrap();
        assert!((p - of("p")).abs() < 1e-6 * of("p") && (q - of("q")).abs() < 1e-6 * of("q"), "{p} {q}");
        near(proportion::log_ratio(of("k"), of("rest"), of("p"), of("q")), of("ratio"), "log ratio");
    });
    assert_eq!(proportion::rates(0.1, 0.2), None);
}

#[test]
fn evidence_about_means_is_that_of_scipy() {
    known("means", |of, _| {
        let got = mean::log_evidence(of("s"), of("v"), of("b"));
        assert!((got - of("log")).abs() < 1e-6, "{got} instead of {}", of("log"));
    });
}

#[test]
fn offsets_and_design_effects_are_those_of_scipy() {
    known("users", |of, _| {
        let kappa = cluster::shrinkage(of("deviation"), of("variance"), of("squared"));
        near(kappa, of("kappa"), "kappa");
        near(cluster::offset(of("bad"), of("expected"), kappa), of("offset"), "offset");
    });
    known("effects", |of, _| near(cluster::design_effect(of("squares"), of("variance")), of("phi"), "phi"));
}

/// A sample trace as facts by the time they become known, and when its stage begins.
fn facts(name: &str, until: f64) -> (Vec<Fact>, f64, f64) {
    let path = format!("{}/tests/fixtures/traces/{name}.jsonl.gz", env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let (mut facts, mut begins, mut weight) = (Vec::new(), 0.0, 0.0);
    for (id, line) in text.lines().enumerate() {
        let line: Line = serde_json::from_str(line).unwrap();
        match &line.event {
            Some(event) if event.0 == "stage" => (begins, weight) = (line.ts, line.weight.unwrap()),
            Some(_) => {}
            None => line.facts(id as u64, |fact| facts.push(fact)).unwrap(),
        }
    }
    facts.retain(|fact| fact.known().seconds() <= until);
    facts.sort_by_key(Fact::known);
    (facts, begins, weight)
}

/// Every verdict of a run; `between` may meddle with the judge after each tick, `shuffle` with the facts of each.
fn verdicts(
    (facts, begins, weight): &(Vec<Fact>, f64, f64),
    until: f64,
    mut between: impl FnMut(u64, Judge) -> Judge,
    mut shuffle: impl FnMut(&mut Vec<Fact>),
) -> Vec<Verdict> {
    let policy = Arc::new(Policy::from_toml(POLICY).unwrap());
    let mut judge = Judge::new(Arc::clone(&policy), Mono(0));
    let (mut said, mut next, mut now, mut tick, mut entered) = (Vec::new(), 0, 0.0, 0, false);
    while now < until {
        now += if entered { 0.25 } else { 1.0 };
        let end = facts.partition_point(|fact| fact.known().seconds() <= now);
        let mut these = facts[next..end].to_vec();
        next = end;
        shuffle(&mut these);
        these.iter().for_each(|fact| judge.observe(fact));
        said.push(judge.tick(Mono::from_seconds(now)));
        if !entered && now >= *begins {
            entered = true;
            let stage = Stage { weight: *weight, residence: policy.min_stage, samples: policy.min_requests };
            judge.enter_stage(stage, Mono::from_seconds(now));
        }
        tick += 1;
        judge = between(tick, judge);
    }
    said
}

const UNTIL: f64 = 1_330.0;

#[test]
fn a_restart_at_any_tick_changes_no_verdict() {
    let trace = facts("errors", UNTIL);
    let plain = verdicts(&trace, UNTIL, |_, judge| judge, |_| {});
    assert_eq!(plain.last().unwrap().word(), "rollback", "the trace shall reach a verdict");
    let policy = Arc::new(Policy::from_toml(POLICY).unwrap());
    for phase in [0, 7] {
        let restart = |tick: u64, judge: Judge| {
            if tick % 61 != phase {
                return judge;
            }
            Judge::restore(Arc::clone(&policy), &judge.checkpoint()).unwrap()
        };
        assert!(verdicts(&trace, UNTIL, restart, |_| {}) == plain, "restarted at ticks {phase} + 61 n");
    }
}

#[test]
fn a_checkpoint_of_another_policy_or_a_cut_one_is_refused() {
    let policy = Arc::new(Policy::from_toml(POLICY).unwrap());
    let judge = Judge::new(Arc::clone(&policy), Mono(0));
    let bytes = judge.checkpoint();
    assert!(Judge::restore(Arc::clone(&policy), &bytes).is_ok());
    assert!(Judge::restore(Arc::new(Policy::default()), &bytes).is_err());
    assert!(Judge::restore(Arc::clone(&policy), &bytes[..bytes.len() / 2]).is_err());
    assert!(Judge::restore(policy, b"").is_err());
}

#[test]
fn order_within_a_tick_does_not_matter() {
    let trace = facts("errors", UNTIL);
    let plain = verdicts(&trace, UNTIL, |_, judge| judge, |_| {});
    let reversed = verdicts(&trace, UNTIL, |_, judge| judge, |facts| facts.reverse());
    assert!(plain == reversed);
    let mut turn = 0;
    let rotated = verdicts(
        &trace,
        UNTIL,
        |_, judge| judge,
        |facts| {
            turn += 1;
            let by = (turn % facts.len().max(1)).min(facts.len());
            facts.rotate_left(by);
        },
    );
    assert!(plain == rotated);
}

#[test]
fn every_gate_is_reported_with_numbers() {
    let trace = facts("errors", UNTIL);
    let mut report = Vec::new();
    verdicts(
        &trace,
        UNTIL,
        |_, judge| {
            report = judge.report(Mono::from_seconds(UNTIL));
            judge
        },
        |_| {},
    );
    let errors = report.iter().find(|gate| gate.name == "errors").unwrap();
    let json = serde_json::to_value(errors).unwrap();
    assert_eq!(json["result"], "fail", "{json}");
    assert_eq!(json["unit"], "ratio");
    assert!(errors.canary.unwrap() > 2.0 * errors.stable.unwrap(), "{json}");
    let [low, high] = errors.interval.unwrap();
    let difference = errors.difference.unwrap();
    assert!(low < difference && difference < high && low > 0.0, "{json}");
    for key in ["name", "on", "required", "promote", "rollback", "limit", "samples", "samples_needed", "users"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    for key in ["rollback", "bar", "promote", "promote_bar"] {
        assert!(json["evidence"][key].is_number(), "{key}");
    }
    assert_eq!(report.len(), 10);
}

/// What keeps the rule from passing, as the judge says it.
fn lack(verdict: &Verdict) -> Option<Lack> {
    let Verdict::Hold { missing, .. } = verdict else { return None };
    missing.iter().find(|missing| missing.rule.is_some()).map(|missing| missing.lack)
}

#[test]
fn a_source_that_falls_silent_holds_by_its_name_and_may_speak_again() {
    for name in ["score:tone", "quality_mean", "prometheus:load"] {
        let mut rule = Rule::gate(name).unwrap();
        rule.stale = Duration::from_secs(60);
        let policy = Policy { rules: vec![rule], warm_up: Duration::ZERO, ..Policy::default() };
        let mut judge = Judge::new(Arc::new(policy), Mono(0));
        let stage = Stage { weight: 0.5, residence: Duration::from_secs(3_600), samples: 1 };
        judge.enter_stage(stage, Mono::from_seconds(1.0));
        let speak = |judge: &mut Judge, second: u32| {
            let known = Mono::from_seconds(f64::from(second));
            let metric = Rule::gate(name).unwrap().metric;
            if let Metric::Prometheus(query) = metric {
                return judge.observe(&Fact::Query { name: query, stable: 1.0, canary: 1.0, known });
            }
            for arm in [Arm::Stable, Arm::Canary] {
                let user = u64::from(second) * 2 + u64::from(arm == Arm::Canary);
                let (metric, value) = (metric.clone(), 0.5);
                judge.observe(&Fact::Score { arm, user, drawn: true, metric, value, arrived: known, known });
            }
        };
        for second in 2..=20 {
            speak(&mut judge, second);
            judge.tick(Mono::from_seconds(f64::from(second)));
        }
        let at = |second: u32, judge: &mut Judge| lack(&judge.tick(Mono::from_seconds(f64::from(second))));
        for second in 21..=80 {
            let said = at(second, &mut judge);
            assert!(!matches!(said, Some(Lack::Stale { .. })), "{name} at {second} s: {said:?}");
        }
        // Looked at every ten seconds while the residence lasts.
        let said = (81..=100).map(|second| at(second, &mut judge)).last().unwrap();
        assert!(
            matches!(said, Some(Lack::Stale { silent_s }) if (70.0..=80.0).contains(&silent_s)),
            "{name}: {said:?}"
        );
        let verdict = judge.tick(Mono::from_seconds(100.0));
        let Verdict::Hold { reason, .. } = &verdict else { panic!("{verdict:?}") };
        assert!(reason.contains(name) && reason.contains("its source is silent for"), "{reason}");
        speak(&mut judge, 101);
        let said = (101..=120).map(|second| at(second, &mut judge)).last().unwrap();
        assert!(!matches!(said, Some(Lack::Stale { .. })), "{name}: {said:?}");
    }
}
