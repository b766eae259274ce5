//! What a reload must leave as it is: everything, where the journal has no room; the gates of a running rollout, for
//! judge and guard alike, until an owner takes the file's in.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serin::journal::Body;
use serin::judge::{End, Fact, Outcome};
use serin::measure::ring::Record;
use serin::names::Arm;
use serin::rollout::Verb;

use crate::bench::Bench;
use crate::fixture::{head, rollout, until};

fn file(names: &[&str], gates: &str, canary: &str) -> String {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let each = names.iter().map(|name| rollout(name, nowhere, nowhere, "weight = 0.0"));
    let text = head(2, false) + &each.collect::<String>() + gates;
    text.replace("version = \"b\"", &format!("version = \"{canary}\""))
}

#[test]
fn a_reload_that_the_journal_has_no_room_for_changes_nothing() {
    let mut bench = Bench::new(&file(&["chat", "gone", "other"], "", "b"));
    bench.weigh(10.0);
    for verb in [Verb::Abort, Verb::Clear] {
        bench.command(verb);
        bench.settle();
    }
    let filler = until("a record", || {
        bench.journal.after(0, 1).first().and_then(|entry| match &entry.body {
            Body::Record(record) => Some(record.clone()),
            _ => None,
        })
    });
    // The journal's thread hangs in the word about this one, and the queue behind it fills.
    let (let_go, wait) = sync_channel::<()>(0);
    let hang = Box::new(move |_| assert!(wait.recv().is_ok()));
    bench.journal.append(filler.clone(), Some(hang)).unwrap();
    while bench.journal.append(filler.clone(), None).is_ok() {}
    let (before, views) = (bench.live.load(), bench.board.read().rollouts.clone());
    let fresh = file(&["chat", "new", "other"], "", "c");
    let refused = bench.reload(&fresh).unwrap_err();
    assert_eq!(
        refused,
        "the journal's queue has no room for 3 records: the disk hangs; nothing of the file is in force; reload again when the disk answers"
    );
    let after = bench.live.load();
    assert_eq!(after.generation, before.generation, "no table was touched");
    let told = |views: &[std::sync::Arc<serin::evaluator::RolloutView>]| {
        views.iter().map(|v| (v.name.clone(), v.generation, v.phase)).collect::<Vec<_>>()
    };
    assert_eq!(told(&bench.board.read().rollouts), told(&views));
    // The disk is back: the same file is taken whole.
    let_go.send(()).unwrap();
    until("room", || bench.journal.has_room(3).then_some(()));
    bench.reload(&fresh).unwrap();
    let names: Vec<_> = bench.live.load().rollouts.iter().map(|r| r.fixed.config.name.to_string()).collect();
    assert_eq!(names, ["chat", "new", "other"]);
    assert!(bench.live.load().rollouts.iter().all(|r| r.fixed.config.canary.as_ref().unwrap().name.as_str() == "c"));
}

/// The error rate's rollback margin, as the API shows it.
fn margin(bench: &Bench) -> f64 {
    let views = bench.board.read().rollouts.clone();
    views[0].gates.iter().find(|gate| gate.name == "error_rate").unwrap().rollback.unwrap()
}

/// `count` canary failures of as many users, with stable well beside them, one every 10 ms.
fn failures(bench: &mut Bench, first: u64, count: u64) {
    let slot = bench.live.load().rollout("chat").unwrap().fixed.slot;
    for id in first..first + count {
        for (arm, status) in [(Arm::Stable, 200), (Arm::Canary, 503)] {
            let (at, id) = (bench.clock.now(), 2 * id + u64::from(arm == Arm::Canary));
            let outcome = if status == 200 { Outcome::Success } else { Outcome::UpstreamError };
            let end = End::plain(outcome, status);
            for fact in [Fact::Start { id, at, arm, user: id, drawn: true }, Fact::End { id, at, end }] {
                bench.rings[0].push(Record::new(slot, fact));
            }
        }
        bench.clock.advance(Duration::from_millis(10));
    }
    bench.guard.turn();
}

#[test]
fn a_running_rollouts_gates_stay_for_judge_and_guard_until_an_owner_takes_the_files() {
    let gates = |percent: &str| {
        format!("[rollouts.chat.gates.error_rate]\nrollback = \"+{percent}pp\"\npromote = \"+0.1pp\"\non = \"hold\"\n")
    };
    let mut bench = Bench::new(&file(&["chat"], &gates("2"), "b"));
    bench.weigh(10.0);
    bench.guard.turn();
    // The evaluator is not asked from here on but by letters: what latches is the guard.
    failures(&mut bench, 0, 7);
    assert!(!bench.latched(), "seven failures are no proof");
    bench.reload(&file(&["chat"], &gates("30"), "b")).unwrap();
    bench.clock.advance(Duration::from_secs(1));
    bench.judge();
    assert_eq!(margin(&bench), 0.02, "the judge's are frozen");
    // So is the guard: it has forgotten none of the seven.
    bench.guard.turn();
    failures(&mut bench, 7, 2);
    assert!(bench.latched(), "the breaker began anew at the reload");
    assert_eq!(bench.live.load().rollout("chat").unwrap().runtime.latch.as_ref().unwrap().actor, "breaker");
    // The rollout has ended: the file's gates are those of the next.
    bench.judge();
    bench.clock.advance(Duration::from_secs(1));
    bench.judge();
    assert_eq!(margin(&bench), 0.3);

    let mut bench = Bench::new(&file(&["chat"], &gates("2"), "b"));
    bench.weigh(10.0);
    bench.reload(&file(&["chat"], &gates("30"), "b")).unwrap();
    bench.clock.advance(Duration::from_secs(1));
    bench.judge();
    assert_eq!(margin(&bench), 0.02);
    bench.command(Verb::Gates);
    bench.settle();
    assert_eq!(margin(&bench), 0.3);
}
