//! The demo's scenarios against the real judge in virtual time: each policy must find its verdict within its minute, on any seed.
//!
//! No sockets and no proxy: the draws are those of the scripted models, the arrivals those of the demo's users.
#![expect(clippy::unwrap_used, reason = "a rehearsal that cannot be set up has failed")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use serin::demo::behaviour::{Draw, Fate};
use serin::demo::dice::Dice;
use serin::demo::script::{CANARY, HISTORY, RATE, STABLE, Since, USERS};
use serin::demo::users::{cumulative_activity, pick};
use serin::demo::{SCENARIOS, Scenario};

use serin::judge::{End, Fact, Judge, Metric, Outcome, Stage, Verdict};
use serin::names::{Arm, Mono};
use serin::rollout::Plan;

const TICK: Duration = Duration::from_millis(250);
/// A demo is about a minute.
const AT_MOST: Duration = Duration::from_secs(75);

/// Facts by the time at which they become known.
#[derive(Default)]
struct Agenda {
    due: BinaryHeap<Reverse<(u64, u64)>>,
    facts: Vec<Option<Fact>>,
}

impl Agenda {
    fn add(&mut self, fact: Fact) {
        self.due.push(Reverse((fact.known().0, self.facts.len() as u64)));
        self.facts.push(Some(fact));
    }

    fn until(&mut self, now: Mono) -> Vec<Fact> {
        let mut known = Vec::new();
        while let Some(Reverse((at, index))) = self.due.peek().copied() {
            if at > now.0 {
                break;
            }
            self.due.pop();
            known.extend(self.facts[index as usize].take());
        }
        known
    }
}

/// One request of one user.
struct Request {
    id: u64,
    at: Mono,
    arm: Arm,
    user: u64,
    stream: bool,
}

/// What the proxy would tell the judge of it.
fn tell(agenda: &mut Agenda, request: &Request, draw: Draw, per_token_ms: f64) {
    let Request { id, at, arm, user, stream } = *request;
    agenda.add(Fact::Start { id, at, arm, user, drawn: true });
    let first = at.plus(draw.first_token);
    let is_error = matches!(draw.fate, Fate::Error(_));
    let cut = draw.fate == Fate::Cut;
    let told = if cut { draw.tokens / 2 } else { draw.tokens };
    let end_at = if stream && !is_error {
        agenda.add(Fact::FirstByte { id, at: first });
        first.plus(Duration::from_secs_f64(told as f64 * per_token_ms / 1e3))
    } else {
        at.plus(draw.latency)
    };
    let outcome = if is_error || cut { Outcome::UpstreamError } else { Outcome::Success };
    let mut end = End::plain(outcome, if is_error { 500 } else { 200 });
    end.flags.cut = cut;
    if !is_error {
        end.tokens_out = Some(told as u64);
        end.cost_nano = Some(told as u64 * 1_600);
        end.ttft_us = stream.then_some(draw.first_token.as_micros() as u64);
    }
    agenda.add(Fact::End { id, at: end_at, end });
    let mut score = |metric, value| {
        let known = end_at.plus(Duration::from_millis(2));
        agenda.add(Fact::Score { arm, user, drawn: true, metric, value, arrived: at, known });
    };
    if let Some(quality) = draw.quality {
        score(Metric::Quality, quality);
    }
    if draw.harms {
        score(Metric::Safety, 1.0);
    }
}

fn stage_of(plan: &Plan, index: usize) -> Stage {
    let is_last = index + 1 == plan.stages.len();
    let weight = if is_last { 100.0 - plan.holdback.percent() } else { plan.stages[index].weight.percent() };
    let residence = if is_last { plan.soak } else { plan.stages[index].residence };
    Stage { weight: weight / 100.0, residence, samples: plan.stages[index].samples }
}

/// How a rehearsal ended: the phase, the judge's words, and when.
fn rehearse(scenario: Scenario, seed: u64) -> (&'static str, String, Duration) {
    let config = scenario.config("http://127.0.0.1:1", "http://127.0.0.1:2", seed);
    let config = serin::config::parse(&config, scenario.name, &|_| None).unwrap();
    let rollout = &config.rollouts[0];
    let plan = rollout.plan.clone().unwrap();
    let mut judge = Judge::new(rollout.policy.clone(), Mono(0));
    let (good, deed) = (Scenario::faultless(CANARY), scenario.canary());
    let stable = Scenario::faultless(STABLE);
    let activity = cumulative_activity(USERS, 0.5);
    let mut dice = Dice::new(seed);
    let mut agenda = Agenda::default();
    let (mut next_at, mut id) = (0.0, 0u64);
    let (mut stage, mut entered): (Option<usize>, Mono) = (None, Mono(0));
    let mut fallen = scenario.since == Since::Start;
    let mut last = String::new();
    let mut now = Mono(0);
    while now.since(Mono(0)) < AT_MOST {
        now = now.plus(TICK);
        let weight = stage.map_or(0.0, |index| stage_of(&plan, index).weight);
        while next_at < now.seconds() {
            let at = Mono::from_seconds(next_at);
            let user = u64::from(pick(&activity, dice.unit()));
            let arm = if Dice::fork(seed ^ 0x5eed, user).unit() < weight { Arm::Canary } else { Arm::Stable };
            let script = match arm {
                Arm::Canary if fallen => &deed,
                Arm::Canary => &good,
                _ => &stable,
            };
            let draw = script.draw(&mut Dice::fork(seed, id));
            let request = Request { id, at, arm, user, stream: dice.chance(0.5) };
            tell(&mut agenda, &request, draw, script.per_token_ms);
            id += 1;
            next_at += dice.exponential() / RATE;
        }
        for fact in agenda.until(now) {
            judge.observe(&fact);
        }
        let verdict = judge.tick(now);
        let spent = now.since(Mono(0));
        last = verdict.reason().to_owned();
        let next = match (stage, &verdict) {
            (_, Verdict::Rollback { rule, reason }) => return ("rolled_back", format!("{rule}: {reason}"), spent),
            (None, _) => (spent >= HISTORY).then_some(0),
            (Some(index), Verdict::Advance { .. }) if now.since(entered) >= stage_of(&plan, index).residence => {
                Some(index + 1)
            }
            _ => None,
        };
        if let Some(index) = next {
            if index == plan.stages.len() {
                return ("completed", last, spent);
            }
            judge.enter_stage(stage_of(&plan, index), now);
            (stage, entered) = (Some(index), now);
        }
        if let (Since::Weight(percent), Some(index)) = (scenario.since, stage) {
            fallen |= stage_of(&plan, index).weight * 100.0 >= percent;
        }
    }
    ("stuck", format!("stage {stage:?}: {last}"), AT_MOST)
}

fn check(name: &str, seeds: std::ops::Range<u64>) {
    let scenario = SCENARIOS.into_iter().find(|scenario| scenario.name == name).unwrap();
    let mut faults = Vec::new();
    for seed in seeds {
        let (phase, reason, spent) = rehearse(scenario, seed);
        if !scenario.expected.is_met(phase, &reason) {
            faults.push(format!("seed {seed}: {phase} after {:.1} s: {reason}", spent.as_secs_f64()));
        }
    }
    assert!(faults.is_empty(), "{name} must end {}:\n  {}", scenario.expected, faults.join("\n  "));
}

#[test]
fn a_good_canary_is_promoted() {
    check("good", 0..10);
}

#[test]
fn errors_are_rolled_back() {
    check("errors", 0..10);
}

#[test]
fn slowness_is_rolled_back() {
    check("latency", 0..10);
}

#[test]
fn low_scores_are_rolled_back() {
    check("quality", 0..10);
}

#[test]
fn high_cost_is_rolled_back() {
    check("cost", 0..10);
}

#[test]
fn cut_streams_are_rolled_back() {
    check("cut-streams", 0..10);
}

#[test]
fn one_harm_is_rolled_back() {
    check("safety", 0..10);
}
