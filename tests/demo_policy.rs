//! The demo's scenarios against the real judge in virtual time: each policy must find its verdict within its minute, on any seed.
//!
//! No sockets and no proxy: the draws are those of the scripted models, the arrivals those of the demo's users.
#![expect(clippy::unwrap_used, reason = "a rehearsal that cannot be set up has failed")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use serin::demo::behaviour::{Draw, Fate};
use serin::demo::dice::Dice;
use serin::demo::script::Expected;
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

/// How a rehearsal ended.
struct Ended {
    phase: &'static str,
    /// The rule that rolled back; empty where none did.
    rule: String,
    /// The judge's words.
    reason: String,
    /// Since the users began to talk.
    spent: Duration,
    /// Since the canary began to misbehave under traffic.
    from_onset: Duration,
    /// Since the first violation was known.
    from_harm: Option<Duration>,
}

fn rehearse(scenario: Scenario, seed: u64) -> Ended {
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
    let (mut onset, mut harmed) = (None, None);
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
            if matches!(fact, Fact::Score { metric: Metric::Safety, .. }) {
                harmed = harmed.or(Some(fact.known()));
            }
        }
        if fallen && stage.is_some() {
            onset.get_or_insert(now);
        }
        let verdict = judge.tick(now);
        let spent = now.since(Mono(0));
        last = verdict.reason().to_owned();
        let since = |at: Option<Mono>| at.map(|at| now.since(at));
        let end = |phase, rule: &str, reason: &str| Ended {
            phase,
            rule: rule.to_owned(),
            reason: reason.to_owned(),
            spent,
            from_onset: since(onset).unwrap_or_default(),
            from_harm: since(harmed),
        };
        let next = match (stage, &verdict) {
            (_, Verdict::Rollback { rule, reason }) => return end("rolled_back", rule, reason),
            (None, _) => (spent >= HISTORY).then_some(0),
            (Some(index), Verdict::Advance { .. }) if now.since(entered) >= stage_of(&plan, index).residence => {
                Some(index + 1)
            }
            _ => None,
        };
        if let Some(index) = next {
            if index == plan.stages.len() {
                return end("completed", "", &last);
            }
            judge.enter_stage(stage_of(&plan, index), now);
            (stage, entered) = (Some(index), now);
        }
        if let (Since::Weight(percent), Some(index)) = (scenario.since, stage) {
            fallen |= stage_of(&plan, index).weight * 100.0 >= percent;
        }
    }
    Ended {
        phase: "stuck",
        rule: String::new(),
        reason: format!("stage {stage:?}: {last}"),
        spent: AT_MOST,
        from_onset: AT_MOST,
        from_harm: None,
    }
}

/// The scenario's own gate must be the one that is named, in time. The method is to reach such faults within 15 s (errors), 254
/// s (slowness), 265 s (quality) and 179 s (cost) at twenty requests a second (evaluator.md, section 9): times that no demo of
/// a minute could exceed. With the demo's fifteen-fold traffic it took at most 0.8 s for errors, cuts and harms, 3 s for
/// slowness and 4.8 s for quality and cost over ten seeds (means are looked at each 5 s); what is asserted is near that.
fn check(name: &str, seeds: std::ops::Range<u64>, delay_s: u64) {
    let scenario = SCENARIOS.into_iter().find(|scenario| scenario.name == name).unwrap();
    let mut faults = Vec::new();
    for seed in seeds {
        let end = rehearse(scenario, seed);
        let named = match scenario.expected {
            Expected::Completed => end.phase == "completed",
            Expected::RolledBack(gates) => {
                end.phase == "rolled_back" && gates.contains(&end.rule.split('/').next().unwrap_or_default())
            }
        };
        let in_time = end.phase == "completed" || end.from_onset <= Duration::from_secs(delay_s);
        // What is known is acted on in the tick in which it is.
        let at_once = name != "safety" || end.from_harm.is_some_and(|delay| delay <= TICK);
        if !named || !in_time || !at_once {
            let [spent, onset] = [end.spent, end.from_onset].map(|time| time.as_secs_f64());
            faults.push(format!(
                "seed {seed}: {} by {:?} after {spent:.1} s, {onset:.1} s from the onset: {}",
                end.phase, end.rule, end.reason
            ));
        }
    }
    assert!(faults.is_empty(), "{name} must end {}:\n  {}", scenario.expected, faults.join("\n  "));
}

#[test]
fn a_good_canary_is_promoted() {
    check("good", 0..10, 0);
}

#[test]
fn errors_are_rolled_back() {
    check("errors", 0..10, 2);
}

#[test]
fn slowness_is_rolled_back() {
    check("latency", 0..10, 6);
}

#[test]
fn low_scores_are_rolled_back() {
    check("quality", 0..10, 10);
}

#[test]
fn high_cost_is_rolled_back() {
    check("cost", 0..10, 10);
}

#[test]
fn cut_streams_are_rolled_back() {
    check("cut-streams", 0..10, 2);
}

#[test]
fn one_harm_is_rolled_back() {
    check("safety", 0..10, 2);
}
