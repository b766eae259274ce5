//! The HTTP/1.1 connection of a caller, shared by the task that serves it and the body of the request under way.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, header};
use hyper::body::Frame;
use tokio::io::AsyncWrite;

use super::body::BodyError;
use super::connection::Moves;
use super::deadlines::Deadlines;
use super::hangup::{self, Beginning, Reset};
use crate::http1::{BodyFault, Decoder, HeadError, HeadLimits, Input, Io, Outbox, RequestHead, head};

/// Bytes of later requests that are read while one is under way, so that the caller's leaving is seen.
const AHEAD_MOST: usize = 64 << 10;

/// One caller's byte stream with what was read ahead and what waits to be written.
pub struct Downlink {
    stream: Io,
    input: Input,
    /// What goes down.
    pub out: Outbox,
    scanned: usize,
    body: Decoder,
    expects_continue: bool,
    /// The caller knows interim answers (HTTP/1.1).
    takes_early: bool,
    /// Something before the answer waits to be written, by the task that serves the connection.
    early: bool,
    /// The final answer has begun: no interim one may follow.
    answering: bool,
    moves: Arc<Moves>,
    deadlines: Rc<Deadlines>,
    /// The caller has ended his side; done when he is gone altogether.
    gone: Option<Reset>,
    /// The task that serves the connection, where another one reads the body.
    server: Option<Waker>,
}

impl Downlink {
    /// Of a fresh connection, of which `input` has been read.
    #[must_use]
    pub fn new(stream: Io, input: Input, moves: Arc<Moves>, deadlines: Rc<Deadlines>) -> Self {
        Self {
            stream,
            input,
            out: Outbox::default(),
            scanned: 0,
            body: Decoder::Done,
            expects_continue: false,
            takes_early: false,
            early: false,
            answering: false,
            moves,
            deadlines,
            gone: None,
            server: None,
        }
    }

    /// The next request's head. `None`: the caller has closed.
    ///
    /// # Errors
    /// What came is no head.
    pub fn poll_head(
        &mut self,
        limits: HeadLimits,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<RequestHead, HeadError>>> {
        loop {
            if !self.input.bytes.is_empty() {
                self.begin_reading();
                match head::take_request(&mut self.input.bytes, &mut self.scanned, limits) {
                    Ok(Some(head)) => {
                        self.body = head.body;
                        self.expects_continue = head.expects_continue && !head.body.is_done();
                        self.takes_early = head.version == Version::HTTP_11;
                        self.answering = false;
                        return Poll::Ready(Some(Ok(head)));
                    }
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            match self.input.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => {
                    self.input.rest();
                    self.out.rest();
                    return Poll::Pending;
                }
            }
        }
    }

    /// The time for a whole head runs.
    fn begin_reading(&self) {
        if self.moves.reading_since.load(Relaxed) == 0 {
            self.moves.reading_since.store(self.deadlines.coarse_now().0.max(1), Relaxed);
        }
    }

    /// Whether nothing of a next request has come.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.input.bytes.is_empty()
    }

    /// The next frame of the request's body; asks for it first where the caller waits to be asked (RFC 9110 section
    /// 10.1.1).
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.expects_continue {
            self.expects_continue = false;
            if self.input.bytes.is_empty() && !self.answering {
                self.out.put(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
        if !self.answering && !self.early && !self.out.is_empty() && ready!(self.poll_write(cx)).is_err() {
            return Poll::Ready(Some(Err(BodyError::Left)));
        }
        let frame = ready!(self.body.poll_frame(&mut self.stream, &mut self.input, cx));
        if self.body.is_done()
            && let Some(server) = &self.server
            && !server.will_wake(cx.waker())
        {
            // From now on the serving task looks out for the caller's leaving.
            server.wake_by_ref();
        }
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|fault| match fault {
                BodyFault::Malformed(_) => BodyError::Broken,
                BodyFault::Io(_) | BodyFault::Truncated => BodyError::Left,
            })
        }))
    }

    /// Whether the request's body has been read to its end.
    #[must_use]
    pub fn body_is_over(&self) -> bool {
        self.body.is_done()
    }

    /// Bytes of it that are left, where known.
    #[must_use]
    pub fn body_left(&self) -> Option<u64> {
        self.body.remaining()
    }

    /// Bytes of its chunk under way that have not come yet.
    #[must_use]
    pub fn body_owed(&self) -> u64 {
        self.body.owed()
    }

    /// Ready when the caller has left. Nothing is known while his body is still coming. One who has ended his side alone is
    /// asked whether he is there, by the beginning of what follows.
    pub fn poll_left(&mut self, cx: &mut Context<'_>, follows: Beginning) -> Poll<()> {
        if !self.body.is_done() {
            if self.server.as_ref().is_none_or(|server| !server.will_wake(cx.waker())) {
                self.server = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        if let Some(gone) = &mut self.gone {
            return gone.as_mut().poll(cx);
        }
        while self.input.bytes.len() < AHEAD_MOST {
            match ready!(self.poll_ahead(cx)) {
                Ok(1..) => {}
                Ok(0) => return self.ask(cx, follows),
                Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Whether the caller has ended his side and waited for his answers.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.gone.is_some()
    }

    fn ask(&mut self, cx: &mut Context<'_>, follows: Beginning) -> Poll<()> {
        let Ok(mut gone) = hangup::watch(self.stream.tcp()) else { return Poll::Ready(()) };
        if gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.gone = Some(gone);
        match follows {
            // What waits to be written asks as well.
            _ if !self.out.is_empty() => {}
            Beginning::OfAnAnswer => self.out.begin_status(),
            Beginning::OfAChunk => self.out.put(b"0"),
            Beginning::Nothing => return Poll::Pending,
        }
        self.early = !self.answering;
        if matches!(self.poll_write(cx), Poll::Ready(Err(_))) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.input.poll_fill(&mut self.stream, cx);
        if read.is_pending() {
            self.input.rest();
        }
        read
    }

    /// An interim answer (1xx) on its way down; callers of HTTP/1.0 know none.
    pub fn put_early(&mut self, status: StatusCode, fields: &HeaderMap) {
        if !self.takes_early || self.answering {
            return;
        }
        self.out.put_status(status);
        for (name, value) in fields {
            if *name != header::CONTENT_LENGTH {
                self.out.put_field(name, value.as_bytes());
            }
        }
        self.out.put(b"\r\n");
        self.early = true;
    }

    /// Writes interim answers that wait, as far as the caller takes them: the answer may follow at any time.
    ///
    /// # Errors
    /// The caller has left.
    pub fn write_early(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.early {
            return Ok(());
        }
        match self.poll_write(cx) {
            Poll::Ready(written) => {
                self.early = false;
                written
            }
            Poll::Pending => Ok(()),
        }
    }

    /// The final answer begins.
    pub fn begin_answer(&mut self) {
        self.answering = true;
        self.early = false;
    }

    /// Writes all that waits.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let blocked = &self.moves.blocked_since;
        let before = self.out.waiting();
        let mut written = self.out.poll_write(&mut self.stream, cx);
        if matches!(written, Poll::Ready(Ok(()))) {
            written = Pin::new(&mut self.stream).poll_flush(cx);
        }
        if written.is_ready() {
            blocked.store(0, Relaxed);
        } else if blocked.load(Relaxed) == 0 || self.out.waiting() < before {
            blocked.store(self.deadlines.coarse_now().0.max(1), Relaxed);
        }
        written
    }

    /// Reads what a caller still sends, and throws it away; ready at the end of the stream.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.bytes.clear();
        self.input.poll_fill(&mut self.stream, cx)
    }

    /// Says that nothing more follows.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// The bare stream and what was read ahead.
    #[must_use]
    pub fn into_parts(self) -> (Io, Input) {
        (self.stream, self.input)
    }
}
