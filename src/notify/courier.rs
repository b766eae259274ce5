//! The notices' own thread: takes what the evaluator says, watches limits, heartbeat and the clock, and starts a lane
//! for each receiver.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::counts::Counts;
use super::lane::{self, Desk};
use super::message::{Kind, Message};
use super::near::Nearness;
use super::pulse::Pulse;
use super::store::{self, Opened};
use super::teller::{self, Seen};
use crate::clock::Clock;
use crate::config::{Config, Notify, NotifyKind};
use crate::names::{Mono, Wall};
use crate::rollout::Notice;

/// Notices on their way from the evaluator.
const QUEUE: usize = 1_024;
/// How often limits, heartbeat, clock and configuration are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that comes later than that says that this thread itself stood still, and nothing of the judge.
const LOOK_LATE: Duration = Duration::from_secs(3);
/// How long a notice waits for the picture that shows its numbers.
const PICTURE_PATIENCE: Duration = Duration::from_secs(1);
/// How often that picture is looked for.
const PICTURE_LOOK: Duration = Duration::from_millis(20);

/// Times between attempts, and at the end. The defaults are the product's; tests are in a hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// After the first failure.
    pub first_wait: Duration,
    /// After many.
    pub longest_wait: Duration,
    /// How often what still stands is said again.
    pub refresh: Duration,
    /// How long the end of the process waits for what is still to be told.
    pub parting: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            refresh: lane::REFRESH,
            parting: Duration::from_secs(2),
        }
    }
}

/// Looks at rollouts as people see them: one, or all.
pub type Eyes = Box<dyn Fn(Option<&str>) -> Vec<Seen> + Send>;

/// What the notices' thread is made of.
pub struct Parts {
    /// The outbox as it was left.
    pub opened: Opened,
    /// What was decided but perhaps not told before a crash.
    pub missed: Vec<Notice>,
    /// The source of time.
    pub clock: Clock,
    /// The configuration in force.
    pub config: Box<dyn Fn() -> Arc<Config> + Send>,
    /// The rollouts.
    pub seen: Eyes,
    /// How long ago the judge last gave a sign of life.
    pub heartbeat_age: Box<dyn Fn() -> Duration + Send>,
    /// Of the jitter.
    pub seed: u64,
    /// Times between attempts.
    pub tuning: Tuning,
    /// For the scrape.
    pub counts: Arc<Counts>,
}

/// The evaluator's side: hands a notice over and goes on.
#[derive(Clone, Debug)]
pub struct Handle {
    notices: mpsc::Sender<Notice>,
    counts: Arc<Counts>,
}

impl Handle {
    /// Hands a notice over, never waiting; without room it is lost to the receivers, and counted. (The journal has it.)
    pub fn tell(&self, notice: &Notice) {
        if self.notices.try_send(notice.clone()).is_err() {
            self.counts.unheard.fetch_add(1, Ordering::Relaxed);
            tracing::error!(rollout.name = %notice.rollout, "a notice found no room on its way to the receivers");
        }
    }
}

/// Starts the notices' thread and the disk's; both end once every [`Handle`] is gone.
///
/// # Errors
/// No thread could be started.
pub fn spawn(mut parts: Parts) -> io::Result<(Handle, Vec<JoinHandle<()>>)> {
    let mut threads = Vec::new();
    let disk = match store::spawn(&mut parts.opened)? {
        Some((disk, thread)) => {
            threads.push(thread);
            Some(disk)
        }
        None => None,
    };
    let (notices, asked) = mpsc::channel(QUEUE);
    let handle = Handle { notices, counts: Arc::clone(&parts.counts) };
    let name = "serin-notify".to_owned();
    threads.push(std::thread::Builder::new().name(name).spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime.block_on(Courier::new(parts, disk).run(asked)),
            Err(error) => tracing::error!(error = %error, "notices are not told: a runtime could not be built"),
        }
    })?);
    Ok((handle, threads))
}

struct Courier {
    desk: Rc<Desk>,
    missed: Vec<Notice>,
    config: Box<dyn Fn() -> Arc<Config> + Send>,
    seen: Eyes,
    age: Rc<dyn Fn() -> Duration>,
    targets: Vec<Arc<Notify>>,
    lanes: BTreeMap<String, watch::Sender<Option<Arc<Notify>>>>,
    tasks: JoinSet<()>,
    known: Option<Arc<Config>>,
    nearness: Nearness,
    pulse: Pulse,
    summaries: BTreeMap<String, Wall>,
    looked: Mono,
}

impl Courier {
    fn new(parts: Parts, disk: Option<store::Disk>) -> Self {
        let Parts { opened, missed, clock, config, seen, heartbeat_age, seed, tuning, counts } = parts;
        let told = opened.outbox.receipts().filter(|receipt| receipt.kind == Kind::Summary);
        let summaries = told.map(|receipt| (receipt.target.clone(), receipt.at)).collect();
        let looked = clock.now();
        let desk = Desk {
            outbox: opened.outbox.into(),
            compacted: disk.as_ref().map_or(0, store::Disk::length).into(),
            disk,
            counts,
            clock,
            tuning,
            seed,
            wakes: Default::default(),
        };
        Self {
            desk: Rc::new(desk),
            missed,
            config,
            seen,
            age: Rc::from(heartbeat_age as Box<dyn Fn() -> Duration>),
            targets: Vec::new(),
            lanes: BTreeMap::new(),
            tasks: JoinSet::new(),
            known: None,
            nearness: Nearness::default(),
            pulse: Pulse::default(),
            summaries,
            looked,
        }
    }

    async fn run(mut self, mut asked: mpsc::Receiver<Notice>) {
        self.follow();
        for notice in std::mem::take(&mut self.missed) {
            self.tell(&notice).await;
        }
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                notice = asked.recv() => match notice {
                    Some(notice) => self.tell(&notice).await,
                    None => break,
                },
                _ = look.tick() => self.look(),
            }
        }
        self.part().await;
    }

    async fn tell(&mut self, notice: &Notice) {
        let began = self.desk.clock.now();
        let seen = loop {
            let seen = (self.seen)(Some(notice.rollout.as_str())).pop();
            let newest = seen.as_ref().is_some_and(|seen| seen.generation >= notice.generation);
            if newest || self.desk.clock.now().since(began) >= PICTURE_PATIENCE {
                break seen;
            }
            tokio::time::sleep(PICTURE_LOOK).await;
        };
        if let Some(message) = teller::message(notice, seen.as_ref()) {
            self.put(message);
        }
    }

    fn put(&self, message: Message) {
        self.desk.put(message, &self.targets);
    }

    /// What time brings: a new configuration, limits that come near, a silent judge, summaries.
    fn look(&mut self) {
        self.follow();
        let (mono, wall) = (self.desk.clock.now(), self.desk.clock.wall());
        let late = mono.since(std::mem::replace(&mut self.looked, mono)) > LOOK_LATE;
        if !late {
            let freezes = self.freezes_after();
            if let Some(message) = self.pulse.beat((self.age)(), freezes, wall) {
                self.put(message);
            }
        }
        if !self.targets.is_empty() {
            let all = (self.seen)(None);
            for seen in &all {
                for message in self.nearness.look(seen, mono, wall) {
                    self.put(message);
                }
            }
            self.summarize(&all, wall);
        }
        self.desk.tidy();
    }

    fn freezes_after(&self) -> Duration {
        let config = self.known.as_ref();
        let all = config.into_iter().flat_map(|config| &config.rollouts);
        all.map(|rollout| rollout.evaluator.heartbeat_timeout).min().unwrap_or(Duration::from_secs(10))
    }

    fn summarize(&mut self, all: &[Seen], wall: Wall) {
        for target in &self.targets {
            let tells = matches!(target.kind, NotifyKind::Webhook | NotifyKind::Slack | NotifyKind::Email);
            let Some(every) = target.summary.filter(|_| tells) else { continue };
            let last = *self.summaries.entry(target.name.clone()).or_insert(wall);
            if teller::summary_due(wall, last, every, &target.hours) {
                self.summaries.insert(target.name.clone(), wall);
                if let Some(message) = teller::summary(&target.name, all, wall) {
                    self.desk.put(message, std::slice::from_ref(target));
                }
            }
        }
    }

    /// Follows the configuration: lanes for new receivers, new addresses for old ones, an end for those that are gone.
    fn follow(&mut self) {
        let config = (self.config)();
        if self.known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &config)) {
            return;
        }
        self.known = Some(Arc::clone(&config));
        let before = std::mem::take(&mut self.targets);
        for fresh in &config.notify {
            let same = before.iter().find(|old| ***old == *fresh).cloned();
            let changed = same.is_none();
            let target = same.unwrap_or_else(|| Arc::new(fresh.clone()));
            let kind_stays = before.iter().any(|old| old.name == target.name && old.kind == target.kind);
            match self.lanes.get(&target.name) {
                Some(lane) if kind_stays => {
                    if changed {
                        lane.send_replace(Some(Arc::clone(&target)));
                    }
                }
                other => {
                    if let Some(lane) = other {
                        lane.send_replace(None);
                    }
                    self.start(&target);
                }
            }
            self.targets.push(target);
        }
        self.lanes.retain(|name, lane| {
            let stays = config.notify.iter().any(|target| target.name == *name);
            if !stays {
                lane.send_replace(None);
            }
            stays
        });
    }

    fn start(&mut self, target: &Arc<Notify>) {
        let (lane, seen) = watch::channel(Some(Arc::clone(target)));
        let (desk, name) = (Rc::clone(&self.desk), target.name.clone());
        if target.kind == NotifyKind::Deadman {
            let (age, freezes) = (Rc::clone(&self.age), self.freezes_after());
            let lives: Rc<dyn Fn() -> bool> = Rc::new(move || age() <= freezes);
            self.tasks.spawn_local(lane::alive(desk, name, seen, lives));
        } else {
            self.tasks.spawn_local(lane::run(desk, name, seen));
        }
        self.lanes.insert(target.name.clone(), lane);
    }

    /// The process ends: what waits is tried a moment longer; the outbox keeps the rest.
    async fn part(mut self) {
        let all_told = async {
            while !self.desk.is_empty() {
                tokio::time::sleep(PICTURE_LOOK).await;
            }
        };
        if tokio::time::timeout(self.desk.tuning.parting, all_told).await.is_err() && self.desk.disk.is_none() {
            tracing::error!(
                "notices are lost: their receivers did not take them in time, and there is no [store] to keep them"
            );
        }
        self.tasks.shutdown().await;
    }
}
