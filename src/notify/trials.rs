//! Every kind of receiver on real loopback sockets, with faults: failures, time-outs, resets, restarts, full queues.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::courier::{Handle, Parts, Tuning, spawn};
use super::outbox::Outcome;
use super::store::{self, Opened};
use super::teller::Seen;
use super::testing::{Act, Receiver, Taken, eventually};
use super::{Counts, signature};
use crate::clock::Clock;
use crate::config::{self, Config, Secret};
use crate::names::{RolloutName, VersionName, Wall};
use crate::rollout::{Notice, Tidings};
use crate::split::Weight;

/// 2026-11-20T14:00:00Z, a Friday.
const START: Wall = Wall(1_795_183_200_000);

const HURRY: Tuning = Tuning {
    first_wait: Duration::from_millis(2),
    longest_wait: Duration::from_millis(20),
    refresh: Duration::from_millis(20),
    parting: Duration::from_millis(300),
};

fn config(notify: &str) -> Arc<Config> {
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[listeners.e]\nlisten = \"127.0.0.1:0\"\n[rollouts.chat]\nunit = [\"ip\"]\nstable = {{ version = \"a\", endpoints = [\"http://127.0.0.1:1\"] }}\n{notify}"
    );
    Arc::new(config::parse(&text, "t", &|_| None).unwrap_or_else(|faults| panic!("{faults}")))
}

pub(super) fn target(name: &str, kind: &str, url: &str, more: &str) -> String {
    format!("[notify.{name}]\nkind = \"{kind}\"\nurl = \"{url}\"\n{more}\n")
}

fn notice(generation: u64, tidings: Tidings) -> Notice {
    Notice {
        at: START,
        rollout: RolloutName::new("chat"),
        version: Some(VersionName::new("b")),
        tidings,
        text: format!("b did something at {generation}"),
        actor: "judge".to_owned(),
        weight: Weight::from_percent(5.0).unwrap(),
        generation,
    }
}

pub(super) struct Post {
    handle: Option<Handle>,
    threads: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
    pub(super) clock: Clock,
    /// The judge's silence, milliseconds.
    silence: Arc<AtomicU64>,
    seen: Arc<Mutex<Seen>>,
    looks: Arc<AtomicU64>,
    config: Arc<Mutex<Arc<Config>>>,
}

impl Post {
    pub(super) fn start(notify: &str) -> Self {
        Self::open(notify, Opened::default(), Vec::new())
    }

    pub(super) fn open(notify: &str, opened: Opened, missed: Vec<Notice>) -> Self {
        let counts = Arc::new(Counts::default());
        let clock = Clock::manual(START);
        let silence = Arc::new(AtomicU64::new(0));
        let seen = Arc::new(Mutex::new(Seen {
            name: "chat".to_owned(),
            version: Some("b".to_owned()),
            stable: "a".to_owned(),
            phase: "running".to_owned(),
            why: "5 % since 14:00".to_owned(),
            generation: u64::MAX,
            timeline: Some("1 % for 24h; 100 % for 72h".to_owned()),
            criteria: vec!["error_rate beyond +0.50 pp".to_owned()],
            contact: Some("release@example.com".to_owned()),
            ..Seen::default()
        }));
        let looks = Arc::new(AtomicU64::new(0));
        let held = Arc::new(Mutex::new(config(notify)));
        let parts = Parts {
            opened,
            missed,
            clock: clock.clone(),
            config: {
                let held = Arc::clone(&held);
                Box::new(move || Arc::clone(&held.lock().unwrap()))
            },
            seen: {
                let (seen, looks) = (Arc::clone(&seen), Arc::clone(&looks));
                Box::new(move |_| {
                    looks.fetch_add(1, Ordering::Relaxed);
                    vec![seen.lock().unwrap().clone()]
                })
            },
            heartbeat_age: {
                let silence = Arc::clone(&silence);
                Box::new(move || Duration::from_millis(silence.load(Ordering::Relaxed)))
            },
            seed: 1,
            tuning: HURRY,
            counts: Arc::clone(&counts),
        };
        let (handle, threads) = spawn(parts).unwrap();
        Self { handle: Some(handle), threads, counts, clock, silence, seen, looks, config: held }
    }

    pub(super) fn tell(&self, generation: u64, tidings: Tidings) {
        self.tell_of("chat", generation, tidings);
    }

    pub(super) fn tell_of(&self, rollout: &str, generation: u64, tidings: Tidings) {
        let notice = Notice { rollout: RolloutName::new(rollout), ..notice(generation, tidings) };
        self.handle.as_ref().unwrap().tell(&notice);
    }

    pub(super) fn count(&self, target: &str, result: Outcome) -> u64 {
        self.counts.told().iter().filter(|t| t.target == target && t.result == result).map(|t| t.count).sum()
    }

    pub(super) fn until(&self, target: &str, result: Outcome, count: u64) {
        eventually(&format!("{count} {} at {target}", result.as_str()), || self.count(target, result) >= count);
        assert_eq!(self.count(target, result), count);
    }

    /// Waits until it has looked at everything anew.
    fn look(&self) {
        let before = self.looks.load(Ordering::Relaxed);
        eventually("two looks", || self.looks.load(Ordering::Relaxed) >= before + 2);
    }

    /// Ends in good order.
    pub(super) fn end(mut self) {
        self.handle = None;
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

pub(super) fn ids(taken: &[Taken]) -> Vec<String> {
    taken.iter().map(|t| t.header("webhook-id").to_owned()).collect()
}

#[test]
fn a_webhook_is_a_signed_cloudevent() {
    let receiver = Receiver::start([]);
    let post = Post::start(&target("ops", "webhook", &receiver.url("/hook?a=b"), "secret = \"correct horse\""));
    post.tell(7, Tidings::RolledBack);
    let taken = receiver.wait(1).remove(0);
    assert_eq!(taken.line, "POST /hook?a=b");
    assert_eq!(taken.header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!(taken.header("host"), receiver.addr.to_string());
    let (id, stamp, signed) =
        (taken.header("webhook-id"), taken.header("webhook-timestamp"), taken.header("webhook-signature"));
    assert_eq!(id, "chat-7-rollback");
    let secret = Secret::new("correct horse");
    signature::verify(&secret, (id, stamp, signed), taken.body.as_bytes(), START).unwrap();
    let json = taken.json();
    for (key, expect) in [
        ("specversion", json!("1.0")),
        ("id", json!("chat-7-rollback")),
        ("source", json!("urn:serin")),
        ("type", json!("serin.rollback")),
        ("subject", json!("chat")),
        ("time", json!("2026-11-20T14:00:00.000Z")),
    ] {
        assert_eq!(json[key], expect, "{key}");
    }
    let data = &json["data"];
    assert_eq!((&data["severity"], &data["raises"]), (&json!("error"), &json!("chat/rollback")));
    assert!(data["title"].as_str().unwrap().starts_with("P2 "), "{data}");
    assert!(!taken.body.contains("correct horse"));
    post.end();
}

#[test]
fn who_begins_a_rollout_is_told_with_first_weight_timeline_criteria_and_contact() {
    let receiver = Receiver::start([]);
    let post = Post::start(&target("chat", "slack", &receiver.url("/T/B/x"), ""));
    post.tell(1, Tidings::Started);
    let json = receiver.wait(1)[0].json();
    assert_eq!(json["text"], "🚦 chat: b starts at 5 %");
    let fields: Vec<String> = json["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|b| b["fields"].as_array().cloned().unwrap_or_default())
        .map(|f| f["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        fields,
        [
            "*First weight*\n5 %",
            "*Stable*\na",
            "*Timeline*\n1 % for 24h; 100 % for 72h",
            "*Rolled back by*\nerror_rate beyond +0.50 pp",
            "*Contact*\nrelease@example.com"
        ]
    );
    post.end();
}

#[test]
fn pagerduty_is_woken_by_a_rollback_and_put_to_rest_when_it_is_cleared() {
    let receiver = Receiver::start([]);
    let post = Post::start(&target("oncall", "pagerduty", &receiver.url("/v2/enqueue"), "secret = \"routing\""));
    post.tell(1, Tidings::Started);
    post.tell(2, Tidings::RolledBack);
    post.tell(3, Tidings::Cleared);
    post.tell(4, Tidings::Aborted);
    post.tell(5, Tidings::Cleared);
    post.tell(6, Tidings::RolledBack);
    let all: Vec<Value> = receiver.wait(3).iter().map(Taken::json).collect();
    let short = |event: &Value| {
        (event["event_action"].as_str().unwrap().to_owned(), event["dedup_key"].as_str().unwrap().to_owned())
    };
    let expect =
        [("trigger", "serin/chat/rollback"), ("resolve", "serin/chat/rollback"), ("trigger", "serin/chat/rollback")];
    assert_eq!(all.iter().map(short).collect::<Vec<_>>(), expect.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!((&all[0]["routing_key"], &all[0]["payload"]["severity"]), (&json!("routing"), &json!("error")));
    post.end();
}

#[test]
fn alertmanager_hears_of_what_stands_again_and_again_until_it_ends() {
    let receiver = Receiver::start([]);
    let post = Post::start(&target("am", "alertmanager", &receiver.url("/prefix"), ""));
    post.tell(2, Tidings::RolledBack);
    let again = receiver.wait(3);
    let labels = json!({"alertname": "SerinRolledBack", "service": "serin", "rollout": "chat"});
    for taken in &again {
        assert_eq!(taken.line, "POST /prefix/api/v2/alerts");
        assert_eq!(taken.json()[0]["labels"], labels);
        assert_eq!(taken.json()[0]["startsAt"], "2026-11-20T14:00:00.000Z");
        assert_eq!(taken.json()[0]["endsAt"], "2026-11-20T14:05:00.000Z");
    }
    post.tell(3, Tidings::Cleared);
    eventually("the end", || receiver.taken().last().is_some_and(|t| t.json()[0].get("startsAt").is_none()));
    let last = receiver.taken().pop().unwrap().json();
    assert_eq!(last, json!([{"labels": labels, "endsAt": "2026-11-20T14:00:00.000Z"}]));
    let count = receiver.taken().len();
    std::thread::park_timeout(HURRY.refresh * 4);
    assert_eq!(receiver.taken().len(), count, "what has ended is not said again");
    post.end();
}

#[test]
fn failures_time_outs_and_resets_lose_nothing_and_keep_the_order_and_the_ids() {
    let acts = [
        Act::Answer(500, ""),
        Act::Reset,
        Act::Hang,
        Act::Flood,
        Act::Answer(302, "location: http://127.0.0.1:1/\r\n"),
        Act::Answer(200, ""),
        Act::Answer(401, ""),
        Act::Answer(200, ""),
    ];
    let receiver = Receiver::start(acts);
    let more = "secret = \"correct horse\"\ntimeout = \"2s\"";
    let post = Post::start(&target("ops", "webhook", &receiver.url("/"), more));
    for generation in 1..=3 {
        post.tell(generation, Tidings::Stage);
    }
    post.until("ops", Outcome::Delivered, 3);
    let taken = receiver.taken();
    let expect: Vec<String> = [1, 1, 1, 1, 1, 1, 2, 2, 3].iter().map(|n| format!("chat-{n}-stage")).collect();
    assert_eq!(ids(&taken), expect);
    assert_eq!(receiver.acts_left(), 0);
    assert!(taken[..6].iter().all(|t| t.body == taken[0].body), "the same message each time");
    assert_eq!(post.count("ops", Outcome::Retried), 6);
    post.end();
}

#[test]
fn a_receiver_that_hangs_delays_no_other() {
    let (hung, good) = (Receiver::start([]), Receiver::start([]));
    hung.always(Some(Act::Hang));
    let both =
        target("hung", "webhook", &hung.url("/"), "timeout = \"60s\"") + &target("good", "webhook", &good.url("/"), "");
    let post = Post::start(&both);
    for generation in 1..=50 {
        post.tell(generation, Tidings::Stage);
    }
    post.until("good", Outcome::Delivered, 50);
    assert_eq!(hung.taken().len(), 1);
    eventually("the gauge", || post.counts.waiting().iter().any(|w| w.target == "hung" && w.depth == 50));
    post.end();
}

#[test]
fn what_a_receiver_refuses_for_good_does_not_hold_up_the_rest() {
    let receiver = Receiver::start([Act::Answer(400, ""), Act::Answer(413, ""), Act::Answer(422, "")]);
    let post = Post::start(&target("ops", "webhook", &receiver.url("/"), ""));
    for generation in 1..=4 {
        post.tell(generation, Tidings::Stage);
    }
    post.until("ops", Outcome::Delivered, 1);
    assert_eq!(post.count("ops", Outcome::Refused), 3);
    assert_eq!(receiver.taken().len(), 4);
    post.end();
}

#[test]
fn retry_after_is_heeded() {
    let receiver = Receiver::start([Act::Answer(429, "retry-after: 1\r\n")]);
    let post = Post::start(&target("ops", "webhook", &receiver.url("/"), ""));
    let clock = Clock::system();
    let start = clock.now();
    post.tell(1, Tidings::Stage);
    receiver.wait(2);
    assert!(clock.now().since(start) >= Duration::from_secs(1), "without it the wait is 2 ms");
    post.end();
}

#[test]
fn after_a_restart_what_waited_is_told_once_in_order_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start([]);
    let notify = target("ops", "webhook", &receiver.url("/"), "");
    let post = Post::open(&notify, store::open(dir.path()).unwrap(), Vec::new());
    post.tell(1, Tidings::Started);
    post.until("ops", Outcome::Delivered, 1);
    receiver.always(Some(Act::Answer(503, "")));
    for generation in 2..=5 {
        post.tell(generation, Tidings::Stage);
    }
    post.until("ops", Outcome::Delivered, 1);
    eventually("an attempt", || post.count("ops", Outcome::Retried) >= 1);
    post.end();
    receiver.always(None);
    let before = receiver.taken().len();
    // 5 was told before the crash and comes again from the journal; 6 was recorded and never told.
    let opened = store::open(dir.path()).unwrap();
    let missed = |generation| opened.outbox.missed(&RolloutName::new("chat"), generation, 1);
    assert_eq!([missed(5), missed(6)], [false, true]);
    let missed = vec![notice(5, Tidings::Stage), notice(6, Tidings::RolledBack)];
    let post = Post::open(&notify, opened, missed);
    post.tell(7, Tidings::Cleared);
    post.until("ops", Outcome::Delivered, 6);
    let expect = ["chat-2-stage", "chat-3-stage", "chat-4-stage", "chat-5-stage", "chat-6-rollback", "chat-7-cleared"];
    let mut told = ids(&receiver.taken()[before..]);
    // An attempt that was under way when the first post ended may have come in after we looked.
    told.dedup();
    assert_eq!(told, expect);
    post.end();
    let opened = store::open(dir.path()).unwrap();
    let receipts: Vec<_> = opened.outbox.receipts().map(|r| (r.id.as_str(), r.result)).collect();
    assert_eq!(receipts.len(), 7);
    assert!(receipts.iter().all(|(_, result)| *result == Outcome::Delivered), "{receipts:?}");
}

#[test]
fn a_receiver_gone_for_a_day_gets_everything_and_one_gone_for_longer_than_keep_does_not() {
    let receiver = Receiver::start([]);
    receiver.always(Some(Act::Reset));
    let post = Post::start(&target("ops", "webhook", &receiver.url("/"), "keep = \"36h\""));
    post.tell(1, Tidings::RolledBack);
    eventually("an attempt", || post.count("ops", Outcome::Retried) >= 1);
    post.clock.advance(Duration::from_secs(24 * 3_600));
    receiver.always(None);
    post.until("ops", Outcome::Delivered, 1);
    receiver.always(Some(Act::Reset));
    post.tell(2, Tidings::Stage);
    eventually("an attempt", || post.count("ops", Outcome::Retried) >= 2);
    post.clock.advance(Duration::from_secs(13 * 3_600));
    post.until("ops", Outcome::Expired, 1);
    post.end();
}

#[test]
fn a_reload_moves_a_receiver_and_what_waits_goes_along() {
    let (old, new) = (Receiver::start([]), Receiver::start([]));
    old.always(Some(Act::Hang));
    let post = Post::start(&target("ops", "webhook", &old.url("/"), "timeout = \"60s\""));
    post.tell(1, Tidings::RolledBack);
    old.wait(1);
    *post.config.lock().unwrap() = config(&target("ops", "webhook", &new.url("/new"), ""));
    assert_eq!(ids(&new.wait(1)), ["chat-1-rollback"]);
    post.until("ops", Outcome::Delivered, 1);
    post.end();
}

#[test]
fn a_silent_judge_is_told_and_the_sign_of_life_stops() {
    let (ops, life) = (Receiver::start([]), Receiver::start([]));
    let both =
        target("ops", "webhook", &ops.url("/"), "") + &target("life", "deadman", &life.url("/ping"), "every = \"1s\"");
    let post = Post::start(&both);
    life.wait(1);
    assert_eq!(life.taken()[0].line, "POST /ping");
    post.silence.store(11_000, Ordering::Relaxed);
    let lost = ops.wait(1)[0].json();
    assert_eq!((&lost["type"], &lost["data"]["raises"]), (&json!("serin.heartbeat"), &json!("heartbeat")));
    let pings = life.taken().len();
    post.silence.store(601_000, Ordering::Relaxed);
    assert_eq!(ops.wait(2)[1].json()["data"]["severity"], "critical");
    assert!(life.taken().len() <= pings + 1, "silence is the alarm");
    post.silence.store(0, Ordering::Relaxed);
    assert_eq!(ops.wait(3)[2].json()["data"]["clears"], json!(["heartbeat"]));
    life.wait(pings + 1);
    post.end();
}

#[test]
fn summaries_come_every_four_hours_of_business_and_only_while_something_is_under_way() {
    let receiver = Receiver::start([]);
    let post = Post::start(&target("ops", "webhook", &receiver.url("/"), "events = [\"summary\"]"));
    let step = |hours: u64| {
        for _ in 0..hours * 60 {
            post.clock.advance(Duration::from_secs(60));
        }
    };
    // Friday 14:00 is where it begins; 18:00 is after hours.
    post.look();
    step(4);
    post.look();
    assert_eq!(receiver.taken().len(), 0, "Friday 18:00");
    step(63);
    let first = receiver.wait(1)[0].json();
    assert_eq!((&first["type"], &first["time"]), (&json!("serin.summary"), &json!("2026-11-23T09:00:00.000Z")));
    assert_eq!(first["data"]["facts"][0], json!({"name": "chat", "value": "b, running: 5 % since 14:00"}));
    post.tell(9, Tidings::Stage);
    post.seen.lock().unwrap().phase = "idle".to_owned();
    step(4);
    post.look();
    assert_eq!(receiver.taken().len(), 1, "nothing under way, and stages were not asked for");
    post.end();
}

#[test]
fn addresses_and_secrets_are_in_no_error() {
    let receiver = Receiver::start([]);
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let tls = Arc::new(
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for url in [
        format!("http://user:tell-nobody@{dead}/tell-nobody"),
        format!("https://{}/tell-nobody", receiver.addr),
        "http://tell-nobody.invalid/tell-nobody".to_owned(),
        "tell-nobody".to_owned(),
    ] {
        let call =
            super::http::Call { url: Secret::new(url.as_str()), headers: Vec::new(), body: "tell-nobody".into() };
        let error = runtime.block_on(super::http::post(&tls, call, Duration::from_secs(1), START)).unwrap_err();
        let shown = format!("{error} {error:?}").replace("Secret(hidden)", "");
        assert!(!shown.contains("tell-nobody"), "{shown}");
    }
}
