//! One HTTP/1.1 connection towards an endpoint and the exchange on it, polled by the task that wants the answer: no task of
//! its own, no channel between.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http1::head::take_response;
use crate::http1::outbox::WrongLength;
use crate::http1::{BodyFault, Decoder, Framing, HeadError, Input, Io, Outbox, ResponseHead};

/// Interim answers (1xx) before the final one, and their bytes altogether; more is an attack or a fault.
const INTERIM_MOST: u32 = 32;
const INTERIM_BYTES: usize = 64 << 10;

/// A connection; between exchanges it holds a socket and little else.
pub struct H1<B, S = Io> {
    io: S,
    input: Input,
    out: Outbox,
    /// All has been written, but TLS may hold some of it back.
    unflushed: bool,
    /// What of the request body is still to go up.
    body: Option<B>,
    up: Framing,
    /// The endpoint takes no more of the request; its answer may come all the same.
    deaf: bool,
    method: Method,
    scanned: usize,
    interim: u32,
    interim_bytes: usize,
    down: Decoder,
    keep: bool,
}

/// Why no head of an answer came.
#[derive(Debug, thiserror::Error)]
pub enum H1Fault {
    /// The connection ended or failed before a byte of an answer.
    #[error("the connection ended before an answer")]
    Unanswered,
    /// It ended or failed within the head.
    #[error("the connection ended within the answer's head")]
    Cut,
    /// What came is no answer.
    #[error("{0}")]
    Head(#[from] HeadError),
    /// More than 32 interim answers, or more than 64 KiB of them.
    #[error("interim answers without an end")]
    Interim,
    /// The request's body failed or was not as long as announced.
    #[error("the request body broke off")]
    Body,
}

/// Why the upload ended early.
enum UpFault {
    /// The endpoint closed its side.
    Deaf,
    /// The body itself failed.
    Body,
}

impl From<WrongLength> for UpFault {
    fn from(_: WrongLength) -> Self {
        UpFault::Body
    }
}

impl<B, S> H1<B, S>
where
    B: Body<Data = Bytes> + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// A fresh connection.
    #[must_use]
    pub fn new(io: S) -> Self {
        Self {
            io,
            input: Input::default(),
            out: Outbox::default(),
            unflushed: false,
            body: None,
            up: Framing::None,
            deaf: false,
            method: Method::GET,
            scanned: 0,
            interim: 0,
            interim_bytes: 0,
            down: Decoder::Done,
            keep: true,
        }
    }

    /// Whether a connection at rest can be used: neither its end nor stray bytes have come. Asks the socket only when
    /// the reactor has seen something happen.
    pub fn is_fresh(&mut self) -> bool {
        let pending = self.input.poll_fill(&mut self.io, &mut Context::from_waker(Waker::noop())).is_pending();
        self.input.rest();
        pending
    }

    /// Takes up a request: it is written as the exchange is polled. `fields` puts what the map does not have, Host among
    /// it; the framing is said here.
    pub fn begin(&mut self, request: Request<B>, target: &str, fields: impl FnOnce(&mut Outbox)) {
        debug_assert!(self.is_over());
        let (parts, body) = request.into_parts();
        self.up = match body.size_hint().exact() {
            Some(length) => Framing::Exact(length),
            None => Framing::Chunked,
        };
        self.out.put_request(&parts.method, target);
        for (name, value) in &parts.headers {
            if *name != header::CONTENT_LENGTH && *name != header::HOST {
                self.out.put_field(name, value.as_bytes());
            }
        }
        fields(&mut self.out);
        match self.up {
            // Methods that seldom have one need not say that they have none (RFC 9110 section 8.6).
            Framing::Exact(0) if parts.method.is_safe() => {}
            Framing::Exact(length) => self.out.put_length(length),
            _ => self.out.put(b"transfer-encoding: chunked\r\n"),
        }
        self.out.put(b"\r\n");
        self.body = (!body.is_end_stream()).then_some(body);
        self.method = parts.method;
        self.unflushed = true;
        self.deaf = false;
        self.scanned = 0;
        (self.interim, self.interim_bytes) = (0, 0);
        // Until an answer's head says more.
        self.down = Decoder::UntilClose;
        self.keep = false;
    }

    /// Waits for the head of the answer, sending the request meanwhile. Interim answers (1xx) are shown to `early`.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        early: &mut dyn FnMut(StatusCode, HeaderMap),
    ) -> Poll<Result<Response<()>, H1Fault>> {
        self.drive_upload(cx)?;
        loop {
            let before = self.input.bytes.len();
            if let Some(head) = take_response(&mut self.input.bytes, &mut self.scanned)? {
                if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                    self.interim += 1;
                    self.interim_bytes += before - self.input.bytes.len();
                    if self.interim > INTERIM_MOST || self.interim_bytes > INTERIM_BYTES {
                        return Poll::Ready(Err(H1Fault::Interim));
                    }
                    early(head.status, head.headers);
                    continue;
                }
                return Poll::Ready(self.answered(head));
            }
            let read = ready!(self.input.poll_fill(&mut self.io, cx));
            if !matches!(read, Ok(1..)) {
                let none = self.input.bytes.is_empty() && self.interim == 0;
                return Poll::Ready(Err(if none { H1Fault::Unanswered } else { H1Fault::Cut }));
            }
        }
    }

    fn answered(&mut self, head: ResponseHead) -> Result<Response<()>, H1Fault> {
        self.down = head.body(&self.method)?;
        self.keep = head.keep_alive && self.down != Decoder::UntilClose;
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    /// The next frame of the answer's body. What is left of the request goes on up meanwhile.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if self.drive_upload(cx).is_err() {
            return Poll::Ready(Some(Err(BodyFault::Truncated)));
        }
        self.down.poll_frame(&mut self.io, &mut self.input, cx)
    }

    /// Whether the answer's body is over.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.down.is_done()
    }

    /// Bytes of the answer's body that are left, where known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.down.remaining()
    }

    /// Whether nothing is left of an exchange, in either direction, and another may follow.
    fn is_over(&self) -> bool {
        self.down.is_done()
            && self.body.is_none()
            && self.out.is_empty()
            && !self.unflushed
            && self.input.bytes.is_empty()
    }

    /// Whether another exchange may follow this one; takes the connection to rest.
    pub fn settle(&mut self) -> bool {
        let good = self.keep && !self.deaf && self.is_over();
        if good {
            self.input.rest();
        }
        good
    }

    /// The bare stream and what was read beyond the head, after a 101.
    #[must_use]
    pub fn into_io(self) -> (S, Input) {
        (self.io, self.input)
    }

    fn drive_upload(&mut self, cx: &mut Context<'_>) -> Result<(), H1Fault> {
        if self.body.is_none() && self.out.is_empty() && !self.unflushed {
            return Ok(());
        }
        match self.poll_upload(cx) {
            Poll::Ready(Err(UpFault::Body)) => Err(H1Fault::Body),
            Poll::Ready(Err(UpFault::Deaf)) => {
                // It may have answered before it closed (413, say): read on.
                self.deaf = true;
                self.body = None;
                self.out = Outbox::default();
                self.unflushed = false;
                Ok(())
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Sends what is ready, joined: the head with the first of the body.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UpFault>> {
        loop {
            let mut starved = self.body.is_none();
            while !starved && !self.out.is_full() {
                starved = !self.take_frame(cx)? || self.body.is_none();
            }
            ready!(self.out.poll_write(&mut self.io, cx)).map_err(|_| UpFault::Deaf)?;
            if starved {
                ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(|_| UpFault::Deaf)?;
                self.unflushed = self.body.is_some();
                return if self.unflushed { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
        }
    }

    /// `false`: the body has nothing ready.
    fn take_frame(&mut self, cx: &mut Context<'_>) -> Result<bool, UpFault> {
        let Some(body) = &mut self.body else { return Ok(false) };
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(None) => {
                self.out.put_end(self.up, None)?;
                self.body = None;
            }
            Poll::Ready(Some(Err(_))) => return Err(UpFault::Body),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    self.out.put_data(&mut self.up, data, last)?;
                    if last {
                        if self.up != Framing::Chunked {
                            self.out.put_end(self.up, None)?;
                        }
                        self.body = None;
                    }
                }
                Err(frame) => {
                    self.out.put_end(self.up, frame.trailers_ref())?;
                    self.body = None;
                }
            },
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use http_body_util::Full;
    use tokio::io::ReadBuf;

    use super::*;

    /// Takes all at once, holds it back until flushed, and is not ready to flush the first `late` times, as TLS over a
    /// full socket; answers once all has gone out.
    struct Holding {
        late: usize,
        held: Vec<u8>,
        sent: Vec<u8>,
    }

    impl AsyncWrite for Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.late > 0 {
                self.late -= 1;
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.sent.extend_from_slice(&held);
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Holding {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if !self.sent.ends_with(b"last") {
                return Poll::Pending;
            }
            into.put_slice(b"HTTP/1.1 204 No Content\r\n\r\n");
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_tls_holds_back_is_flushed_until_it_is_gone() {
        let mut connection = H1::new(Holding { late: 2, held: Vec::new(), sent: Vec::new() });
        let body = Full::new(Bytes::from_static(b"first and last"));
        connection.begin(Request::post("/").body(body).unwrap(), "/", |_| ());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(connection.poll_head(cx, &mut |_, _| ()).is_pending());
        assert!(connection.poll_head(cx, &mut |_, _| ()).is_pending());
        let Poll::Ready(Ok(answer)) = connection.poll_head(cx, &mut |_, _| ()) else {
            panic!("it never came out of TLS")
        };
        assert_eq!(answer.status(), 204);
        assert!(connection.settle(), "nothing is left of the exchange");
    }
}
