//! `serin plan`: how long each stage must last to see each gate's margins, at a traffic that is expected.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use serde::Serialize;

use super::offline::printed;
use super::run::say;
use crate::cli::{Output, PlanArgs};
use crate::config;
use crate::judge::forecast::{Assumed, Forecast, Found, Habit, forecast, is_proof};
use crate::judge::trace::Line;
use crate::judge::{Fact, Judge, Policy, Rule, Stage, Stat};
use crate::names::{Arm, Mono};

/// What is assumed where neither option nor trace says: the design effect that sticky users mostly have, the heaviest
/// user's share, and how long an answer takes.
const DESIGN_EFFECT: f64 = 1.2;
const HEAVIEST: f64 = 0.01;
const ANSWER_S: f64 = 3.0;
/// Facts of a trace that are looked at: an hour at 500 requests a second.
const MOST_FACTS: usize = 5_000_000;
const DAY_S: f64 = 86_400.0;

/// Everything that is said.
#[derive(Serialize)]
struct Said {
    rps: f64,
    assumed: Whole,
    rollouts: Vec<SaidRollout>,
}

#[derive(Clone, Copy, Serialize)]
struct Whole {
    users_a_day: f64,
    design_effect: f64,
    heaviest: f64,
    answer_s: f64,
    from_trace: bool,
}

#[derive(Serialize)]
struct SaidRollout {
    name: String,
    alpha: f64,
    beta: f64,
    stages: Vec<SaidStage>,
}

#[derive(Serialize)]
struct SaidStage {
    index: usize,
    weight: f64,
    residence_s: f64,
    samples: u64,
    /// Seconds until so many canary requests have come.
    samples_s: Option<f64>,
    /// The canary's users in the residence.
    users: f64,
    gates: Vec<SaidGate>,
    /// Seconds until every gate that must pass is proven, with 90 % chance together; null where one never is.
    needs_s: Option<f64>,
}

#[derive(Serialize)]
struct SaidGate {
    name: String,
    required: bool,
    /// What is taken for stable.
    base: String,
    /// Seconds until the rollback margin is seen, with 80 % and 95 % chance.
    rollback_s: [Option<f64>; 2],
    /// Seconds until an equal canary is proven, likewise.
    promote_s: [Option<f64>; 2],
}

/// What a trace tells of stable.
struct Recorded {
    habits: Vec<Option<Habit>>,
    heaviest: f64,
    /// Its users are worth so many equal ones, of each.
    evenness: f64,
    answer_s: f64,
}

/// How long stages must last.
#[must_use]
pub fn plan(args: &PlanArgs) -> ExitCode {
    let file = match config::load(&args.config) {
        Ok(file) => file,
        Err(faults) => {
            say(&faults.to_string());
            return ExitCode::FAILURE;
        }
    };
    let mut rollouts = Vec::new();
    let mut whole = None;
    for rollout in &file.rollouts {
        let recorded = match args.trace.as_deref().map(|path| record(path, &rollout.policy)).transpose() {
            Ok(recorded) => recorded,
            Err(why) => {
                say(&format!("serin: {}: {why}", args.trace.as_deref().unwrap_or(Path::new("")).display()));
                return ExitCode::FAILURE;
            }
        };
        let of = whole.get_or_insert_with(|| assumptions(args, recorded.as_ref()));
        rollouts.push(said(args, rollout, recorded.as_ref(), of));
    }
    let assumed = whole.unwrap_or_else(|| assumptions(args, None));
    let said = Said { rps: args.rps, assumed, rollouts };
    match args.output {
        Output::Json => match serde_json::to_string(&said) {
            Ok(text) => printed(&text),
            Err(_) => ExitCode::FAILURE,
        },
        Output::Human | Output::Md | Output::Html => printed(human(&said).trim_end()),
    }
}

fn assumptions(args: &PlanArgs, recorded: Option<&Recorded>) -> Whole {
    Whole {
        users_a_day: args.users,
        design_effect: args.design_effect.unwrap_or(DESIGN_EFFECT).max(1.0),
        heaviest: args.heaviest.or(recorded.map(|of| of.heaviest)).unwrap_or(HEAVIEST),
        answer_s: recorded.map_or(ANSWER_S, |of| of.answer_s),
        from_trace: recorded.is_some(),
    }
}

fn said(args: &PlanArgs, rollout: &config::Rollout, recorded: Option<&Recorded>, whole: &Whole) -> SaidRollout {
    let policy = &rollout.policy;
    let habit = |(i, rule): (usize, &Rule)| {
        let seen = recorded.and_then(|of| of.habits.get(i)?.clone());
        let mut habit = seen.unwrap_or_else(|| Habit::assumed(rule));
        if args.design_effect.is_some() {
            habit.likeness = None;
        }
        if let Some((_, share)) = args.base.iter().find(|(gate, _)| **gate == *rule.name) {
            habit.found = Found::Bad(*share);
        }
        habit
    };
    let habits: Vec<Habit> = policy.rules.iter().enumerate().map(habit).collect();
    let stages: Vec<(f64, Duration, u64)> = match &rollout.plan {
        Some(plan) => {
            let stage = |i| (crate::evaluator::guard::share(plan.weight_of(i)), plan.residence_of(i));
            (0..plan.stages.len()).map(|i| (stage(i).0, stage(i).1, plan.stages[i].samples)).collect()
        }
        None => rollout
            .weight
            .iter()
            .map(|weight| (crate::evaluator::guard::share(*weight), policy.min_stage, policy.min_requests))
            .collect(),
    };
    let stage = |(index, (weight, residence, samples)): (usize, (f64, Duration, u64))| {
        let residence_s = residence.as_secs_f64();
        let users = whole.users_a_day * (residence_s / DAY_S).min(1.0);
        let assumed = Assumed {
            rps: args.rps,
            weight,
            users: users * recorded.map_or(1.0, |of| of.evenness),
            heaviest: whole.heaviest,
            design_effect: whole.design_effect,
            answer_s: whole.answer_s,
        };
        let foretold = forecast(policy, residence, assumed, &habits);
        let gate = |((rule, habit), forecast): ((&Rule, &Habit), &Forecast)| SaidGate {
            name: rule.name.to_string(),
            required: rule.required,
            base: base(rule, habit),
            rollback_s: forecast.rollback,
            promote_s: forecast.promote,
        };
        let gates: Vec<SaidGate> = policy.rules.iter().zip(&habits).zip(&foretold).map(gate).collect();
        let canary = args.rps * weight;
        let samples_s = (canary > 0.0).then(|| samples as f64 / canary);
        let proofs = policy.rules.iter().zip(&foretold).filter(|(rule, _)| is_proof(rule)).map(|(_, of)| of.joint);
        let needs_s = proofs.chain([samples_s, Some(residence_s)]).try_fold(0.0, |most: f64, one| Some(most.max(one?)));
        SaidStage {
            index,
            weight: weight * 100.0,
            residence_s,
            samples,
            samples_s,
            users: users * weight,
            gates,
            needs_s,
        }
    };
    SaidRollout {
        name: rollout.name.to_string(),
        alpha: policy.alpha,
        beta: policy.beta,
        stages: stages.into_iter().enumerate().map(stage).collect(),
    }
}

/// What is taken for stable, in words.
fn base(rule: &Rule, habit: &Habit) -> String {
    let of = if habit.seen < 0.995 { format!(" of {:.0} % of answers", habit.seen * 100.0) } else { String::new() };
    match &habit.found {
        _ if matches!(rule.stat, Stat::Zero | Stat::Breaches(_)) => "-".to_owned(),
        Found::Bad(share) => format!("{:.2} % bad{of}", share * 100.0),
        Found::Spread(sigma) => format!("spread of ln {sigma:.1}{of}"),
        Found::Values(_) => format!("the trace's values{of}"),
        Found::Scores { level, deviation } => format!("{level:.2} ± {deviation:.2}{of}"),
    }
}

fn human(said: &Said) -> String {
    let Whole { users_a_day, design_effect, heaviest, answer_s, from_trace } = said.assumed;
    let source = if from_trace { "stable as in the trace" } else { "stable as assumed (--base, --trace)" };
    let mut text = format!(
        "At {} requests/s; {users_a_day:.0} users a day, the heaviest with {:.1} % of requests, design effect {design_effect:.2}, \
         an answer takes {answer_s:.1} s; {source}.\nTimes from the stage's start, with 80 % | 95 % chance each.\n",
        said.rps,
        heaviest * 100.0,
    );
    // A string takes any text: writing to it cannot fail.
    let mut line = |of: std::fmt::Arguments| text.write_fmt(of).unwrap_or_default();
    for rollout in &said.rollouts {
        line(format_args!("\n{}\n", rollout.name));
        for stage in &rollout.stages {
            line(format_args!(
                "  stage {}: {} %, residence {}, {:.0} canary users; {}\n",
                stage.index,
                stage.weight,
                span(Some(stage.residence_s)),
                stage.users,
                match stage.needs_s {
                    _ if stage.weight <= 0.0 => "no canary traffic by chance".to_owned(),
                    Some(needs) if needs <= stage.residence_s => "the residence is enough".to_owned(),
                    needs => format!("needs {}", span(needs)),
                }
            ));
            if stage.weight <= 0.0 {
                continue;
            }
            line(format_args!(
                "    {:<20} {:<28} {:>24} {:>24}\n",
                "gate", "stable", "rollback margin seen", "equal proven"
            ));
            for gate in &stage.gates {
                let pair = |[some, most]: [Option<f64>; 2]| format!("{} | {}", span(some), span(most));
                line(format_args!(
                    "    {:<20} {:<28} {:>24} {:>24}\n",
                    gate.name,
                    gate.base,
                    pair(gate.rollback_s),
                    pair(gate.promote_s)
                ));
            }
        }
    }
    text
}

fn span(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(s) if s < 120.0 => format!("{s:.0} s"),
        Some(s) if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        Some(s) if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        Some(s) => format!("{:.0} d", s / DAY_S),
    }
}

/// Lets a judge see what stable did: the first half of the trace is history, the second a stage.
fn record(path: &Path, policy: &Arc<Policy>) -> Result<Recorded, String> {
    let facts = facts(path).map_err(|error| error.to_string())?;
    let (first, last) = facts.first().zip(facts.last()).ok_or("no request of stable is in it")?;
    let (first, last) = (first.known(), last.known());
    let middle = Mono(first.0 / 2 + last.0 / 2);
    let mut judge = Judge::new(Arc::clone(policy), first);
    let (mut counts, mut begun) = (HashMap::<u64, f64>::new(), HashMap::<u64, u64>::new());
    let (mut took, mut answers) = (0.0, 0.0);
    let (mut at, mut entered) = (first, false);
    for fact in &facts {
        while fact.known() > at {
            at = at.plus(Duration::from_secs(1));
            judge.tick(at);
            if !entered && at >= middle {
                entered = true;
                counts.clear();
                judge.enter_stage(Stage { weight: 0.01, residence: Duration::ZERO, samples: 0 }, at);
            }
        }
        judge.observe(fact);
        match fact {
            Fact::Start { id, at, user, .. } => {
                *counts.entry(*user).or_default() += 1.0;
                begun.insert(*id, at.0);
            }
            Fact::End { id, at, .. } => {
                if let Some(start) = begun.remove(id) {
                    took += at.0.saturating_sub(start) as f64 / 1e9;
                    answers += 1.0;
                }
            }
            _ => {}
        }
    }
    judge.tick(at.plus(Duration::from_secs(1)));
    let most = counts.values().copied().fold(0.0, f64::max);
    let sum = counts.values().sum::<f64>().max(1.0);
    let squares = counts.values().map(|count| count * count).sum::<f64>().max(1.0);
    Ok(Recorded {
        habits: judge.habits(squares / sum),
        heaviest: most / sum,
        evenness: (sum * sum / squares / counts.len().max(1) as f64).min(1.0),
        answer_s: if answers > 0.0 { took / answers } else { ANSWER_S },
    })
}

/// Stable's facts of a trace, plain or gzip, in the order in which they became known.
fn facts(path: &Path) -> io::Result<Vec<Fact>> {
    let mut reader = BufReader::with_capacity(1 << 17, File::open(path)?);
    let gzip = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let mut facts = Vec::new();
    let mut take = |reader: &mut dyn BufRead| -> io::Result<()> {
        let (mut text, mut number) = (Vec::new(), 0);
        while facts.len() < MOST_FACTS && {
            text.clear();
            reader.read_until(b'\n', &mut text)? > 0
        } {
            number += 1;
            let trimmed = text.trim_ascii();
            if trimmed.is_empty() {
                continue;
            }
            let fault = |what: &str| io::Error::other(format!("line {number}: {what}"));
            let line: Line = serde_json::from_slice(trimmed).map_err(|error| fault(&error.to_string()))?;
            if line.event.is_none() {
                line.facts(number, |fact| facts.push(fact)).map_err(fault)?;
            }
        }
        Ok(())
    };
    if gzip { take(&mut BufReader::new(MultiGzDecoder::new(reader))) } else { take(&mut reader) }?;
    let mut canary = std::collections::HashSet::new();
    for fact in &facts {
        if let Fact::Start { id, arm: Arm::Canary, .. } = fact {
            canary.insert(*id);
        }
    }
    facts.retain(|fact| match fact {
        Fact::Start { id, .. } | Fact::FirstByte { id, .. } | Fact::End { id, .. } => !canary.contains(id),
        Fact::Score { arm, .. } => *arm != Arm::Canary,
        Fact::Query { .. } => false,
    });
    facts.sort_by_key(Fact::known);
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rollout_stage_and_gate_is_foretold_and_the_assumptions_are_named() {
        let file =
            config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/standard-release.toml"))).unwrap();
        let args = PlanArgs {
            config: "unread".into(),
            rps: 50.0,
            trace: None,
            users: 20_000.0,
            design_effect: None,
            heaviest: None,
            base: vec![("error_rate".to_owned(), 0.002)],
            output: Output::Human,
        };
        let whole = assumptions(&args, None);
        let of: Vec<SaidRollout> = file.rollouts.iter().map(|rollout| said(&args, rollout, None, &whole)).collect();
        let plan = file.rollouts[0].plan.as_ref().unwrap();
        assert_eq!(of[0].stages.len(), plan.stages.len());
        let errors = |i: usize| of[0].stages[i].gates.iter().find(|gate| gate.name == "error_rate").unwrap();
        assert_eq!(errors(0).base, "0.20 % bad");
        assert_eq!(errors(0).promote_s, [None; 2], "cohorts alone prove nothing");
        assert!(errors(2).promote_s[0] < errors(1).promote_s[0], "a larger weight is proven sooner");
        assert!(errors(1).rollback_s[0] < errors(1).rollback_s[1]);
        let text = human(&Said { rps: 50.0, assumed: whole, rollouts: of });
        assert!(text.contains("20000 users a day") && text.contains("design effect 1.20"), "{text}");
        assert!(text.contains("stage 1: 1 %, residence 24.0 h"), "{text}");
    }

    #[test]
    fn a_trace_says_what_stable_does() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/traces");
        let policy =
            Arc::new(Policy::from_toml(&std::fs::read_to_string(format!("{root}/policy.toml")).unwrap()).unwrap());
        let of = record(Path::new(&format!("{root}/errors.jsonl.gz")), &policy).unwrap();
        let errors = policy.rules.iter().position(|rule| &*rule.name == "errors").unwrap();
        let Some(Habit { found: Found::Bad(share), seen, .. }) = &of.habits[errors] else {
            panic!("no share of errors")
        };
        assert!(*share > 0.001 && *share < 0.05 && *seen > 0.9, "{share} of {seen}");
        assert!(of.heaviest > 0.0 && of.heaviest < 0.5 && of.answer_s > 0.1, "{} {}", of.heaviest, of.answer_s);
    }
}
