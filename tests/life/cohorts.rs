//! `preset = "cohort_first"` walked from end to end: two stages of hand-picked units, in which nothing can be compared,
//! then drawn ones, then the soak. Days of it under a clock that is moved by hand.

use std::time::Duration;

use serin::judge::{End, Fact, Outcome};
use serin::measure::ring::Record;
use serin::names::Arm;
use serin::rollout::Verb;

use crate::bench::Bench;
use crate::fixture::{head, rollout};

/// Below the heartbeat's time-out, or every turn would find it stale.
const TURN: Duration = Duration::from_secs(9);

fn file() -> String {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let cohort = |name: &str| {
        format!(
            "[[rollouts.chat.cohorts]]\nname = \"{name}\"\nwhen = {{ header = \"x-org\", is = [\"{name}\"] }}\nto = \"canary\"\n"
        )
    };
    head(2, false)
        + &rollout("chat", nowhere, nowhere, "")
        + &cohort("internal")
        + &cohort("beta")
        + "[rollouts.chat.plan]\npreset = \"cohort_first\"\nsoak = \"1h\"\n\
           [rollouts.chat.gates.error_rate]\nrollback = \"+5pp\"\npromote = \"+1pp\"\nlimit = \"20%\"\n\
           [rollouts.chat.gates.safety_violations]\nrollback = \"any\"\n"
}

/// A bench under the preset, and the traffic of hand-picked or drawn units.
struct Walk {
    bench: Bench,
    slot: u32,
    id: u64,
}

impl Walk {
    /// Started, in stage 0.
    fn new() -> Self {
        let mut bench = Bench::new(&file());
        let slot = bench.live.load().rollout("chat").unwrap().fixed.slot;
        bench.command(Verb::Start);
        let mut walk = Self { bench, slot, id: 0 };
        walk.until("stage 0", |walk| walk.stage() == Some(0));
        walk
    }

    /// The stage it is in.
    fn stage(&self) -> Option<usize> {
        self.bench.board.rollout("chat")?.stage.as_ref().map(|stage| stage.index)
    }

    fn why(&self) -> String {
        self.bench.board.rollout("chat").map_or_else(String::new, |view| format!("{}: {}", view.phase, view.why))
    }

    fn phase(&self) -> &'static str {
        self.bench.board.rollout("chat").unwrap().phase
    }

    fn turn(&mut self) {
        self.bench.clock.advance(TURN);
        self.bench.guard.turn();
        self.bench.settle();
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..1_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("never came: {what}; {}", self.why());
    }

    /// One exchange of 100 ms, known at the next turn.
    fn exchange(&mut self, arm: Arm, drawn: bool, user: u64, end: End) {
        self.id += 1;
        let (at, id) = (self.bench.clock.now(), self.id);
        let known = at.plus(Duration::from_millis(100));
        for fact in [Fact::Start { id, at, arm, user, drawn }, Fact::End { id, at: known, end }] {
            self.bench.rings[0].push(Record::new(self.slot, fact));
        }
    }

    /// Four answers of stable's and some of the canary's, all good.
    fn traffic(&mut self, canary: u64, drawn: bool) {
        for i in 0..4 {
            let user = 1 + (self.id + i) % 900;
            self.exchange(Arm::Stable, true, user, End::plain(Outcome::Success, 200));
        }
        for i in 0..canary {
            let user = 1_000 + (self.id + i) % 97;
            self.exchange(Arm::Canary, drawn, user, End::plain(Outcome::Success, 200));
        }
        self.turn();
    }

    fn hours(&mut self, hours: u64, canary: u64, drawn: bool) {
        for _ in 0..hours * 3_600 / TURN.as_secs() + 10 {
            self.traffic(canary, drawn);
        }
    }

    /// Its approver signs, and it enters that stage.
    fn approve_into(&mut self, stage: usize) {
        assert_eq!(self.phase(), "awaiting", "{}", self.why());
        self.bench.command(Verb::Approve);
        self.until("the next stage", |walk| walk.stage() == Some(stage));
    }
}

#[test]
fn the_preset_cohort_first_can_be_walked_to_its_end() {
    let mut walk = Walk::new();
    for stage in 0..4 {
        assert_eq!((walk.stage(), walk.phase()), (Some(stage), "running"));
        let hand_picked = stage < 2;
        // Residence is not over: nobody is asked, however good it looks.
        walk.hours(23, 1, !hand_picked);
        assert_eq!(walk.phase(), "running", "{}", walk.why());
        walk.hours(1, 1, !hand_picked);
        walk.approve_into(stage + 1);
    }
    assert_eq!(walk.phase(), "soaking");
    walk.hours(1, 20, true);
    walk.until("the end", |walk| walk.phase() == "completed");
}

#[test]
fn a_stage_of_hand_picked_units_asks_for_their_answers() {
    let mut walk = Walk::new();
    // A day without one of them proves nothing, nor do fewer than the plan's five hundred.
    walk.hours(24, 0, false);
    assert!(walk.phase() == "running" && walk.why().contains("no traffic"), "{}", walk.why());
    for _ in 0..499 {
        walk.traffic(1, false);
    }
    walk.turn();
    assert!(walk.phase() == "running" && walk.why().contains("499 of 500"), "{}", walk.why());
    walk.traffic(1, false);
    walk.until("a person is asked", |walk| walk.phase() == "awaiting");
}

#[test]
fn zero_tolerance_limits_and_the_breaker_guard_it() {
    // A violation.
    let mut walk = Walk::new();
    let mut end = End::plain(Outcome::Success, 200);
    end.flags.safety = true;
    walk.exchange(Arm::Canary, false, 1, end);
    walk.until("the rollback", |walk| walk.phase() == "rolled_back");
    // A limit: 20 % may fail, every second one does.
    let mut walk = Walk::new();
    for i in 0..2_000u64 {
        if walk.phase() == "rolled_back" {
            break;
        }
        let failed = i % 2 == 0;
        let end = if failed { End::plain(Outcome::UpstreamError, 503) } else { End::plain(Outcome::Success, 200) };
        walk.exchange(Arm::Canary, false, 1_000 + i % 97, end);
        walk.traffic(0, false);
    }
    assert!(walk.phase() == "rolled_back" && walk.why().contains("limit"), "{}", walk.why());
    // Nothing but failures: the breaker, long before.
    let mut walk = Walk::new();
    for i in 0..40u64 {
        walk.exchange(Arm::Canary, false, 1_000 + i, End::plain(Outcome::UpstreamError, 503));
        walk.traffic(0, false);
    }
    assert!(walk.phase() == "rolled_back" && walk.why().contains("breaker"), "{}", walk.why());
}
