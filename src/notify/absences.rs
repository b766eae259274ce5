//! Receivers that fail ten times, are slow, or are gone for a day: every notice arrives once, in order for each rollout,
//! after a restart too.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use super::outbox::Outcome;
use super::store;
use super::testing::{Act, Receiver, eventually};
use super::trials::{Post, ids, target};
use crate::rollout::Tidings;

const ROLLOUTS: [&str; 3] = ["chat", "search", "tools"];

/// Tells of each rollout in turn, from one generation to the next.
fn tell(post: &Post, generations: std::ops::RangeInclusive<u64>) {
    for generation in generations {
        for rollout in ROLLOUTS {
            post.tell_of(rollout, generation, Tidings::Stage);
        }
    }
}

/// What each rollout's receiver was told, in the order in which it came.
fn by_rollout(ids: &[String]) -> BTreeMap<&str, Vec<&str>> {
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in ids {
        let (rollout, rest) = id.split_once('-').unwrap();
        told.entry(rollout).or_default().push(rest);
    }
    told
}

fn every_one_once_in_order(ids: &[String], generations: std::ops::RangeInclusive<u64>) {
    let expect: Vec<String> = generations.map(|generation| format!("{generation}-stage")).collect();
    let told = by_rollout(ids);
    for rollout in ROLLOUTS {
        assert_eq!(told[rollout], expect, "{rollout}");
    }
}

#[test]
fn a_receiver_that_fails_ten_times_is_told_everything_once_in_order() {
    let faults = [500, 502, 503, 504, 429, 401, 404, 500, 503, 302].map(|status| Act::Answer(status, ""));
    let receiver = Receiver::start(faults);
    let post = Post::start(&target("ops", "webhook", &receiver.url("/"), ""));
    tell(&post, 1..=4);
    post.until("ops", Outcome::Delivered, 12);
    assert_eq!(post.count("ops", Outcome::Retried), 10);
    let taken = ids(&receiver.taken());
    assert!(taken[..11].iter().all(|id| id == "chat-1-stage"), "nothing overtakes what fails: {taken:?}");
    every_one_once_in_order(&taken[10..], 1..=4);
    post.end();
}

#[test]
fn a_slow_receiver_is_told_everything_once_in_order_and_delays_no_other() {
    const SLOW: Duration = Duration::from_millis(60);
    let (slow, quick) = (Receiver::start([]), Receiver::start([]));
    slow.always(Some(Act::Slow(SLOW)));
    let both = target("slow", "webhook", &slow.url("/"), "") + &target("quick", "webhook", &quick.url("/"), "");
    let post = Post::start(&both);
    tell(&post, 1..=8);
    post.until("quick", Outcome::Delivered, 24);
    assert!(post.count("slow", Outcome::Delivered) < 24, "it was waited for");
    post.until("slow", Outcome::Delivered, 24);
    assert_eq!(post.count("slow", Outcome::Retried), 0);
    every_one_once_in_order(&ids(&slow.taken()), 1..=8);
    every_one_once_in_order(&ids(&quick.taken()), 1..=8);
    post.end();
}

#[test]
fn a_receiver_gone_for_a_day_is_told_everything_once_in_order_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    // Where nobody listens: connecting is refused.
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let notify = target("ops", "webhook", &format!("http://{addr}/"), "keep = \"36h\"");
    for (life, generations) in [1..=2, 3..=4, 5..=6].into_iter().enumerate() {
        let post = Post::open(&notify, store::open(dir.path()).unwrap(), Vec::new());
        post.clock.advance(Duration::from_secs(8 * 3_600) * u32::try_from(life).unwrap());
        tell(&post, generations);
        eventually("attempts", || post.count("ops", Outcome::Retried) >= 3);
        post.end();
    }
    let receiver = Receiver::at(addr, []);
    let post = Post::open(&notify, store::open(dir.path()).unwrap(), Vec::new());
    post.clock.advance(Duration::from_secs(24 * 3_600));
    tell(&post, 7..=7);
    post.until("ops", Outcome::Delivered, 21);
    every_one_once_in_order(&ids(&receiver.taken()), 1..=7);
    post.end();
    let opened = store::open(dir.path()).unwrap();
    assert_eq!(opened.outbox.receipts().filter(|r| r.result == Outcome::Delivered).count(), 21, "a receipt each");
}
