//! A gate that comes near its rollback limit is told of before anything is rolled back: once, by its name.

use std::time::Duration;

use serde_json::{Value, json};
use serin::clock::Clock;
use serin::evaluator::mailbox::Score;
use serin::evaluator::{Ask, Letter};
use serin::judge::{Fact, Metric};
use serin::names::{Arm, RolloutName, Wall};

use crate::client::Admin;
use crate::fixture::{House, head, rollout, shared, until};
use crate::receiver::Receiver;

/// Scores of each arm at a time: few, for the evidence is looked at every some seconds only. Units of each arm.
const BATCH: u64 = 1;
const UNITS: u64 = 60;

/// SplitMix64's mixing step, as a number from 0 to 1.
fn noise(n: u64) -> f64 {
    let z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

struct Trial {
    house: House,
    admin: Admin,
    known: u64,
}

impl Trial {
    fn gate(&mut self) -> Value {
        let said = self.admin.must("GET", "/api/v1/rollouts/chat", &json!(null));
        assert_eq!(said["phase"], "running", "it must not fall here: {}", said["why"]);
        said["gates"].as_array().unwrap().iter().find(|gate| gate["name"] == "quality_mean").unwrap().clone()
    }

    /// The log evidence against the canary, as a part of its bar.
    fn part(&mut self) -> f64 {
        let evidence = &self.gate()["evidence"];
        evidence["rollback"].as_f64().unwrap() / evidence["bar"].as_f64().unwrap()
    }

    /// A second with scores of both arms, of which the canary's are somewhat worse; waits until they are shown.
    fn scores(&mut self) {
        self.house.clock.advance(Duration::from_secs(1));
        let now = self.house.clock.now();
        let mut scores = Vec::new();
        for n in 0..BATCH {
            for (arm, mean) in [(Arm::Stable, 0.8), (Arm::Canary, 0.7)] {
                let number = (self.known + n) * 2 + u64::from(arm == Arm::Canary);
                let user = 1 + number % (2 * UNITS);
                let value = mean + 0.4 * (noise(number) - 0.5);
                let (metric, arrived) = (Metric::Quality, now);
                let fact = Fact::Score { arm, user, drawn: true, metric, value, arrived, known: now };
                scores.push(Score { rollout: RolloutName::new("chat"), fact });
            }
        }
        self.known += BATCH;
        let letter = Letter { ask: Ask::Scores(scores), answer: Box::new(|_| ()) };
        self.house.serin().mailbox.post(letter).unwrap();
        let known = self.known;
        until("the scores in the picture", || {
            // Pictures are painted as time goes by.
            self.house.clock.advance(Duration::from_millis(20));
            (self.gate()["samples"].as_u64().unwrap() == known).then_some(())
        });
    }
}

#[test]
fn a_gate_within_a_fifth_of_its_rollback_limit_is_told_of_once_by_name_before_anything_falls() {
    let _machine = shared();
    let (ops, clock) = (Receiver::start(), Clock::manual(Wall(1_795_183_200_000)));
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let plan = "[[rollouts.chat.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\n\
                [[rollouts.chat.plan.stages]]\nweight = 100.0\n\
                [rollouts.chat.gates.quality_mean]\nrollback = \"-10%\"\npromote = \"-2%\"\n\
                [rollouts.chat.gates.error_rate]\nrollback = \"+0.5pp\"\npromote = \"+0.1pp\"\n\
                [rollouts.chat.evaluator]\nwarm_up = \"0s\"\n";
    let text = head(1, false) + &ops.config("ops") + &rollout("chat", nowhere, nowhere, "") + plan;
    let house = House::start(&text, &clock);
    let mut admin = Admin::new(house.admin());
    admin.verb("chat", "start");
    let mut trial = Trial { house, admin, known: 0 };
    let mut parts = Vec::new();
    while parts.last().is_none_or(|part| *part < 0.8) {
        trial.scores();
        parts.push(trial.part());
        assert!(parts.len() < 1_000, "never near: {parts:?}");
        if parts.last().is_some_and(|part| *part < 0.6) {
            assert_eq!(ops.told("limit").len(), 0, "far from it nothing is told: {parts:?}");
        }
    }
    println!("near after {} scores of each arm: {parts:.2?}", trial.known);
    let near = *parts.last().unwrap();
    assert!((0.8..1.0).contains(&near), "{parts:?}");
    // Ten seconds of being near are waited for; the scores have ended, and the evidence stands.
    let told = until("the notice", || {
        clock.advance(Duration::from_millis(20));
        Some(ops.told("limit")).filter(|told| !told.is_empty())
    });
    let message = &told[0]["data"];
    assert_eq!((&message["raises"], &message["severity"]), (&json!("chat/limit/quality_mean"), &json!("warning")));
    assert_eq!(message["gates"][0]["name"], "quality_mean", "{message}");
    let text = message["text"].as_str().unwrap();
    assert!(
        text.starts_with("quality_mean of b at 50 % has come to ") && text.contains("of its rollback limit"),
        "{text}"
    );
    assert_eq!(trial.gate()["on"], "rollback");
    // However long it stays there, it is said once; what happens next is another notice.
    let (system, begun) = (Clock::system(), Clock::system().now());
    until("three more looks", || {
        clock.advance(Duration::from_millis(20));
        (system.now().since(begun) >= Duration::from_millis(3_500)).then_some(())
    });
    trial.admin.verb("chat", "pause");
    assert_eq!(ops.wait("paused", 1).len(), 1);
    assert_eq!(ops.told("limit").len(), 1, "once");
}
