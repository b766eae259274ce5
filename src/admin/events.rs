//! `GET /api/v1/events`: every change of a rollout, pushed to whoever listens, with resumption by `Last-Event-ID`.
//!
//! One task looks at the board ten times a second and writes events into a bounded ring; each listener reads the ring
//! at its own pace. A listener that falls out of it, or comes from another life of the process, is told `reset` and
//! given everything anew. Ids start at the wall clock, so a restart goes on above those of the life before.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse;
use axum::response::{IntoResponse, Response, Sse};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::auth::{Caller, READERS};
use super::context::Context;
use super::error::Problem;
use super::rollouts;
use crate::evaluator::RolloutView;
use crate::names::{Mono, Wall};

/// Events that are remembered: about five minutes of one busy rollout.
const EVENTS_MAX: usize = 512;
/// How often a heartbeat is sent.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How often the board is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A rollout of which only numbers moved is told this often at most.
const NUMBERS: Duration = Duration::from_secs(1);

/// One event, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rising.
    pub id: u64,
    /// rollout, reload, heartbeat or reset.
    pub kind: &'static str,
    /// The rollout, for filters; none where it concerns all.
    pub rollout: Option<String>,
    /// JSON.
    pub data: Arc<str>,
}

/// All events, and the bell that tells of new ones.
pub struct Feed {
    ring: Mutex<Ring>,
    /// The newest id; `u64::MAX` once the process ends.
    bell: watch::Sender<u64>,
}

struct Ring {
    next: u64,
    events: VecDeque<Event>,
    told: HashMap<String, Told>,
    reloads: u64,
    beat: Option<Mono>,
}

/// What was last told of a rollout.
struct Told {
    head: String,
    whole: String,
    at: Mono,
}

impl Ring {
    fn push(&mut self, kind: &'static str, rollout: Option<String>, data: String) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { id: self.next, kind, rollout, data: data.into() });
        self.next += 1;
    }
}

/// What of a rollout is told at once when it changes; the rest is numbers.
fn head(view: &RolloutView) -> String {
    let stage = view.stage.as_ref().map(|stage| (stage.index, stage.waits_for, stage.approvals.given.len()));
    let gates: Vec<_> = view.gates.iter().map(|gate| gate.result).collect();
    format!(
        "{} {} {} {} {:?} {} {gates:?} {:?}",
        view.generation,
        view.phase,
        view.weight,
        view.latch.is_some(),
        stage,
        view.verdict,
        view.allowed
    )
}

impl Feed {
    /// A feed that begins now.
    #[must_use]
    pub fn new(wall: Wall) -> Self {
        let next = u64::try_from(wall.0).unwrap_or(0).saturating_add(1);
        let ring = Ring { next, events: VecDeque::new(), told: HashMap::new(), reloads: 0, beat: None };
        Self { ring: Mutex::new(ring), bell: watch::Sender::new(next - 1) }
    }

    /// Looks at the board once and writes what has changed.
    pub fn look(&self, cx: &Context) {
        let now = cx.parts().clock.now();
        let views = rollouts::all(cx);
        let newest = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            let before = ring.next;
            tell_rollouts(&mut ring, &views, now);
            tell_reloads(&mut ring, cx);
            if ring.beat.is_none_or(|beat| now.since(beat) >= HEARTBEAT) {
                ring.beat = Some(now);
                let at = cx.parts().clock.wall().rfc3339();
                let data = json!({"at": at, "heartbeat_age_s": cx.heartbeat_age().as_secs_f64()});
                ring.push("heartbeat", None, data.to_string());
            }
            (ring.next != before).then_some(ring.next - 1)
        };
        if let Some(newest) = newest {
            self.bell.send_if_modified(|id| {
                let rings = *id != u64::MAX;
                if rings {
                    *id = newest;
                }
                rings
            });
        }
    }

    /// Ends every listener's stream.
    pub fn close(&self) {
        self.bell.send_replace(u64::MAX);
    }

    /// The events after `last`, or `None` when some of them are forgotten (or never were ours).
    fn after(&self, last: u64) -> Option<Vec<Event>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.events.front().map_or(ring.next, |event| event.id);
        if last + 1 < oldest || last >= ring.next {
            return None;
        }
        Some(ring.events.iter().filter(|event| event.id > last).cloned().collect())
    }

    fn newest(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).next - 1
    }
}

fn tell_rollouts(ring: &mut Ring, views: &[Arc<RolloutView>], now: Mono) {
    for view in views {
        let head = head(view);
        let told = ring.told.get(&view.name);
        let news = told.is_none_or(|told| told.head != head);
        if !news && told.is_some_and(|told| now.since(told.at) < NUMBERS) {
            continue;
        }
        // The heartbeat's age changes always and has an event of its own.
        let still = RolloutView { heartbeat_age_s: 0.0, ..(**view).clone() };
        let whole = serde_json::to_string(&still).unwrap_or_default();
        if !news && told.is_some_and(|told| told.whole == whole) {
            continue;
        }
        let data = serde_json::to_string(view.as_ref()).unwrap_or_default();
        ring.push("rollout", Some(view.name.clone()), data);
        ring.told.insert(view.name.clone(), Told { head, whole, at: now });
    }
    ring.told.retain(|name, _| views.iter().any(|view| view.name == *name));
}

fn tell_reloads(ring: &mut Ring, cx: &Context) {
    let gauges = &cx.parts().gauges;
    let reloads = gauges.reloads.load(Ordering::Acquire);
    if reloads != ring.reloads {
        ring.reloads = reloads;
        let successful = gauges.reload_good.load(Ordering::Relaxed);
        let data = json!({"successful": successful, "generation": cx.snapshot().generation});
        ring.push("reload", None, data.to_string());
    }
}

/// Looks at the board until `stop` says so, then ends all streams.
pub async fn run(cx: Context, mut stop: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = tick.tick() => cx.feed().look(&cx),
            stopped = stop.wait_for(|stop| *stop) => {
                drop(stopped);
                break;
            }
        }
    }
    cx.feed().close();
}

/// The query of the events.
#[derive(Debug, Default, Deserialize)]
pub struct Filter {
    /// Only this rollout's events.
    rollout: Option<String>,
}

/// `GET /api/v1/events`.
///
/// # Errors
/// 401, 403.
pub async fn events(
    State(cx): State<Context>,
    caller: Caller,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.need(READERS)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last = last.map(|id| id.trim().parse().unwrap_or(0));
    let filter = filter.rollout;
    Ok(Sse::new(listen(cx, last, filter)).into_response())
}

struct Listener {
    cx: Context,
    bell: watch::Receiver<u64>,
    /// The last id sent; none before anything was.
    last: Option<u64>,
    resumes: bool,
}

fn listen(
    cx: Context,
    last: Option<u64>,
    filter: Option<String>,
) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send + 'static {
    let bell = cx.feed().bell.subscribe();
    let listener = Listener { cx, bell, last, resumes: last.is_some() };
    stream::unfold(listener, |mut listener| async move {
        let batch = listener.next().await?;
        Some((batch, listener))
    })
    .flat_map(stream::iter)
    .filter(move |event| {
        let wanted = match (&filter, &event.rollout) {
            (Some(filter), Some(rollout)) => filter == rollout,
            _ => true,
        };
        std::future::ready(wanted)
    })
    .map(|event| Ok(sse::Event::default().id(event.id.to_string()).event(event.kind).data(&*event.data)))
}

impl Listener {
    /// The next events, waiting for some; `None` when the process ends.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            let ended = *self.bell.borrow_and_update() == u64::MAX;
            if ended {
                return None;
            }
            let news = match self.last {
                None => self.everything(),
                Some(last) => self.cx.feed().after(last).unwrap_or_else(|| self.everything()),
            };
            if let Some(newest) = news.last() {
                self.last = Some(newest.id);
                self.resumes = true;
                return Some(news);
            }
            if self.last.is_none() {
                self.last = Some(self.cx.feed().newest());
            }
            self.bell.changed().await.ok()?;
        }
    }

    /// All rollouts as they stand; after a `reset` where the listener knew something before.
    fn everything(&self) -> Vec<Event> {
        let id = self.cx.feed().newest();
        let reset = self.resumes.then(|| Event { id, kind: "reset", rollout: None, data: "{}".into() });
        let all = rollouts::all(&self.cx).into_iter().map(|view| Event {
            id,
            kind: "rollout",
            rollout: Some(view.name.clone()),
            data: serde_json::to_string(view.as_ref()).unwrap_or_default().into(),
        });
        reset.into_iter().chain(all).collect()
    }
}
