//! A latch is never lost, whoever else writes at the same time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use serde_json::json;
use serin::clock::Clock;
use serin::config;
use serin::measure::Recorders;
use serin::names::Wall;
use serin::snapshot::{Builder, Latch, Live, Prepared, Runtime};
use serin::split::Weight;

use crate::client::Admin;
use crate::fixture::{House, hang, head, rollout, shared};

fn prepared() -> Arc<Prepared> {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let text =
        head(1, false) + &rollout("chat", nowhere, nowhere, "weight = 0.0") + &rollout("x", nowhere, nowhere, "");
    let config = config::parse(&text, "latches.toml", &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let builder = Builder::new(Arc::default(), Arc::new(Recorders::new(1)), b"");
    Arc::new(builder.prepare(Arc::new(config)).unwrap())
}

/// What every writer of weights does: a latch that others have set stands.
fn set_weight(live: &Live, name: &str, buckets: u32) {
    live.update_runtime(name, |now| {
        now.latch.is_none().then(|| Runtime { weight: Weight::from_buckets(buckets), ..now.clone() })
    });
}

#[test]
fn no_latch_is_lost_in_200_rounds_of_concurrent_writes_and_reloads() {
    const ROUNDS: u32 = 200;
    const WRITES: u32 = 150;
    const WRITERS: u32 = 4;
    let prepared = prepared();
    let mut applied = 0;
    for round in 0..ROUNDS {
        let live = Live::new(prepared.merge(|_| Runtime::default()));
        let start = Barrier::new(WRITERS as usize + 2);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (live, start) = (&live, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..WRITES {
                        // Weights of this rollout and of its neighbour: the cell is one.
                        set_weight(live, if writer % 2 == 0 { "chat" } else { "x" }, n % 100_000);
                    }
                });
            }
            // Reloads publish whole snapshots.
            scope.spawn(|| {
                start.wait();
                for _ in 0..20 {
                    live.update(|current| Some(prepared.merge_onto(current, |_| false, |_| Runtime::default())));
                }
            });
            scope.spawn(|| {
                start.wait();
                (0..round % 50).for_each(|n| set_weight(&live, "x", n));
                let latch = Arc::new(Latch { at: Wall(0), actor: "test".to_owned(), reason: String::new() });
                live.update_runtime("chat", |_| {
                    Some(Runtime { latch: Some(Arc::clone(&latch)), ..Runtime::default() })
                });
            });
        });
        let after = live.load();
        assert!(after.rollout("chat").unwrap().split.latched, "round {round}: the latch is lost");
        assert!(after.rollout("chat").unwrap().split.weight == Weight::ZERO, "round {round}: latched, yet not at 0");
        applied += after.generation - 1;
    }
    println!(
        "{ROUNDS} rounds, {} writes tried in each, {applied} applied in all: no latch lost",
        WRITES * WRITERS + 20
    );
}

#[test]
fn aborts_by_the_api_win_against_weights_by_the_api() {
    let _machine = shared();
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let house = House::start(&(head(1, false) + &rollout("chat", nowhere, nowhere, "weight = 0.0")), &Clock::system());
    let mut admin = Admin::new(house.admin());
    let writes = AtomicU64::new(0);
    for round in 0..40 {
        admin.weight("chat", 5.0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (stop, writes, addr) = (&stop, &writes, house.admin());
                scope.spawn(move || {
                    let mut admin = Admin::new(addr);
                    let mut n = writer;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        let body = json!({"weight": f64::from(n % 50) + 1.0, "reason": "load"});
                        let (status, said) = admin.call("PUT", "/api/v1/rollouts/chat/weight", &body);
                        assert!(matches!(status, 200 | 409 | 503), "{status} {said}");
                        writes.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let from = writes.load(Ordering::Relaxed);
            crate::fixture::until("writes under way", || (writes.load(Ordering::Relaxed) > from + 5).then_some(()));
            let said = admin.verb("chat", "abort");
            assert!(said["latch"].is_object() && said["weight"] == 0.0, "round {round}: {said}");
            let after = writes.load(Ordering::Relaxed);
            crate::fixture::until("writes after it", || (writes.load(Ordering::Relaxed) > after + 5).then_some(()));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(house.serin().live.load().rollout("chat").unwrap().split.latched, "round {round}: the latch is lost");
        let said = admin.must("GET", "/api/v1/rollouts/chat", &json!(null));
        assert!(said["phase"] == "rolled_back" && said["latch"].is_object(), "round {round}: {said}");
        admin.verb("chat", "clear");
    }
    println!("40 aborts among {} weights by the API: all latched", writes.load(Ordering::Relaxed));
}

#[test]
fn a_stop_beside_a_full_mailbox_ends_all_the_same() {
    use serin::evaluator::{Ask, Letter, Refused};
    let _machine = shared();
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let mut house =
        House::start(&(head(1, false) + &rollout("chat", nowhere, nowhere, "weight = 0.0")), &Clock::system());
    let mailbox = house.serin().mailbox.clone();
    let go_on = hang(house.serin());
    let full =
        crate::fixture::until("a full box", || mailbox.post(Letter { ask: Ask::Look, answer: Box::new(|_| ()) }).err());
    assert!(matches!(full, Refused::Unavailable(_)));
    let (done, ended) = std::sync::mpsc::sync_channel(1);
    let serin = house.serin.take().unwrap();
    std::thread::spawn(move || {
        serin.stop();
        done.send(()).unwrap();
    });
    // The evaluator hangs until the end has been asked for or refused; 100 ms are ample for that.
    assert!(ended.recv_timeout(std::time::Duration::from_millis(100)).is_err(), "it cannot have ended yet");
    drop(go_on);
    ended.recv_timeout(crate::fixture::PATIENCE).unwrap();
}
