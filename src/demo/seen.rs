//! What a scripted model server saw: counts to wait for, the latest requests, and how each ended.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::names::Mono;

/// How many of the latest requests and ends are kept.
const KEPT_MAX: usize = 4_096;
/// How much of a request's body is kept.
const BODY_KEPT_MAX: usize = 64 * 1024;

/// Totals since the server started. `requests` is the sum of `in_flight`, `finished`, `cancelled` and `broken`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections taken.
    pub connections: u64,
    /// Requests whose head arrived.
    pub requests: u64,
    /// Requests without an end yet.
    pub in_flight: u64,
    /// Answers given whole, errors among them.
    pub finished: u64,
    /// Answers that the caller gave up before their end.
    pub cancelled: u64,
    /// Answers that broke: cut or reset by the script, or an `/echo` whose request broke.
    pub broken: u64,
    /// Streams that stand still, waiting for a release.
    pub held: u64,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// Its number, from 0 in order of arrival.
    pub number: u64,
    /// When its head was read.
    pub at: Mono,
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its protocol.
    pub version: Version,
    /// Its headers as they came over the wire.
    pub headers: HeaderMap,
    /// Its body, up to 64 KiB; empty for paths that stream it through.
    pub body: Bytes,
}

/// How and when a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The number of the request, from 0 in order of arrival.
    pub request: u64,
    /// When.
    pub at: Mono,
    /// How.
    pub how: How,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The answer went out whole.
    Finished,
    /// The caller went away first.
    Cancelled,
    /// The script broke it.
    Broken,
}

/// The records of one server. Cheap to clone; clones share.
#[derive(Clone, Debug)]
pub struct Seen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    counts: watch::Sender<Counts>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<SeenRequest>,
    ends: VecDeque<Ended>,
    last_at: Option<Mono>,
}

impl Seen {
    /// Empty records whose times come from `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { clock, counts: watch::Sender::new(Counts::default()), kept: Mutex::default() }))
    }

    /// The totals now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.0.counts.borrow()
    }

    /// Waits until the totals satisfy `enough`, and gives those.
    pub async fn until(&self, mut enough: impl FnMut(&Counts) -> bool) -> Counts {
        let mut watch = self.0.counts.subscribe();
        let found = watch.wait_for(|counts| enough(counts)).await.map(|counts| *counts);
        found.unwrap_or_else(|_| self.counts())
    }

    /// The latest requests, oldest first; at most 4,096.
    #[must_use]
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.kept().requests.iter().cloned().collect()
    }

    /// The latest ends, oldest first; at most 4,096.
    #[must_use]
    pub fn ends(&self) -> Vec<Ended> {
        self.kept().ends.iter().copied().collect()
    }

    /// When the last request arrived.
    #[must_use]
    pub fn last_request_at(&self) -> Option<Mono> {
        self.kept().last_at
    }

    /// Counts a connection.
    pub fn connected(&self) {
        self.0.counts.send_modify(|counts| counts.connections += 1);
    }

    /// Counts and keeps a request; the ticket must see its end.
    #[must_use]
    pub fn arrived(&self, head: &http::request::Parts) -> Ticket {
        let at = self.0.clock.now();
        let mut number = 0;
        self.0.counts.send_modify(|counts| {
            number = counts.requests;
            counts.requests += 1;
            counts.in_flight += 1;
        });
        let mut kept = self.kept();
        kept.last_at = Some(at);
        push_bounded(
            &mut kept.requests,
            SeenRequest {
                number,
                at,
                method: head.method.clone(),
                uri: head.uri.clone(),
                version: head.version,
                headers: head.headers.clone(),
                body: Bytes::new(),
            },
        );
        drop(kept);
        Ticket { seen: self.clone(), number, open: true }
    }

    /// Counts an answer that stands still, for as long as the guard lives.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.0.counts.send_modify(|counts| counts.held += 1);
        Held(self.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == KEPT_MAX {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// An answer that stands still.
#[derive(Debug)]
pub struct Held(Seen);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.counts.send_modify(|counts| counts.held -= 1);
    }
}

/// A request that has not ended. Dropped without a word, it was cancelled.
#[derive(Debug)]
pub struct Ticket {
    seen: Seen,
    number: u64,
    open: bool,
}

impl Ticket {
    /// The number of the request, from 0 in order of arrival.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Keeps the request's body (its first 64 KiB) beside its head.
    pub fn keep_body(&self, body: &Bytes) {
        let mut kept = self.seen.kept();
        if let Some(request) = kept.requests.iter_mut().rev().find(|request| request.number == self.number) {
            request.body = body.slice(..body.len().min(BODY_KEPT_MAX));
        }
    }

    /// The request has ended; further calls change nothing.
    pub fn end(&mut self, how: How) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let ended = Ended { request: self.number, at: self.seen.0.clock.now(), how };
        push_bounded(&mut self.seen.kept().ends, ended);
        self.seen.0.counts.send_modify(|counts| {
            counts.in_flight -= 1;
            match how {
                How::Finished => counts.finished += 1,
                How::Cancelled => counts.cancelled += 1,
                How::Broken => counts.broken += 1,
            }
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(How::Cancelled);
    }
}

/// A response body that tells its ticket how it ended.
#[derive(Debug)]
pub struct Tracked<B> {
    body: Pin<Box<B>>,
    ticket: Ticket,
}

impl<B: Body> Tracked<B> {
    /// Follows `body`; one that is empty has ended already.
    pub fn new(body: B, mut ticket: Ticket) -> Self {
        if body.is_end_stream() {
            ticket.end(How::Finished);
        }
        Self { body: Box::pin(body), ticket }
    }

    /// For an answer whose body is never sent (HEAD).
    #[must_use]
    pub fn finished(mut self) -> Self {
        self.ticket.end(How::Finished);
        self
    }
}

impl<B: Body> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = self.body.as_mut().poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.ticket.end(How::Broken),
            Poll::Ready(None) => self.ticket.end(How::Finished),
            // A body of known length is dropped without a last poll.
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.ticket.end(How::Finished),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
