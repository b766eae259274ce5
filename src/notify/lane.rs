//! One receiver's lane: the next message, tried until it is delivered or given up; then the one after it.
//!
//! Each lane is a task of its own, so that a receiver that hangs delays no other; within a lane the order is kept.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, header};
use rustls::ClientConfig;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::counts::{Counts, Waiting};
use super::courier::Tuning;
use super::http::{Call, post};
use super::message::{Kind, Message};
use super::outbox::{Entry, Outbox, Outcome};
use super::store::{COMPACT_BYTES, Disk};
use super::{alertmanager, mail, pagerduty, slack, webhook};
use crate::clock::Clock;
use crate::config::{HttpVersion, Notify, NotifyKind, UpstreamTls};
use crate::tls;

/// How often Alertmanager is told again what still stands.
pub const REFRESH: Duration = Duration::from_secs(60);

/// What one attempt came to.
#[derive(Debug)]
pub enum Attempt {
    /// The receiver has it.
    Delivered,
    /// The receiver refuses this message; another attempt would end the same.
    Refused(String),
    /// Not now.
    Failed {
        /// Why, without address or secret.
        why: String,
        /// How long the receiver asks to be left alone.
        wait: Option<Duration>,
    },
}

/// What all lanes share; they live on one thread.
pub struct Desk {
    /// What is still to be told.
    pub outbox: RefCell<Outbox>,
    /// Where it survives.
    pub disk: Option<Disk>,
    /// For the scrape.
    pub counts: Arc<Counts>,
    /// The source of time.
    pub clock: Clock,
    /// Waits between attempts.
    pub tuning: Tuning,
    /// Of the jitter.
    pub seed: u64,
    /// Wakes a lane.
    pub wakes: RefCell<BTreeMap<String, Rc<tokio::sync::Notify>>>,
    /// The length of the log after it was last compacted.
    pub compacted: RefCell<u64>,
}

/// The configuration of a lane; `None` ends it.
pub type Target = watch::Receiver<Option<Arc<Notify>>>;

impl Desk {
    /// Takes a message for those receivers that want it, and wakes their lanes.
    pub fn put(&self, message: Message, targets: &[Arc<Notify>]) {
        let now = self.clock.wall();
        let wants = |message: &Message| {
            let wanted = targets.iter().filter(|target| wants(target, message));
            wanted.map(|target| (target.name.clone(), target.queue)).collect()
        };
        let entries = self.outbox.borrow_mut().put(message, wants, now);
        for entry in &entries {
            match entry {
                Entry::Receipt(receipt) => {
                    tracing::error!(
                        notify.target = %receipt.target, notify.kind = receipt.kind.as_str(), notify.id = %receipt.id,
                        "a notice is given up: {}", receipt.why
                    );
                    self.counts.count(&receipt.target, receipt.kind, receipt.result);
                }
                Entry::Put { targets, .. } => {
                    for target in targets {
                        if let Some(wake) = self.wakes.borrow().get(target) {
                            wake.notify_one();
                        }
                    }
                }
                _ => {}
            }
        }
        self.write(entries);
    }

    fn done(&self, target: &str, message: &Message, result: Outcome, attempts: u32, why: String) {
        let now = self.clock.wall();
        let entry = self.outbox.borrow_mut().done(target, message, now, result, (attempts, why.clone()));
        self.counts.count(target, message.kind, result);
        if result == Outcome::Delivered {
            tracing::debug!(notify.target = target, notify.id = %message.id, attempts, "a notice was delivered");
        } else {
            tracing::error!(
                notify.target = target, notify.kind = message.kind.as_str(), notify.id = %message.id, attempts,
                "a notice is given up: {why}"
            );
        }
        self.write(vec![entry]);
    }

    fn write(&self, entries: Vec<Entry>) {
        if let Some(disk) = self.disk.as_ref().filter(|_| !entries.is_empty()) {
            disk.append(entries);
        }
    }

    /// Shows the scrape what waits, and compacts a log that has grown.
    pub fn tidy(&self) {
        let outbox = self.outbox.borrow();
        let waiting =
            outbox.depths().map(|(target, depth, oldest)| Waiting { target: target.to_owned(), depth, oldest });
        self.counts.wait(waiting.collect());
        if let Some(disk) = &self.disk {
            self.counts.unwritten.store(disk.lost(), Ordering::Relaxed);
            let mut compacted = self.compacted.borrow_mut();
            if disk.length() > COMPACT_BYTES.max(compacted.saturating_mul(2)) {
                disk.compact(outbox.compact());
                *compacted = disk.length();
            }
        }
    }

    /// Whether nothing waits for anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outbox.borrow().depths().all(|(_, depth, _)| depth == 0)
    }
}

/// Whether a receiver is told of a message. Those that keep alerts always hear of an alert's end.
#[must_use]
pub fn wants(target: &Notify, message: &Message) -> bool {
    let asked = target.events.is_empty() || target.events.iter().any(|word| word == message.kind.as_str());
    match target.kind {
        NotifyKind::Deadman => false,
        NotifyKind::Pagerduty => (asked || message.raises.is_none()) && pagerduty::concerns(message),
        NotifyKind::Alertmanager => (asked || message.raises.is_none()) && alertmanager::concerns(message),
        NotifyKind::Webhook | NotifyKind::Slack | NotifyKind::Email => asked,
    }
}

/// Tells one receiver everything that waits for it, until its configuration is taken away.
pub async fn run(desk: Rc<Desk>, name: String, mut config: Target) {
    let wake = Rc::clone(desk.wakes.borrow_mut().entry(name.clone()).or_default());
    let mut spoken: Option<(Arc<Notify>, Line)> = None;
    let (mut id, mut failures) = (String::new(), 0u32);
    loop {
        let Some(target) = config.borrow_and_update().clone() else { return };
        let known = spoken.take().filter(|(of, _)| Arc::ptr_eq(of, &target));
        let (_, line) = spoken.insert(known.unwrap_or_else(|| (Arc::clone(&target), line(&target))));
        let next = desk.outbox.borrow().next(&name);
        let Some(message) = next else {
            let refresh = tokio::time::sleep(desk.tuning.refresh);
            tokio::select! {
                () = wake.notified() => {}
                _ = config.changed() => {}
                () = refresh => say_again(&desk, &target, line).await,
            }
            continue;
        };
        if id != message.id {
            (id, failures) = (message.id.clone(), 0);
        }
        if too_old(&desk, &target, &message) {
            desk.done(&name, &message, Outcome::Expired, failures, "it was tried for too long".to_owned());
            continue;
        }
        // A receiver that was changed meanwhile is asked anew, at once.
        let attempt = tokio::select! {
            attempt = attempt(&desk, &target, line, &message) => attempt,
            _ = config.changed() => continue,
        };
        match attempt {
            Attempt::Delivered => desk.done(&name, &message, Outcome::Delivered, failures + 1, String::new()),
            Attempt::Refused(why) => desk.done(&name, &message, Outcome::Refused, failures + 1, why),
            Attempt::Failed { why, wait } => {
                failures = failures.saturating_add(1);
                desk.counts.count(&name, message.kind, Outcome::Retried);
                let pause = backoff(&desk.tuning, desk.seed, &id, failures).max(wait.unwrap_or_default());
                if failures == 1 || failures.is_multiple_of(100) {
                    tracing::warn!(notify.target = %name, notify.id = %id, attempts = failures, error = %why, "a notice could not be told; it is tried again");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = config.changed() => {}
                }
            }
        }
    }
}

fn too_old(desk: &Desk, target: &Notify, message: &Message) -> bool {
    let age = desk.clock.wall().0.saturating_sub(message.at.0);
    age > i64::try_from(target.keep.as_millis()).unwrap_or(i64::MAX)
}

/// Twice as long after each failure, up to a bound, with jitter between a half and the whole of it.
#[must_use]
pub fn backoff(tuning: &Tuning, seed: u64, id: &str, failures: u32) -> Duration {
    let doubled = tuning.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let whole = doubled.min(tuning.longest_wait);
    let draw = xxh3_64_with_seed(id.as_bytes(), seed.wrapping_add(u64::from(failures))) >> 32;
    let half = whole / 2;
    half + half.mul_f64(draw as f64 / 4_294_967_296.0)
}

/// How a receiver is spoken to.
enum Line {
    /// By HTTP.
    Http(Arc<ClientConfig>),
    /// By SMTP.
    Mail(Box<mail::Way>),
    /// Not at all: its authorities cannot be read any more.
    Broken,
}

fn line(target: &Notify) -> Line {
    let wanted = UpstreamTls { ca: target.ca.clone(), ..UpstreamTls::default() };
    let line = match target.kind {
        NotifyKind::Email => mail::way(target).map(|way| Line::Mail(Box::new(way))),
        _ => tls::client(&wanted, HttpVersion::Http1).map(Line::Http).map_err(|error| error.to_string()),
    };
    line.unwrap_or_else(|why| {
        tracing::error!(notify.target = %target.name, error = %why, "the receiver cannot be spoken to");
        Line::Broken
    })
}

async fn attempt(desk: &Desk, target: &Notify, line: &Line, message: &Message) -> Attempt {
    let now = desk.clock.wall();
    let calls = match target.kind {
        NotifyKind::Webhook => vec![webhook::call(target, message, now)],
        NotifyKind::Slack => vec![slack::call(target, message)],
        NotifyKind::Pagerduty => pagerduty::calls(target, message),
        NotifyKind::Alertmanager => vec![alertmanager::call(target, alertmanager::alerts(message, now))],
        NotifyKind::Email => match line {
            Line::Mail(way) => return Box::pin(mail::send(way, target, message)).await,
            Line::Http(_) | Line::Broken => return broken(),
        },
        NotifyKind::Deadman => Vec::new(),
    };
    for call in calls {
        match once(desk, target, line, call).await {
            Attempt::Delivered => {}
            other => return other,
        }
    }
    Attempt::Delivered
}

/// One call. What is wrong with the message itself (400, 413, 422) is refused for good; everything else may be mended.
async fn once(desk: &Desk, target: &Notify, line: &Line, call: Call) -> Attempt {
    let Line::Http(tls) = line else { return broken() };
    match post(tls, call, target.timeout, desk.clock.wall()).await {
        Ok(answer) if answer.status.is_success() => Attempt::Delivered,
        Ok(answer) if matches!(answer.status.as_u16(), 400 | 413 | 422) => {
            Attempt::Refused(format!("the receiver refuses it: {}", answer.status.as_u16()))
        }
        Ok(answer) => Attempt::Failed {
            why: format!("the receiver answers {}", answer.status.as_u16()),
            wait: answer.retry_after,
        },
        Err(error) => Attempt::Failed { why: error.to_string(), wait: None },
    }
}

fn broken() -> Attempt {
    Attempt::Failed { why: "its address or its authorities cannot be used".to_owned(), wait: None }
}

/// Alertmanager forgets what is not said again.
async fn say_again(desk: &Desk, target: &Notify, line: &Line) {
    if target.kind != NotifyKind::Alertmanager {
        return;
    }
    let now = desk.clock.wall();
    let firing: Vec<_> = {
        let outbox = desk.outbox.borrow();
        outbox.open().filter(|m| wants(target, m)).filter_map(|m| alertmanager::firing(m, now)).collect()
    };
    if !firing.is_empty()
        && let Attempt::Failed { why, .. } | Attempt::Refused(why) =
            once(desk, target, line, alertmanager::call(target, firing)).await
    {
        tracing::debug!(notify.target = %target.name, error = %why, "alerts could not be said again");
    }
}

/// Sends a sign of life at regular times, for as long as the judge gives one.
pub async fn alive(desk: Rc<Desk>, name: String, mut config: Target, lives: Rc<dyn Fn() -> bool>) {
    loop {
        let Some(target) = config.borrow_and_update().clone() else { return };
        if lives() {
            let line = line(&target);
            let body = format!("{{\"alive\":true,\"at\":\"{}\"}}", desk.clock.wall().rfc3339());
            let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            let call = Call { url: target.url.clone(), headers, body: body.into() };
            let result = match once(&desk, &target, &line, call).await {
                Attempt::Delivered => Outcome::Delivered,
                Attempt::Refused(why) | Attempt::Failed { why, .. } => {
                    tracing::warn!(notify.target = %name, error = %why, "the sign of life could not be sent");
                    Outcome::Retried
                }
            };
            desk.counts.count(&name, Kind::Heartbeat, result);
        }
        tokio::select! {
            () = tokio::time::sleep(target.every) => {}
            _ = config.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_with_jitter_of_a_seed() {
        let tuning = Tuning::default();
        let at = |seed, n| backoff(&tuning, seed, "id", n);
        for n in 1..200 {
            let whole = Duration::from_secs(1).saturating_mul(1 << (n - 1).min(20)).min(Duration::from_secs(300));
            assert!(at(7, n) >= whole / 2 && at(7, n) <= whole, "{n}: {:?}", at(7, n));
            assert_eq!(at(7, n), at(7, n));
        }
        assert!((1..50).any(|n| at(7, n) != at(8, n)));
    }
}
