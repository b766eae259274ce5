//! So many judges, so much life, and then so many ticks: what `tests/instructions` counts the instructions of.
//!
//! `cargo run --release --example ticks -- JUDGES WARM_TICKS REQUESTS_A_TICK TICKS`, the requests of each judge.

use std::sync::Arc;
use std::time::Duration;

use serin::judge::{End, Fact, Judge, Outcome, Policy, Stage};
use serin::names::{Arm, Mono};

const TICK: Duration = Duration::from_millis(250);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u32> = std::env::args().skip(1).map(|number| number.parse()).collect::<Result<_, _>>()?;
    let [judges, warm, each, ticks] = numbers[..] else { return Err("four numbers".into()) };
    let policy = Arc::new(Policy::default().with_stall());
    let mut judges: Vec<Judge> = (0..judges)
        .map(|_| {
            let mut judge = Judge::new(Arc::clone(&policy), Mono(0));
            judge.enter_stage(Stage { weight: 0.1, residence: Duration::ZERO, samples: 500 }, Mono(1));
            judge
        })
        .collect();
    let (mut now, mut id) = (Mono::from_seconds(1.0), 0);
    for tick in 0..warm + ticks {
        let requests = if tick < warm { each.max(2) } else { each };
        for n in 0..requests {
            let at = now.plus(TICK * n / requests);
            for judge in &mut judges {
                id += 1;
                request(judge, id, at);
            }
        }
        now = now.plus(TICK);
        for judge in &mut judges {
            std::hint::black_box(judge.tick(now));
        }
    }
    Ok(())
}

/// One request of one of 5,000 users, a tenth of them the canary's; one in 211 fails.
fn request(judge: &mut Judge, id: u64, at: Mono) {
    let user = 1 + id.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 5_000;
    let arm = if user <= 500 { Arm::Canary } else { Arm::Stable };
    let (outcome, status) =
        if id.is_multiple_of(211) { (Outcome::UpstreamError, 500) } else { (Outcome::Success, 200) };
    judge.observe(&Fact::Start { id, at, arm, user, drawn: true });
    judge.observe(&Fact::FirstByte { id, at });
    judge.observe(&Fact::End { id, at, end: End::plain(outcome, status) });
}
