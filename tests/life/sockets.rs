//! The same break on real sockets: ten rollouts in one process, four of them with the evaluator's thread hung.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};
use tokio::time::MissedTickBehavior;

use crate::client::{Admin, Caller};
use crate::fixture::{House, hang, head, rollout, shared, until};

/// Callers of one rollout, ten requests a second each; half go to the canary.
const CALLERS: u64 = 4;
const ALIVE: usize = 6;
const HUNG: usize = 4;

fn name(index: usize) -> String {
    format!("r{index}")
}

/// Callers of every rollout until told to stop, on a thread of their own.
fn load(edge: std::net::SocketAddr, stop: Arc<AtomicBool>, failed: Arc<Mutex<Vec<String>>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..CALLERS * (ALIVE + HUNG + 1) as u64 {
            let (stop, failed) = (Arc::clone(&stop), Arc::clone(&failed));
            callers.spawn(async move {
                let path = format!("/{}/x", name((number / CALLERS) as usize));
                let mut caller = Caller::connect(edge).await.unwrap();
                let mut pace = tokio::time::interval(Duration::from_millis(100));
                pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut user = number;
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    user = user.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    match caller.get(&path, &format!("u{}", user >> 50)).await {
                        Ok(answer) if answer.status == 200 || answer.canary && answer.status == 503 => {}
                        other => failed.lock().unwrap().push(format!("{path}: {other:?}")),
                    }
                }
            });
        }
        while callers.join_next().await.is_some() {}
    });
}

#[test]
fn on_real_sockets_a_canary_of_5xx_is_cut_within_two_seconds_even_while_the_evaluator_hangs() {
    let _machine = shared();
    let clock = Clock::system();
    let server = |version: &str| ModelServer::start(Script::named(version), 7, clock.clone()).unwrap();
    let stable = server("a");
    let canaries: Vec<_> = (0..=ALIVE + HUNG).map(|_| server("b")).collect();
    let mut text = head(2, false);
    for (index, canary) in canaries.iter().enumerate() {
        text += &rollout(&name(index), stable.addr(), canary.addr(), "weight = 50.0");
    }
    let house = House::start(&text, &clock);
    let live = &house.serin().live;
    let stop = Arc::new(AtomicBool::new(false));
    let failed = Arc::new(Mutex::new(Vec::new()));
    let callers = std::thread::spawn({
        let (edge, stop, failed) = (house.edge(), Arc::clone(&stop), Arc::clone(&failed));
        move || load(edge, stop, failed)
    });
    let served = |index: usize| canaries[index].counts().requests;
    until("every canary is in use", || (0..canaries.len()).all(|i| served(i) >= 20).then_some(()));
    let latched = |index: usize| live.load().rollout(&name(index)).unwrap().runtime.latch.clone();
    let break_all = |range: std::ops::Range<usize>, how: &str| {
        let mut under_way: Vec<_> = range
            .map(|index| {
                canaries[index].change(|script| (script.error_rate, script.error_status) = (1.0, 503));
                (index, clock.now(), served(index))
            })
            .collect();
        let mut worst = (Duration::ZERO, 0);
        until("every latch", || {
            under_way.retain(|(index, at, before)| {
                let Some(latch) = latched(*index) else { return true };
                let (took, answers) = (clock.now().since(*at), served(*index) - before);
                assert!(took <= Duration::from_secs(2), "rollout {index}, evaluator {how}: {took:?}");
                assert!(answers <= 30, "rollout {index}, evaluator {how}: {answers} answers");
                assert_eq!(latch.actor, "breaker");
                worst = (worst.0.max(took), worst.1.max(answers));
                false
            });
            under_way.is_empty().then_some(())
        });
        println!("real sockets, evaluator {how}: worst {:?} and {} answers", worst.0, worst.1);
    };

    break_all(0..ALIVE, "alive");

    let go_on = hang(house.serin());
    break_all(ALIVE..ALIVE + HUNG, "hung");

    // And the abort of a person works without it too.
    let last = ALIVE + HUNG;
    let mut admin = Admin::new(house.admin());
    let said = admin.verb(&name(last), "abort");
    assert!(said["latch"].is_object() && said["weight"] == 0.0, "{said}");
    assert!(latched(last).is_some());

    let from = stable.counts().requests;
    until("what was under way", || (stable.counts().requests >= from + 40).then_some(()));
    let arrived = served(last);

    // Awake again, it takes over what others have latched.
    drop(go_on);
    for index in 0..canaries.len() {
        until("the evaluator's picture", || {
            let said = admin.must("GET", &format!("/api/v1/rollouts/{}", name(index)), &json!(null));
            (said["phase"] == "rolled_back" && said["latch"].is_object()).then_some(())
        });
        assert!(latched(index).is_some(), "rollout {index} lost its latch");
    }
    stop.store(true, Ordering::Relaxed);
    callers.join().unwrap();
    assert_eq!(served(last), arrived, "no canary request after the abort was answered");
    assert!(failed.lock().unwrap().is_empty(), "{:?}", failed.lock().unwrap());
}
