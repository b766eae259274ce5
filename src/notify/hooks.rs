//! Calls the hooks that have Flagger's names: gates that are asked before a rise, a question whether to roll back, and
//! events that are told. On a thread of its own, each call in a task of its own, so that nobody is waited for.
//!
//! What is posted is what Flagger posts: `name`, `namespace`, `phase`, `checksum` and `metadata`. A 2xx is yes; every
//! other answer, and none, is no, and the question is asked again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use rustls::ClientConfig;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::counts::{Called, Counts};
use super::http::{Call, post};
use super::signature;
use crate::clock::Clock;
use crate::config::{Config, ConfirmHook, HttpVersion, Rollout, UpstreamTls};
use crate::names::{Mono, RolloutName, VersionName, Wall};
use crate::rollout::{Hook, Notice, Tidings};
use crate::tls;

/// Events on their way from the evaluator.
const QUEUE: usize = 1_024;
/// Events that wait for one receiver.
const LANE: usize = 256;
/// How often it is looked who is to be asked.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the end of the process waits for events under way.
const PARTING: Duration = Duration::from_secs(2);

/// A rollout about which a hook is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub rollout: RolloutName,
    /// The version under release.
    pub version: VersionName,
    /// The rollout's generation.
    pub generation: u64,
    /// Which hook.
    pub hook: Hook,
    /// The phase, in Flagger's words.
    pub phase: &'static str,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// About what.
    pub asked: Asked,
    /// By which hook of the file.
    pub gate: String,
    /// Yes, or why not. Names neither address nor secret.
    pub answer: Result<(), String>,
}

/// What the thread is made of.
pub struct Parts {
    /// The source of time.
    pub clock: Clock,
    /// The configuration in force.
    pub config: Box<dyn Fn() -> Arc<Config> + Send>,
    /// What is to be asked now.
    pub asks: Box<dyn Fn() -> Vec<Asked> + Send>,
    /// Takes answers; must not block.
    pub tell: Arc<dyn Fn(Answered) + Send + Sync>,
    /// For the scrape.
    pub counts: Arc<Counts>,
}

/// The evaluator's side: hands an event over and goes on.
#[derive(Clone, Debug)]
pub struct Handle {
    events: mpsc::Sender<Notice>,
    counts: Arc<Counts>,
}

impl Handle {
    /// Hands a notice over, never waiting; without room it is lost to the `event` hooks, and counted.
    pub fn tell(&self, notice: &Notice) {
        if self.events.try_send(notice.clone()).is_err() {
            self.counts.call(notice.rollout.as_str(), Hook::Event, Called::Dropped);
        }
    }
}

/// Starts the thread; it ends once every [`Handle`] is gone.
///
/// # Errors
/// No thread could be started.
pub fn spawn(parts: Parts) -> io::Result<(Handle, JoinHandle<()>)> {
    let (events, heard) = mpsc::channel(QUEUE);
    let handle = Handle { events, counts: Arc::clone(&parts.counts) };
    let thread = std::thread::Builder::new().name("serin-hooks".to_owned()).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime.block_on(Hooks::new(parts).run(heard)),
            Err(error) => tracing::error!(error = %error, "no hook is called: a runtime could not be built"),
        }
    })?;
    Ok((handle, thread))
}

/// What is known of one hook between two looks.
#[derive(Default)]
struct Turn {
    /// About what it was last asked, and when.
    asked: Option<(Asked, Mono)>,
    under_way: bool,
}

/// A hook of a rollout, by their names.
type Key = (RolloutName, String);

struct Hooks {
    parts: Parts,
    known: Option<Arc<Config>>,
    turns: Rc<RefCell<HashMap<Key, Turn>>>,
    lanes: HashMap<Key, mpsc::Sender<String>>,
    tls: HashMap<Option<PathBuf>, Option<Arc<ClientConfig>>>,
    tasks: JoinSet<()>,
}

impl Hooks {
    fn new(parts: Parts) -> Self {
        let (turns, lanes) = (Rc::default(), HashMap::new());
        Self { parts, known: None, turns, lanes, tls: HashMap::new(), tasks: JoinSet::new() }
    }

    async fn run(mut self, mut heard: mpsc::Receiver<Notice>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                notice = heard.recv() => match notice {
                    Some(notice) => self.tell(&notice),
                    None => break,
                },
                _ = look.tick() => self.look(),
            }
            while self.tasks.try_join_next().is_some() {}
        }
        self.lanes.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PARTING, all).await.is_err() {
            tracing::warn!("events were still on their way to hooks when the process ended");
        }
    }

    /// The configuration in force; a new one ends the lanes of the old, once they are empty.
    fn follow(&mut self) -> Arc<Config> {
        let config = (self.parts.config)();
        if self.known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &config)) {
            self.lanes.clear();
            self.tls.clear();
            let there =
                |key: &Key| config.rollout(key.0.as_str()).is_some_and(|r| r.confirm.iter().any(|h| h.name == key.1));
            self.turns.borrow_mut().retain(|key, turn| turn.under_way || there(key));
            self.known = Some(Arc::clone(&config));
        }
        config
    }

    fn look(&mut self) {
        let config = self.follow();
        if config.rollouts.iter().all(|rollout| rollout.confirm.is_empty()) {
            return;
        }
        let now = self.parts.clock.now();
        for asked in (self.parts.asks)() {
            let Some(rollout) = config.rollout(asked.rollout.as_str()) else { continue };
            for hook in rollout.confirm.iter().filter(|hook| hook.hook == asked.hook) {
                let key = (asked.rollout.clone(), hook.name.clone());
                let mut turns = self.turns.borrow_mut();
                let turn = turns.entry(key.clone()).or_default();
                let again = turn.asked.as_ref().filter(|(before, _)| *before == asked);
                if turn.under_way || again.is_some_and(|(_, at)| now.since(*at) < hook.every) {
                    continue;
                }
                (turn.asked, turn.under_way) = (Some((asked.clone(), now)), true);
                drop(turns);
                self.ask(key, rollout, hook, asked.clone());
            }
        }
    }

    fn ask(&mut self, key: Key, rollout: &Rollout, hook: &Arc<ConfirmHook>, asked: Asked) {
        let body = payload(rollout, hook, &asked.version, asked.phase, Vec::new());
        let (hook, tls) = (Arc::clone(hook), self.tls_of(hook));
        let (clock, counts, tell) =
            (self.parts.clock.clone(), Arc::clone(&self.parts.counts), Arc::clone(&self.parts.tell));
        let turns = Rc::clone(&self.turns);
        self.tasks.spawn_local(async move {
            let (called, answer) = called(tls, &hook, body, clock.wall()).await;
            counts.call(asked.rollout.as_str(), hook.hook, called);
            if let Some(turn) = turns.borrow_mut().get_mut(&key) {
                turn.under_way = false;
            }
            tell(Answered { asked, gate: hook.name.clone(), answer });
        });
    }

    /// Hands an event to the lane of each `event` hook: its receiver gets them in order, and delays no other.
    fn tell(&mut self, notice: &Notice) {
        let config = self.follow();
        let Some(rollout) = config.rollout(notice.rollout.as_str()) else { return };
        for hook in rollout.confirm.iter().filter(|hook| hook.hook == Hook::Event) {
            let key = (notice.rollout.clone(), hook.name.clone());
            if !self.lanes.contains_key(&key) {
                let lane = self.lane(hook, &notice.rollout);
                self.lanes.insert(key.clone(), lane);
            }
            let version = notice.version.clone().unwrap_or_else(|| VersionName::new(""));
            let body = payload(rollout, hook, &version, phase_after(notice.tidings), event_of(notice));
            if self.lanes.get(&key).is_some_and(|lane| lane.try_send(body).is_err()) {
                self.parts.counts.call(notice.rollout.as_str(), Hook::Event, Called::Dropped);
            }
        }
    }

    fn lane(&mut self, hook: &Arc<ConfirmHook>, rollout: &RolloutName) -> mpsc::Sender<String> {
        let (sender, mut bodies) = mpsc::channel::<String>(LANE);
        let (hook, tls, rollout) = (Arc::clone(hook), self.tls_of(hook), rollout.clone());
        let (clock, counts) = (self.parts.clock.clone(), Arc::clone(&self.parts.counts));
        self.tasks.spawn_local(async move {
            while let Some(body) = bodies.recv().await {
                let (called, answer) = called(tls.clone(), &hook, body, clock.wall()).await;
                counts.call(rollout.as_str(), Hook::Event, called);
                if let Err(why) = answer {
                    tracing::warn!(rollout.name = %rollout, hook.name = %hook.name, "an event was not taken: it {why}");
                }
            }
        });
        sender
    }

    /// Whom a hook's receiver is believed by; `None` where its authorities cannot be read any more.
    fn tls_of(&mut self, hook: &ConfirmHook) -> Option<Arc<ClientConfig>> {
        let wanted = UpstreamTls { ca: hook.ca.clone(), ..UpstreamTls::default() };
        self.tls.entry(hook.ca.clone()).or_insert_with(|| tls::client(&wanted, HttpVersion::Http1).ok()).clone()
    }
}

/// One call and what came of it; the reason is a clause that begins behind the hook's name.
async fn called(
    tls: Option<Arc<ClientConfig>>,
    hook: &ConfirmHook,
    body: String,
    now: Wall,
) -> (Called, Result<(), String>) {
    let Some(tls) = tls else { return (Called::Failed, Err("cannot be called: its ca cannot be read".to_owned())) };
    match post(&tls, call(hook, body, now), hook.timeout, now).await {
        Ok(answer) if answer.status.is_success() => (Called::Yes, Ok(())),
        Ok(answer) => (Called::No, Err(format!("answered {}", answer.status.as_u16()))),
        Err(error) => (Called::Failed, Err(format!("did not answer: {error}"))),
    }
}

fn call(hook: &ConfirmHook, body: String, now: Wall) -> Call {
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    if let Some(secret) = &hook.secret {
        let stamp = now.0.div_euclid(1_000);
        let id = format!("{}-{}", hook.name, now.0);
        let signature = signature::sign(secret, &id, stamp, body.as_bytes());
        for (name, value) in
            [("webhook-id", id), ("webhook-timestamp", stamp.to_string()), ("webhook-signature", signature)]
        {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.push((HeaderName::from_static(name), value));
            }
        }
    }
    Call { url: hook.url.clone(), headers, body: Bytes::from(body) }
}

/// What Flagger posts. The checksum is the version's digest of the register, or its name.
fn payload(
    rollout: &Rollout,
    hook: &ConfirmHook,
    version: &VersionName,
    phase: &str,
    more: Vec<(&'static str, String)>,
) -> String {
    let registered = rollout.register.as_ref().filter(|entry| entry.version == *version);
    let checksum = registered.map_or_else(|| version.to_string(), |entry| entry.digest.clone());
    let own = hook.metadata.iter().map(|(name, value)| (name.clone(), Value::from(value.expose())));
    let metadata: Map<String, Value> =
        own.chain(more.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)))).collect();
    json!({
        "name": rollout.name.as_str(),
        "namespace": hook.namespace,
        "phase": phase,
        "checksum": checksum,
        "metadata": metadata,
    })
    .to_string()
}

/// Flagger's fields of an event.
fn event_of(notice: &Notice) -> Vec<(&'static str, String)> {
    let warns = matches!(
        notice.tidings,
        Tidings::RolledBack | Tidings::Aborted | Tidings::Deadline | Tidings::Reminder | Tidings::Heartbeat
    );
    vec![
        ("eventMessage", notice.text.clone()),
        ("eventType", if warns { "Warning" } else { "Normal" }.to_owned()),
        ("timestamp", notice.at.0.to_string()),
    ]
}

/// Flagger's word for where a rollout stands after a piece of news.
const fn phase_after(tidings: Tidings) -> &'static str {
    match tidings {
        Tidings::Soaking => "Promoting",
        Tidings::Completed => "Succeeded",
        Tidings::RolledBack | Tidings::Aborted => "Failed",
        Tidings::Cleared | Tidings::Version | Tidings::Register => "Initialized",
        _ => "Progressing",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::testing::{Act, Receiver, eventually};
    use super::*;

    fn config(confirm: &str) -> Arc<Config> {
        let text = format!(
            r#"
[listeners.e]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[rollouts.chat]
unit = ["ip"]
stable = {{ version = "a", endpoints = ["http://127.0.0.1:1"] }}
canary = {{ version = "b", endpoints = ["http://127.0.0.1:2"] }}
register = {{ digest = "sha256:{}", kind = "minor", owner = "ml" }}
[rollouts.chat.confirm]
{confirm}
"#,
            "0a".repeat(32)
        );
        Arc::new(crate::config::parse(&text, "t", &|_| None).unwrap_or_else(|faults| panic!("{faults}")))
    }

    struct Bench {
        handle: Option<Handle>,
        thread: Option<JoinHandle<()>>,
        asks: Arc<Mutex<Vec<Asked>>>,
        answers: Arc<Mutex<Vec<Answered>>>,
        counts: Arc<Counts>,
        clock: Clock,
    }

    fn bench(config: Arc<Config>) -> Bench {
        let asks: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let answers: Arc<Mutex<Vec<Answered>>> = Arc::default();
        let (clock, counts) = (Clock::manual(Wall(1_795_183_200_000)), Arc::new(Counts::default()));
        let (a, b) = (Arc::clone(&asks), Arc::clone(&answers));
        let parts = Parts {
            clock: clock.clone(),
            config: Box::new(move || Arc::clone(&config)),
            asks: Box::new(move || a.lock().unwrap().clone()),
            tell: Arc::new(move |answered| b.lock().unwrap().push(answered)),
            counts: Arc::clone(&counts),
        };
        let (handle, thread) = spawn(parts).unwrap();
        Bench { handle: Some(handle), thread: Some(thread), asks, answers, counts, clock }
    }

    impl Bench {
        fn ask(&self, all: Vec<Asked>) {
            *self.asks.lock().unwrap() = all;
        }

        /// Waits for so many answers, and gives back the last.
        fn answered(&self, count: usize) -> Answered {
            eventually(&format!("{count} answers"), || self.answers.lock().unwrap().len() >= count);
            self.answers.lock().unwrap()[count - 1].clone()
        }

        fn end(&mut self) {
            self.handle = None;
            self.thread.take().unwrap().join().unwrap();
        }
    }

    fn asked(hook: Hook, generation: u64) -> Asked {
        let (rollout, version) = (RolloutName::new("chat"), VersionName::new("b"));
        Asked { rollout, version, generation, hook, phase: "Progressing" }
    }

    fn notice(tidings: Tidings, text: &str) -> Notice {
        Notice {
            at: Wall(1_795_183_200_123),
            rollout: RolloutName::new("chat"),
            version: Some(VersionName::new("b")),
            tidings,
            text: text.to_owned(),
            actor: "judge".to_owned(),
            weight: crate::rollout::Plan::default().holdback,
            generation: 3,
        }
    }

    #[test]
    fn a_gate_is_posted_what_flagger_posts_and_a_2xx_alone_is_yes() {
        let receiver = Receiver::start([
            Act::Answer(403, ""),
            Act::Answer(302, "location: /x\r\n"),
            Act::Reset,
            Act::Answer(202, ""),
        ]);
        let mut bench = bench(config(&format!(
            "board = {{ type = \"confirm-promotion\", url = \"{}\", secret = \"correct horse battery\", namespace = \"prod\", every = \"5s\", metadata = {{ team = \"ml\" }} }}\nother = {{ type = \"confirm-rollout\", url = \"{}\" }}",
            receiver.url("/gate/check"),
            receiver.url("/other")
        )));
        bench.ask(vec![asked(Hook::ConfirmPromotion, 7)]);
        for (count, why) in [(1, "answered 403"), (2, "answered 302"), (3, "did not answer: ")] {
            let answered = bench.answered(count);
            assert_eq!((answered.gate.as_str(), answered.asked.generation), ("board", 7));
            assert!(answered.answer.as_ref().is_err_and(|said| said.starts_with(why)), "{answered:?}");
            // Asked again after its time, and not before: the clock stands still.
            bench.clock.advance(Duration::from_secs(5));
        }
        assert_eq!(bench.answered(4).answer, Ok(()));
        let taken = receiver.taken();
        assert!(taken.iter().all(|one| one.line == "POST /gate/check"), "nobody else is asked");
        let expect = json!({"name": "chat", "namespace": "prod", "phase": "Progressing",
            "checksum": format!("sha256:{}", "0a".repeat(32)), "metadata": {"team": "ml"}});
        assert_eq!(taken[0].json(), expect);
        assert_eq!(taken[0].header("content-type"), "application/json");
        let secret = crate::config::Secret::new("correct horse battery");
        let signed =
            (taken[0].header("webhook-id"), taken[0].header("webhook-timestamp"), taken[0].header("webhook-signature"));
        signature::verify(&secret, signed, taken[0].body.as_bytes(), Wall(1_795_183_200_000)).unwrap();
        let counted = bench.counts.calls();
        let of = |called| counted.iter().find(|((_, _, c), _)| *c == called).map_or(0, |(_, count)| *count);
        assert_eq!((of(Called::Yes), of(Called::No), of(Called::Failed)), (1, 2, 1));
        // Another generation is another question, asked at once.
        bench.ask(vec![asked(Hook::ConfirmPromotion, 8)]);
        assert_eq!(bench.answered(5).asked.generation, 8);
        bench.end();
    }

    #[test]
    fn a_gate_that_hangs_is_no_yes_and_delays_no_other() {
        let (slow, quick) = (Receiver::start([]), Receiver::start([]));
        slow.always(Some(Act::Hang));
        let mut bench = bench(config(&format!(
            "slow = {{ type = \"confirm-promotion\", url = \"{}\", timeout = \"100ms\" }}\nquick = {{ type = \"confirm-promotion\", url = \"{}\" }}",
            slow.url("/"),
            quick.url("/")
        )));
        bench.ask(vec![asked(Hook::ConfirmPromotion, 1)]);
        bench.answered(2);
        let answers = bench.answers.lock().unwrap().clone();
        let of = |gate: &str| answers.iter().find(|one| one.gate == gate).unwrap().answer.clone();
        assert_eq!(of("quick"), Ok(()));
        assert_eq!(of("slow"), Err("did not answer: no answer within 100ms".to_owned()));
        bench.end();
    }

    #[test]
    fn events_are_told_in_order_and_asked_for_nothing() {
        let receiver = Receiver::start([Act::Answer(500, "")]);
        let mut bench = bench(config(&format!(
            "log = {{ type = \"event\", url = \"{}\", metadata = {{ token = \"t\" }} }}",
            receiver.url("/events")
        )));
        let handle = bench.handle.clone().unwrap();
        for (tidings, text) in [
            (Tidings::Started, "b starts"),
            (Tidings::Stage, "b is at 5 %"),
            (Tidings::RolledBack, "b is at 0"),
            (Tidings::Completed, "b serves everybody"),
        ] {
            handle.tell(&notice(tidings, text));
        }
        drop(handle);
        let taken = receiver.wait(4);
        let seen: Vec<_> = taken
            .iter()
            .map(|one| {
                let json = one.json();
                let word = |value: &Value| value.as_str().unwrap().to_owned();
                let meta = &json["metadata"];
                assert_eq!((word(&meta["token"]), word(&meta["timestamp"])), ("t".into(), "1795183200123".into()));
                (word(&json["phase"]), word(&meta["eventType"]), word(&meta["eventMessage"]))
            })
            .collect();
        let expect = [
            ("Progressing", "Normal", "b starts"),
            ("Progressing", "Normal", "b is at 5 %"),
            ("Failed", "Warning", "b is at 0"),
            ("Succeeded", "Normal", "b serves everybody"),
        ];
        assert_eq!(seen, expect.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())), "a 500 is not told again");
        bench.end();
        assert!(bench.answers.lock().unwrap().is_empty(), "an event has no answer");
    }

    #[test]
    fn the_end_waits_a_little_for_events_and_never_for_a_receiver_that_hangs() {
        let receiver = Receiver::start([]);
        let mut bench = bench(config(&format!("log = {{ type = \"event\", url = \"{}\" }}", receiver.url("/"))));
        bench.handle.as_ref().unwrap().tell(&notice(Tidings::Stage, "the last word"));
        bench.end();
        assert_eq!(receiver.taken().len(), 1);
        assert_eq!(receiver.acts_left(), 0);
    }
}
