//! A worker's deadlines: many, coarse, cheap. One sweep looks at all of them; nothing touches a timer wheel on a request.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::names::Mono;

/// How often the sweep runs: deadlines are late by at most this.
pub const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// All deadlines of one worker.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// Shared with byte streams, which must be `Send`; one thread uses it.
    coarse_now: Arc<AtomicU64>,
    entries: RefCell<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    places: Vec<Entry>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    at: Mono,
    waker: Option<Waker>,
    fired: bool,
}

impl Deadlines {
    /// The time of the last sweep: at most [`SWEEP_EVERY`] old.
    #[must_use]
    pub fn coarse_now(&self) -> Mono {
        Mono(self.coarse_now.load(Ordering::Relaxed))
    }

    /// The same, to be kept: nanoseconds of `Mono`.
    #[must_use]
    pub fn shared_now(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.coarse_now)
    }

    /// Wakes everybody whose time is up.
    pub fn sweep(&self, now: Mono) {
        self.coarse_now.store(now.0, Ordering::Relaxed);
        for entry in &mut self.entries.borrow_mut().places {
            if entry.at <= now
                && let Some(waker) = entry.waker.take()
            {
                entry.fired = true;
                waker.wake();
            }
        }
    }

    fn arm(&self, place: Option<usize>, at: Mono, cx: &Context<'_>) -> usize {
        let mut entries = self.entries.borrow_mut();
        let entry = |at| Entry { at, waker: Some(cx.waker().clone()), fired: false };
        if let Some(place) = place {
            if let Some(known) = entries.places.get_mut(place) {
                known.at = at;
                known.fired = false;
                if known.waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                    known.waker = Some(cx.waker().clone());
                }
            }
            return place;
        }
        match entries.free.pop() {
            Some(place) => {
                if let Some(known) = entries.places.get_mut(place) {
                    *known = entry(at);
                }
                place
            }
            None => {
                entries.places.push(entry(at));
                entries.places.len() - 1
            }
        }
    }

    fn fired(&self, place: usize) -> bool {
        self.entries.borrow().places.get(place).is_some_and(|e| e.fired)
    }

    fn disarm(&self, place: usize) {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.places.get_mut(place) {
            entry.at = Mono(u64::MAX);
            entry.waker = None;
            entry.fired = false;
        }
        entries.free.push(place);
    }
}

/// One deadline of one wait; takes a place only when something really has to wait.
#[derive(Debug)]
pub struct Deadline {
    all: Rc<Deadlines>,
    place: Option<usize>,
}

impl Deadline {
    /// A deadline that is not armed.
    #[must_use]
    pub fn new(all: &Rc<Deadlines>) -> Self {
        Self { all: Rc::clone(all), place: None }
    }

    /// To be called when the work is pending: has the time passed? Otherwise the task is woken when it has, counted
    /// from the last sweep if the deadline is not yet running.
    pub fn poll_expired(&mut self, after: Duration, cx: &Context<'_>) -> bool {
        if let Some(place) = self.place {
            if self.all.fired(place) {
                return true;
            }
            // Running already: keep its time, follow the task.
            let at = self.all.entries.borrow().places.get(place).map_or(Mono(0), |e| e.at);
            self.all.arm(Some(place), at, cx);
            return false;
        }
        let at = self.all.coarse_now().plus(after).plus(SWEEP_EVERY);
        self.place = Some(self.all.arm(None, at, cx));
        false
    }

    /// The work moved: the next wait starts anew.
    pub fn reset(&mut self) {
        if let Some(place) = self.place.take() {
            self.all.disarm(place);
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Runs `work`, giving it up after `after`.
///
/// # Errors
/// The time passed first.
pub async fn within<F: Future>(all: &Rc<Deadlines>, after: Duration, work: F) -> Result<F::Output, Expired> {
    let mut work = std::pin::pin!(work);
    let mut deadline = Deadline::new(all);
    std::future::poll_fn(move |cx| {
        let pinned: Pin<&mut F> = work.as_mut();
        if let Poll::Ready(output) = pinned.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if deadline.poll_expired(after, cx) { Poll::Ready(Err(Expired)) } else { Poll::Pending }
    })
    .await
}

/// A deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

#[cfg(test)]
mod tests {
    use super::*;

    fn poll_once<F: Future + Unpin>(work: &mut F) -> Poll<F::Output> {
        Pin::new(work).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn work_that_never_ends_is_given_up_at_the_sweep_after_its_time() {
        let all = Rc::new(Deadlines::default());
        all.sweep(Mono(0));
        let mut work = Box::pin(within(&all, Duration::from_secs(1), std::future::pending::<()>()));
        assert!(poll_once(&mut work).is_pending());
        all.sweep(Mono::from_seconds(1.0));
        assert!(poll_once(&mut work).is_pending());
        all.sweep(Mono::from_seconds(1.06));
        assert_eq!(poll_once(&mut work), Poll::Ready(Err(Expired)));
        drop(work);
        assert_eq!(all.entries.borrow().free.len(), 1, "its place is free again");
    }

    #[test]
    fn work_that_is_ready_takes_no_place() {
        let all = Rc::new(Deadlines::default());
        let mut work = Box::pin(within(&all, Duration::from_secs(1), std::future::ready(7)));
        assert_eq!(poll_once(&mut work), Poll::Ready(Ok(7)));
        assert!(all.entries.borrow().places.is_empty());
    }

    #[test]
    fn progress_starts_the_wait_anew() {
        let all = Rc::new(Deadlines::default());
        let cx = Context::from_waker(Waker::noop());
        let mut deadline = Deadline::new(&all);
        assert!(!deadline.poll_expired(Duration::from_secs(1), &cx));
        all.sweep(Mono::from_seconds(0.9));
        deadline.reset();
        assert!(!deadline.poll_expired(Duration::from_secs(1), &cx));
        all.sweep(Mono::from_seconds(1.5));
        assert!(!deadline.poll_expired(Duration::from_secs(1), &cx));
        all.sweep(Mono::from_seconds(2.0));
        assert!(deadline.poll_expired(Duration::from_secs(1), &cx));
    }
}
