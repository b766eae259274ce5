//! The judge in situations that statistics alone do not settle: bounds and floors, rules that only hold, a baseline of its
//! own, stable failing too, a retry storm, a whale, one tenant, clocks that jump, rules that nobody asked for.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use serin::judge::{Comparator, End, Fact, Judge, Lack, On, Outcome, Policy, Rule, Stage, Verdict};
use serin::names::{Arm, Mono};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One request, as the script of a test sees it.
struct Ask {
    at: f64,
    arm: Arm,
    user: u64,
}

/// Twenty requests a second of 200 users; from `STAGE` on every other user is the canary's.
const STAGE: f64 = 300.0;
const USERS: u64 = 200;

struct Play {
    judge: Judge,
    dice: Dice,
    now: f64,
    id: u64,
    waiting: Vec<Fact>,
    said: Verdict,
    /// Who asks, and where it is sent; none: the usual.
    who: fn(&mut Dice, f64) -> Option<(u64, Arm)>,
    /// The chance that it fails.
    fails: fn(&Ask) -> f64,
}

impl Play {
    fn new(policy: Policy, fails: fn(&Ask) -> f64) -> Self {
        let judge = Judge::new(Arc::new(policy), Mono(0));
        let said = Verdict::Hold { missing: Vec::new(), reason: String::new() };
        Self { judge, dice: Dice(7), now: 0.0, id: 0, waiting: Vec::new(), said, who: |_, _| None, fails }
    }

    fn usual(user: u64, at: f64) -> (u64, Arm) {
        (user, if at >= STAGE && user % 2 == 1 { Arm::Canary } else { Arm::Stable })
    }

    fn request(&mut self, at: f64) {
        let asked = (self.who)(&mut self.dice, at);
        let (user, arm) = asked.unwrap_or_else(|| Self::usual((self.dice.unit() * USERS as f64) as u64, at));
        let failed = self.dice.unit() < (self.fails)(&Ask { at, arm, user });
        self.id += 1;
        let (id, start, end) = (self.id, Mono::from_seconds(at), Mono::from_seconds(at + 0.2));
        self.waiting.push(Fact::Start { id, at: start, arm, user, drawn: true });
        let (outcome, status) = if failed { (Outcome::UpstreamError, 500) } else { (Outcome::Success, 200) };
        let mut plain = End::plain(outcome, status);
        plain.ttft_us = (!failed).then_some(150_000 + (50_000.0 * self.dice.unit()) as u64);
        self.waiting.push(Fact::End { id, at: end, end: plain });
    }

    /// Plays on to `until`, or to the first rollback.
    fn to(&mut self, until: f64) -> &Verdict {
        while self.now < until && !matches!(self.said, Verdict::Rollback { .. }) {
            (0..5).for_each(|i| self.request(self.now + 0.05 * f64::from(i)));
            self.now += 0.25;
            self.tick(self.now);
            if self.now == STAGE {
                let stage = Stage { weight: 0.5, residence: Duration::from_secs(200), samples: 100 };
                self.judge.enter_stage(stage, Mono::from_seconds(STAGE));
            }
        }
        &self.said
    }

    fn tick(&mut self, now: f64) {
        for fact in self.waiting.extract_if(.., |fact| fact.known().seconds() <= now) {
            self.judge.observe(&fact);
        }
        self.said = self.judge.tick(Mono::from_seconds(now));
    }

    fn lacks(&self) -> Vec<(Option<String>, Lack)> {
        let Verdict::Hold { missing, .. } = &self.said else { return Vec::new() };
        missing.iter().map(|missing| (missing.rule.as_ref().map(ToString::to_string), missing.lack)).collect()
    }
}

fn errors(change: impl FnOnce(&mut Rule)) -> Policy {
    let mut rule = Rule::gate("error_rate").unwrap();
    change(&mut rule);
    Policy { rules: vec![rule], ..Policy::default() }
}

fn rolled_back(verdict: &Verdict) -> Option<&str> {
    if let Verdict::Rollback { rule, .. } = verdict { Some(rule) } else { None }
}

/// The canary fails eight points more from the 400th second on.
fn worse(ask: &Ask) -> f64 {
    if ask.arm == Arm::Canary && ask.at >= 400.0 { 0.09 } else { 0.01 }
}

#[test]
fn a_rule_that_only_holds_stops_the_rise_and_never_rolls_back() {
    let mut play = Play::new(errors(|_| {}), worse);
    assert!(rolled_back(play.to(900.0)).unwrap().starts_with("error_rate"));
    let mut play = Play::new(errors(|rule| rule.on = On::Hold), worse);
    assert_eq!(play.to(900.0).word(), "hold");
    assert!(
        matches!(play.lacks()[..], [(Some(_), Lack::Failing { evidence, bar })] if evidence > bar),
        "{:?}",
        play.said
    );
}

#[test]
fn a_rule_that_steps_back_needs_the_evidence_of_a_rollback_and_a_rollback_outranks_it() {
    let mut worst = Play::new(errors(|_| {}), worse);
    worst.to(900.0);
    let Verdict::Rollback { reason: proof, .. } = worst.said.clone() else { panic!("{:?}", worst.said) };
    let mut play = Play::new(errors(|rule| rule.on = On::StepBack), worse);
    while play.now < worst.now {
        assert_ne!(play.said.word(), "step-back", "not a tick earlier");
        let next = play.now + 0.25;
        play.to(next);
    }
    let Verdict::StepBack { rule, reason } = play.said.clone() else { panic!("{:?}", play.said) };
    assert!(rule.starts_with("error_rate"), "{rule}");
    assert_eq!(reason, proof, "the same numbers at the same tick");
    let shown = play.judge.report(Mono::from_seconds(play.now)).remove(0);
    assert_eq!((shown.result, shown.on), (serin::judge::GateResult::Fail, On::StepBack));
    // It says so until the stage is left; a checkpoint changes nothing.
    play.judge = Judge::restore(Arc::clone(play.judge.policy()), &play.judge.checkpoint()).unwrap();
    play.to(play.now + 5.0);
    assert_eq!(play.said.word(), "step-back");
    play.judge.enter_stage(
        Stage { weight: 0.5, residence: Duration::from_secs(200), samples: 100 },
        Mono::from_seconds(play.now),
    );
    play.tick(play.now);
    assert_eq!(play.said.word(), "hold", "fresh evidence");
    // A total failure trips what rolls back, whatever was said before.
    let both = |rule: &mut Rule| rule.on = On::StepBack;
    let mut play =
        Play::new(errors(both), |ask| if ask.arm == Arm::Canary && ask.at >= 600.0 { 1.0 } else { worse(ask) });
    play.to(599.0);
    assert_eq!(play.said.word(), "step-back");
    assert_eq!(rolled_back(play.to(700.0)), Some("breaker"));
}

#[test]
fn a_rule_that_steps_back_counts_among_those_that_share_alpha() {
    let tests = |on| errors(|rule| rule.on = on).tests();
    assert_eq!(tests(On::StepBack), tests(On::Rollback));
    assert_ne!(tests(On::StepBack), tests(On::Hold));
}

#[test]
fn below_its_floor_a_fail_does_not_count() {
    let floor = |floor: f64| errors(move |rule| rule.floor = Some(floor));
    assert_eq!(Play::new(floor(0.25), worse).to(700.0).word(), "hold");
    assert!(rolled_back(Play::new(floor(0.02), worse).to(700.0)).is_some());
}

#[test]
fn a_limit_binds_the_canary_even_where_stable_is_as_bad() {
    let bad = |_: &Ask| 0.12;
    assert_eq!(rolled_back(Play::new(errors(|_| {}), bad).to(700.0)), None);
    let limited = |limit: f64| errors(move |rule| rule.limit = Some(limit));
    assert_eq!(rolled_back(Play::new(limited(0.05), bad).to(700.0)), Some("error_rate/limit"));
    assert_eq!(rolled_back(Play::new(limited(0.15), bad).to(700.0)), None);
}

#[test]
fn where_the_baseline_has_endpoints_of_its_own_it_alone_is_compared_with() {
    // A fresh start costs baseline and canary alike; old stable does not pay it.
    let who = |dice: &mut Dice, at: f64| {
        let user = (dice.unit() * USERS as f64) as u64;
        let arm = if at < STAGE { Arm::Stable } else { [Arm::Stable, Arm::Canary, Arm::Baseline][(user % 3) as usize] };
        Some((user, arm))
    };
    let fails = |ask: &Ask| if ask.arm == Arm::Stable { 0.01 } else { 0.08 };
    let play = |comparator| {
        let mut play = Play::new(Policy { comparator, ..errors(|_| {}) }, fails);
        play.who = who;
        rolled_back(play.to(800.0)).map(str::to_owned)
    };
    assert_eq!(play(Comparator::BaselineAlone), None);
    assert!(play(Comparator::StableAndBaseline).is_some());
}

#[test]
fn stable_failing_too_holds_and_says_so() {
    let mut play = Play::new(errors(|_| {}), |ask| if ask.at >= 600.0 { 0.7 } else { 0.01 });
    assert_eq!(play.to(700.0).word(), "hold");
    assert!(play.lacks().iter().any(|(_, lack)| matches!(lack, Lack::Shared { .. })), "{:?}", play.said);
}

#[test]
fn one_user_s_retry_storm_is_no_regression() {
    // Of the canary's requests between the 400th and the 440th second, two a second are one user's, and fail.
    let mut play = Play::new(errors(|_| {}), |ask| if ask.user == 1 && ask.at >= 400.0 { 1.0 } else { 0.01 });
    play.who = |dice, at| ((400.0..440.0).contains(&at) && dice.unit() < 0.1).then_some((1, Arm::Canary));
    play.to(800.0);
    assert_eq!(rolled_back(&play.said), None, "{:?}", play.said);
}

#[test]
fn a_whale_that_comes_to_the_canary_alone_is_no_regression() {
    let mut play = Play::new(errors(|_| {}), |ask| if ask.user == 9_001 { 0.08 } else { 0.01 });
    play.who = |dice, at| (at >= 400.0 && dice.unit() < 0.3).then_some((9_001, Arm::Canary));
    play.to(1_000.0);
    assert_eq!(rolled_back(&play.said), None, "{:?}", play.said);
}

#[test]
fn one_tenant_is_no_crowd_and_proves_nothing() {
    let mut play = Play::new(errors(|_| {}), |ask| if ask.user == 1 { 0.25 } else { 0.01 });
    play.who = |dice, at| {
        let user = (dice.unit() * USERS as f64) as u64;
        Some(if user % 2 == 1 { (1, Play::usual(1, at).1) } else { (user, Arm::Stable) })
    };
    play.to(900.0);
    assert_eq!(play.said.word(), "hold", "{:?}", play.said);
    assert!(play.lacks().iter().any(|(_, lack)| matches!(lack, Lack::Users { .. })), "{:?}", play.said);
}

#[test]
fn a_clock_that_jumps_and_ticks_that_come_again_make_no_verdict() {
    let mut play = Play::new(errors(|_| {}), |ask| if ask.at >= 5_000.0 { worse(ask) } else { 0.01 });
    play.to(450.0);
    for now in [449.0, 300.0, 0.0, 450.0] {
        play.tick(now);
        assert_eq!(play.said.word(), "hold", "back at {now}");
    }
    play.now = 4_200.0; // an hour of which nothing was told
    play.to(4_900.0);
    assert_eq!(rolled_back(&play.said), None, "{:?}", play.said);
    play.to(5_600.0);
    assert!(rolled_back(&play.said).is_some() && play.now > 5_000.0, "{:?} at {}", play.said, play.now);
}

#[test]
fn a_stage_does_not_wait_for_a_hard_rule_that_nobody_asked_for() {
    let policy = errors(|_| {}).with_stall();
    let names = |play: &Play| play.lacks().into_iter().filter_map(|(name, _)| name).collect::<Vec<_>>();
    let mut play = Play::new(policy.clone(), |_| 0.01);
    play.to(350.0);
    assert_eq!(names(&play), ["error_rate"]);
    let mut asked = policy;
    asked.rules[1].required = true;
    let mut play = Play::new(asked, |_| 0.01);
    play.to(350.0);
    assert_eq!(names(&play), ["error_rate", "stall"]);
}
