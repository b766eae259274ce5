//! Serves a caller's HTTP/2 connection with hyper's codec: its orders, its byte stream, and the bound on streams that he does
//! not read.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::{BodyError, DownBody};
use super::caller_body::CallerBody;
use super::connection::{Connection, Moves, Order, State};
use super::deadlines::Deadline;
use super::service;
use super::worker::Worker;
use crate::http1::Io;
use crate::measure::gauges::Limit;

/// What a caller may send of a body before it is taken.
const STREAM_WINDOW: u32 = 256 << 10;
/// What he may send of all bodies, however many streams he is allowed.
const WINDOW_MOST: u32 = 1 << 30;

/// Serves the connection to its end; `ahead` has been read of it already.
///
/// # Errors
/// What the codec says of how it ended.
pub(super) async fn serve(connection: Rc<Connection>, stream: Io, ahead: BytesMut) -> io::Result<()> {
    let (state, worker) = (Rc::clone(&connection.state), Rc::clone(&connection.worker));
    let now = worker.deadlines.shared_now();
    let io = TokioIo::new(Watched { stream, ahead, moves: Arc::clone(&state.moves), now });
    let view = worker.view();
    let limits = &view.snapshot().config.limits;
    let streams = Streams { begun: Rc::default(), worker: Rc::clone(&worker), progress: limits.body_progress };
    let begun = Rc::clone(&streams.begun);
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = Rc::clone(&connection);
        let head_only = request.method() == Method::HEAD;
        let request = request.map(CallerBody::H2);
        // The codec hands the stream's task over as soon as this has returned.
        let waits = Rc::new(Cell::new(Waits::Answer));
        begun.replace(Some(Rc::clone(&waits)));
        async move {
            let mut response = service::handle(&connection, request).await;
            if let Some(tags) = response.body_mut().take_tags() {
                tags.put(response.headers_mut());
            }
            if head_only {
                response.body_mut().drop_words();
            }
            waits.set(Waits::WindowAnew);
            Ok::<_, Infallible>(response.map(|body| StreamBody { body, waits }))
        }
    });
    let serving = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        // One for each stream: bodies that a version does not take must not hold up those of others.
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(limits.h2_streams).clamp(1 << 20, WINDOW_MOST))
        .max_send_buf_size(256 << 10)
        .serve_connection(io, service);
    drop(view);
    let mut serving = pin!(serving);
    drive(&state, serving.as_mut(), |s| s.graceful_shutdown()).await
}

/// Polls a connection to its end, heeding the worker's orders.
async fn drive<C>(state: &State, mut serving: Pin<&mut C>, drain: impl Fn(Pin<&mut C>)) -> io::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut draining = false;
    std::future::poll_fn(|cx| {
        state.follow(cx);
        match state.order.get() {
            Order::Close => return Poll::Ready(Ok(())),
            Order::Drain if !draining => {
                draining = true;
                drain(serving.as_mut());
            }
            _ => {}
        }
        let polled = serving.as_mut().poll(cx).map_err(io::Error::other);
        // A request of this very poll may have asked for the end.
        if polled.is_pending() && !draining && state.order.get() == Order::Drain {
            draining = true;
            drain(serving.as_mut());
            return serving.as_mut().poll(cx).map_err(io::Error::other);
        }
        polled
    })
    .await
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// The answer, or more of it.
    Answer,
    /// The caller, to open the stream's window.
    Window,
    /// The same, since a moment ago: something was just handed to the codec.
    WindowAnew,
}

/// Runs the streams of a connection, and ends those whose caller opens no window for `body_progress`: the codec asks for no more
/// of the body until then, so nobody else would notice, and the version's connection would be held for ever.
#[derive(Clone)]
struct Streams {
    /// The stream that the service has just been called for.
    begun: Rc<RefCell<Option<Rc<Cell<Waits>>>>>,
    worker: Rc<Worker>,
    progress: Duration,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        let Some(waits) = self.begun.take() else {
            return drop(tokio::task::spawn_local(stream));
        };
        let (worker, progress) = (Rc::clone(&self.worker), self.progress);
        drop(tokio::task::spawn_local(async move {
            let mut stream = pin!(stream);
            let mut deadline = Deadline::new(&worker.deadlines);
            std::future::poll_fn(|cx| {
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if waits.get() != Waits::Window {
                    deadline.reset();
                }
                if waits.get() == Waits::Answer {
                    return Poll::Pending;
                }
                waits.set(Waits::Window);
                if deadline.poll_expired(progress, cx) {
                    worker.gauges.hit(Limit::BodyProgress);
                    return Poll::Ready(());
                }
                Poll::Pending
            })
            .await;
        }));
    }
}

/// The body of an answer, noting what its stream waits for.
struct StreamBody {
    body: DownBody,
    waits: Rc<Cell<Waits>>,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.waits.set(if frame.is_pending() { Waits::Answer } else { Waits::WindowAnew });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The byte stream of an HTTP/2 connection, noting when its caller takes no bytes.
struct Watched {
    stream: Io,
    /// What was read before it was known to be HTTP/2.
    ahead: BytesMut,
    moves: Arc<Moves>,
    now: Arc<AtomicU64>,
}

impl Watched {
    fn wrote<T>(&self, result: &Poll<io::Result<T>>) {
        let blocked = &self.moves.blocked_since;
        if !result.is_pending() {
            blocked.store(0, Relaxed);
        } else if blocked.load(Relaxed) == 0 {
            blocked.store(self.now.load(Relaxed), Relaxed);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let most = buf.remaining().min(self.ahead.len());
            buf.put_slice(&self.ahead.split_to(most));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
