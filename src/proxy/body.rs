//! Bodies on their way: up, what identity peeked at and then the rest; down, every frame shown to the exchange.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::asking::Copy;
use super::caller_body::CallerBody;
use super::connection::Busy;
use super::deadlines::Deadline;
use super::editing::Editing;
use super::exchange::Exchange;
use super::headers;
use super::tag::Tags;
use super::tunnel::Tunnel;
use super::worker::Worker;
use crate::upstream::{AnswerBody, InFlight};
use crate::wire::Ending;
use crate::wire::edit::{self, Edit};

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than `body_bytes`.
    #[error("the body is longer than the limit")]
    TooLarge,
    /// Nothing moved for `body_progress` (or `timeouts.idle` towards upstream).
    #[error("the body stood still for too long")]
    Stalled,
    /// The other side sent what is no body.
    #[error("the body broke off")]
    Broken,
    /// The caller closed or reset its connection or stream.
    #[error("the caller left")]
    Left,
}

/// What happened to a request body, told to whoever waits for the answer.
#[derive(Clone, Debug, Default)]
pub struct UpState(Rc<std::cell::Cell<Option<BodyError>>>);

impl UpState {
    /// Why the body failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<BodyError> {
        self.0.get()
    }
}

/// A request body on its way up.
pub enum UpBody {
    /// None.
    Empty,
    /// Held whole: it can be sent again, and another model's name can be put in.
    Whole(Held),
    /// The caller's, with what was already looked at in front.
    Streamed(Streamed),
}

/// A body that is held whole.
#[derive(Clone, Debug)]
pub struct Held {
    /// As it came.
    original: Bytes,
    /// As it goes up; `None` once it has.
    left: Option<Bytes>,
}

impl Held {
    /// Of a body as it came.
    #[must_use]
    pub fn new(original: Bytes) -> Self {
        Self { left: Some(original.clone()), original }
    }

    /// As it came.
    #[must_use]
    pub fn original(&self) -> Bytes {
        self.original.clone()
    }

    /// Goes up with these edits; with `None`, as it came.
    fn rewrite(&mut self, edits: Option<&Arc<[Edit]>>) {
        let edited = edits.and_then(|edits| edit::whole(&self.original, edits)).map(Bytes::from);
        self.left = Some(edited.unwrap_or_else(|| self.original.clone()));
    }
}

/// What a request body may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// Most bytes.
    pub bytes: u64,
    /// Longest standstill.
    pub progress: Duration,
}

/// A caller's body with a bound on its bytes and on its standstill.
pub struct Streamed {
    seen: VecDeque<Bytes>,
    rest: CallerBody,
    left: u64,
    progress: Duration,
    deadline: Deadline,
    state: UpState,
    /// Where a gate wants to know what is asked.
    copy: Option<Rc<Copy>>,
    /// Where the version puts something into it.
    editing: Option<Box<Editing>>,
}

impl UpBody {
    /// The caller's body: `seen` was peeked at already, `most` bytes are let through.
    #[must_use]
    pub fn streamed(
        worker: &Rc<Worker>,
        seen: VecDeque<Bytes>,
        rest: CallerBody,
        bounds: BodyBounds,
        state: &UpState,
    ) -> Self {
        UpBody::Streamed(Streamed {
            seen,
            rest,
            left: bounds.bytes,
            progress: bounds.progress,
            deadline: Deadline::new(&worker.deadlines),
            state: state.clone(),
            copy: None,
            editing: None,
        })
    }

    /// Goes up with these edits, whatever was to be put in before; with `None`, as it came. To be said before it goes.
    pub fn rewrite(&mut self, edits: Option<&Arc<[Edit]>>) {
        match self {
            UpBody::Empty => {}
            UpBody::Whole(held) => held.rewrite(edits),
            UpBody::Streamed(streamed) => streamed.editing = edits.map(|edits| Box::new(Editing::new(edits))),
        }
    }

    /// The same body again, where nothing would be lost.
    #[must_use]
    pub fn again(&self) -> Option<UpBody> {
        match self {
            UpBody::Empty => Some(UpBody::Empty),
            UpBody::Whole(held) => Some(UpBody::Whole(Held::new(held.original.clone()))),
            UpBody::Streamed(_) => None,
        }
    }
}

impl Streamed {
    /// What passes is also written here.
    pub fn copy_to(&mut self, copy: Rc<Copy>) {
        self.copy = Some(copy);
    }

    fn copied(&self, frame: Option<&Frame<Bytes>>) {
        let Some(copy) = &self.copy else { return };
        if let Some(data) = frame.and_then(Frame::data_ref) {
            copy.push(data);
        }
        // Nobody polls behind the last frame of a body of known length.
        if frame.is_none_or(Frame::is_trailers) || self.seen.is_empty() && self.rest.is_end_stream() {
            copy.end();
        }
    }

    fn fail(&self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.state.0.set(Some(error));
        Poll::Ready(Some(Err(error)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.editing.is_none() {
            return self.poll_caller(cx);
        }
        loop {
            if let Some(frame) = self.editing.as_mut().and_then(|editing| editing.ready()) {
                return Poll::Ready(Some(Ok(frame)));
            }
            let polled = ready!(self.poll_caller(cx));
            let over = self.seen.is_empty() && self.rest.is_end_stream();
            let Some(editing) = &mut self.editing else { return Poll::Ready(polled) };
            match polled {
                Some(Ok(frame)) => editing.take(frame, over),
                None if !editing.over => editing.end(),
                ended => return Poll::Ready(ended),
            }
        }
    }

    /// The next frame as it came.
    fn poll_caller(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(bytes) = self.seen.pop_front() {
            return self.pass(Frame::data(bytes));
        }
        match self.rest.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.deadline.reset();
                self.pass(frame)
            }
            Poll::Ready(Some(Err(error))) => self.fail(error),
            Poll::Ready(None) => {
                self.copied(None);
                Poll::Ready(None)
            }
            // Refused before it has come.
            Poll::Pending if self.rest.owed() > self.left => self.fail(BodyError::TooLarge),
            Poll::Pending if self.deadline.poll_expired(self.progress, cx) => self.fail(BodyError::Stalled),
            Poll::Pending => Poll::Pending,
        }
    }

    fn pass(&mut self, mut frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(trailers) = frame.trailers_mut() {
            headers::clean_trailers(trailers);
        }
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(bytes) {
            Some(left) if self.rest.owed() <= left => self.left = left,
            _ => return self.fail(BodyError::TooLarge),
        }
        self.copied(Some(&frame));
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            UpBody::Empty => Poll::Ready(None),
            UpBody::Whole(held) => Poll::Ready(held.left.take().map(|b| Ok(Frame::data(b)))),
            UpBody::Streamed(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            UpBody::Empty => true,
            UpBody::Whole(held) => held.left.is_none(),
            UpBody::Streamed(streamed) => {
                let went = streamed.editing.as_ref().is_none_or(|editing| editing.went());
                went && streamed.seen.is_empty() && streamed.rest.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            UpBody::Empty => SizeHint::with_exact(0),
            UpBody::Whole(held) => SizeHint::with_exact(held.left.as_ref().map_or(0, |b| b.len() as u64)),
            UpBody::Streamed(streamed) => {
                let seen: u64 = streamed.seen.iter().map(|b| b.len() as u64).sum();
                match streamed.rest.remaining() {
                    // How long it is when it has been edited is known at its end.
                    _ if streamed.editing.is_some() => SizeHint::new(),
                    Some(rest) => SizeHint::with_exact(seen + rest),
                    None => SizeHint::new(),
                }
            }
        }
    }
}

/// A response body on its way down; keeps its connection from counting as idle until it is gone.
pub struct DownBody {
    kind: Kind,
    busy: Option<Busy>,
    tags: Option<Tags>,
}

#[expect(clippy::large_enum_variant, reason = "nearly all are measured; a box would be an allocation for each request")]
enum Kind {
    /// Serin's own words.
    Full(Option<Bytes>),
    /// A version's answer.
    Measured(Measured),
    /// What follows a 101.
    Tunnel(Option<Box<Tunnel>>),
}

/// A version's answer, frame by frame, seen by its exchange; gives the connection back at the exact end.
pub struct Measured {
    /// Gone once it is over: its connection has been given back.
    answer: Option<AnswerBody<UpBody>>,
    exchange: Exchange,
    /// Counts on the endpoint until the end.
    _in_flight: InFlight,
    _admitted: crate::upstream::Admitted,
    idle: Duration,
    deadline: Deadline,
}

impl DownBody {
    /// Serin's own words.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full(if bytes.is_empty() { None } else { Some(bytes) }), busy: None, tags: None }
    }

    /// A version's answer.
    #[must_use]
    pub const fn measured(measured: Measured, tags: Tags) -> Self {
        Self { kind: Kind::Measured(measured), busy: None, tags: Some(tags) }
    }

    /// What follows a 101.
    #[must_use]
    pub fn tunnel(tunnel: Tunnel, tags: Tags) -> Self {
        Self { kind: Kind::Tunnel(Some(Box::new(tunnel))), busy: None, tags: Some(tags) }
    }

    /// Takes the tunnel out, to be carried once the head is written.
    pub fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        if let Kind::Tunnel(tunnel) = &mut self.kind { tunnel.take() } else { None }
    }

    /// What serin says on the head; to be put there once.
    pub fn take_tags(&mut self) -> Option<Tags> {
        self.tags.take()
    }

    /// Serin's own words are not said: HEAD asks for none.
    pub fn drop_words(&mut self) {
        if let Kind::Full(words) = &mut self.kind {
            *words = None;
        }
    }

    /// The connection is busy for as long as this body lives.
    pub fn keep(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }
}

impl Measured {
    /// Wraps a version's answer. A body that is already over (HEAD, 204, length 0) ends the exchange at once.
    #[must_use]
    pub fn new(
        answer: AnswerBody<UpBody>,
        exchange: Exchange,
        in_flight: InFlight,
        admitted: crate::upstream::Admitted,
        idle: Duration,
    ) -> Self {
        let deadline = Deadline::new(&exchange.worker().deadlines);
        let mut measured =
            Self { answer: Some(answer), exchange, _in_flight: in_flight, _admitted: admitted, idle, deadline };
        if measured.answer.as_ref().is_some_and(AnswerBody::is_end_stream) {
            let now = measured.exchange.worker().clock.now();
            measured.finish(Ending::Clean, now);
        }
        measured
    }

    fn finish(&mut self, ending: Ending, now: crate::names::Mono) {
        self.deadline.reset();
        self.exchange.end(ending, now);
        if let Some(answer) = self.answer.take()
            && ending == Ending::Clean
        {
            self.exchange.worker().pool.give_back(answer.into_lease(), now);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(None) };
        let polled = answer.poll_frame(cx);
        if polled.is_pending() && !self.deadline.poll_expired(self.idle, cx) {
            return Poll::Pending;
        }
        let now = self.exchange.worker().clock.now();
        match polled {
            Poll::Pending => {
                self.finish(Ending::Broken, now);
                Poll::Ready(Some(Err(BodyError::Stalled)))
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                self.deadline.reset();
                if let Some(trailers) = frame.trailers_mut() {
                    self.exchange.look_at(trailers);
                    headers::clean_trailers(trailers);
                }
                // Nothing follows trailers, and nobody polls behind them.
                let last = frame.is_trailers() || answer.is_end_stream();
                if let Some(data) = frame.data_ref() {
                    self.exchange.chunk(data, now, last);
                }
                if last {
                    self.finish(Ending::Clean, now);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                self.finish(Ending::Broken, now);
                Poll::Ready(Some(Err(BodyError::Broken)))
            }
            Poll::Ready(None) => {
                self.finish(Ending::Clean, now);
                Poll::Ready(None)
            }
        }
    }
}

impl Body for DownBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Kind::Measured(measured) => Poll::Ready(ready!(measured.poll(cx))),
            Kind::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Measured(measured) => measured.answer.is_none(),
            Kind::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Measured(measured) => match &measured.answer {
                None => SizeHint::with_exact(0),
                Some(answer) => answer.remaining().map_or_else(SizeHint::new, SizeHint::with_exact),
            },
            Kind::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
