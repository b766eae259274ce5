//! One downstream connection: TLS, the choice between HTTP/1.1 and HTTP/2, and its bounds in time.
//!
//! hyper's own timers would cost an allocation for each head; here the connection notes what it is doing in cells and
//! one sweep of the worker looks at all of them.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::downlink::Downlink;
use super::headers::{self, Hop, Present};
use super::listener::Listening;
use super::proxy_protocol;
use super::worker::Worker;
use super::{h1, h2};
use crate::config::Limits;
use crate::http1::{Input, Io};
use crate::measure::gauges::Limit;
use crate::names::Mono;

/// How long an idle connection has for its farewell.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a connection is doing, noted by its own task, looked at by the sweep.
#[derive(Debug)]
pub struct State {
    waker: RefCell<Option<Waker>>,
    pub(super) order: Cell<Order>,
    served: Cell<u64>,
    idle_since: Cell<Mono>,
    pub(super) moves: Arc<Moves>,
}

/// What moves on the byte stream. Atomics only because hyper wants an upgradable stream to be `Send`; one thread uses
/// them, so a relaxed load and store is all there is.
#[derive(Debug, Default)]
pub struct Moves {
    in_flight: AtomicU32,
    /// The first bytes of a head came then; 0 while none did. Over HTTP/2, where streams share the bytes, always 0.
    pub(super) reading_since: AtomicU64,
    /// The caller takes no bytes since then; 0 while he does.
    pub(super) blocked_since: AtomicU64,
}

/// What the worker wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Serve.
    Go,
    /// End in good order: after the answers under way.
    Drain,
    /// End at once.
    Close,
}

impl State {
    fn new(now: Mono) -> Self {
        Self {
            waker: RefCell::new(None),
            order: Cell::new(Order::Go),
            served: Cell::new(0),
            idle_since: Cell::new(now),
            moves: Arc::default(),
        }
    }

    /// Wakes the task of `cx` with the next order.
    pub(super) fn follow(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn order(&self, order: Order) {
        if self.order.get() == Order::Close || self.order.get() == order {
            return;
        }
        self.order.set(order);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Ends in good order after the answers under way.
    pub fn drain(&self) {
        self.order(Order::Drain);
    }

    /// Which bound it has overstepped.
    fn overdue(&self, now: Mono, limits: &Limits) -> Option<Limit> {
        let longer = |since: &AtomicU64, than: std::time::Duration| {
            let since = since.load(Relaxed);
            since != 0 && now.since(Mono(since)) > than
        };
        if longer(&self.moves.blocked_since, limits.body_progress) {
            return Some(Limit::BodyProgress);
        }
        if self.moves.in_flight.load(Relaxed) > 0 {
            return None;
        }
        if longer(&self.moves.reading_since, limits.header_read) {
            return Some(Limit::HeaderRead);
        }
        (now.since(self.idle_since.get()) > limits.idle).then_some(Limit::Idle)
    }
}

/// A request under way on a connection; its last sign of life starts the idle time.
#[derive(Debug)]
pub struct Busy {
    state: Rc<State>,
    worker: Rc<Worker>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let moves = &self.state.moves;
        let left = moves.in_flight.load(Relaxed).saturating_sub(1);
        moves.in_flight.store(left, Relaxed);
        if left == 0 {
            self.state.idle_since.set(self.worker.deadlines.coarse_now());
            moves.reading_since.store(0, Relaxed);
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.index)
    }
}

/// All downstream connections of a worker.
#[derive(Debug, Default)]
pub struct Connections {
    places: RefCell<Vec<Option<Rc<State>>>>,
    free: RefCell<Vec<usize>>,
    draining: Cell<bool>,
}

impl Connections {
    fn add(&self, state: &Rc<State>) -> usize {
        let mut places = self.places.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(at) => {
                places[at] = Some(Rc::clone(state));
                at
            }
            None => {
                places.push(Some(Rc::clone(state)));
                places.len() - 1
            }
        }
    }

    fn remove(&self, at: usize) {
        self.places.borrow_mut()[at] = None;
        self.free.borrow_mut().push(at);
    }

    /// Closes what has overstepped a bound.
    pub fn sweep(&self, worker: &Worker, limits: &Limits) {
        let now = worker.deadlines.coarse_now();
        for state in self.places.borrow().iter().flatten() {
            let Some(limit) = state.overdue(now, limits) else { continue };
            if limit != Limit::Idle || state.order.get() != Order::Drain {
                worker.gauges.hit(limit);
                state.order(if limit == Limit::Idle { Order::Drain } else { Order::Close });
            } else if now.since(state.idle_since.get()) > limits.idle + FAREWELL {
                // HTTP/2's farewell waits for a preface or a pong that may never come.
                state.order(Order::Close);
            }
        }
    }

    /// From now on every answer is the last of its connection.
    pub fn begin_drain(&self) {
        self.draining.set(true);
    }

    /// Ends idle connections now and the others after their answers.
    pub fn drain_all(&self) {
        self.draining.set(true);
        for state in self.places.borrow().iter().flatten() {
            state.drain();
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.borrow().len() - self.free.borrow().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a request may know of its connection.
pub struct Connection {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The listener it came in by.
    pub listening: Arc<Listening>,
    /// The other side.
    pub peer: SocketAddr,
    /// The same as header values.
    pub hop: Hop,
    /// The byte stream of an HTTP/1.1 caller, for what is said before his answer.
    pub(super) link: OnceCell<Weak<RefCell<Downlink>>>,
    pub(super) state: Rc<State>,
}

impl Connection {
    /// A request begins on this connection.
    #[must_use]
    pub fn busy(&self) -> Busy {
        let moves = &self.state.moves;
        moves.in_flight.store(moves.in_flight.load(Relaxed) + 1, Relaxed);
        moves.reading_since.store(0, Relaxed);
        let served = self.state.served.get() + 1;
        self.state.served.set(served);
        if self.worker.connections.draining.get() {
            self.state.drain();
        }
        Busy { state: Rc::clone(&self.state), worker: Rc::clone(&self.worker) }
    }

    /// What the worker wants of this connection; the task is woken when that changes.
    pub(super) fn order(&self, cx: &Context<'_>) -> Order {
        self.state.follow(cx);
        self.state.order.get()
    }

    /// Whether the answer under way is the last one.
    pub(super) fn is_ending(&self) -> bool {
        self.state.order.get() != Order::Go
    }

    pub(super) fn moves(&self) -> Arc<Moves> {
        Arc::clone(&self.state.moves)
    }

    /// Runs `work` unless the connection is to be closed first.
    pub(super) async fn until_closed(&self, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        std::future::poll_fn(
            |cx| {
                if self.order(cx) == Order::Close { Poll::Ready(()) } else { work.as_mut().poll(cx) }
            },
        )
        .await;
    }

    /// Passes an interim answer (1xx) on (RFC 9110 section 15.2), where the caller can be told of it: over HTTP/2 the codec
    /// does not say them. 100 is serin's own to say: it answers `Expect` itself.
    pub(super) fn tell_early(&self, status: StatusCode, mut fields: HeaderMap) {
        let Some(link) = self.link.get().and_then(Weak::upgrade) else { return };
        if status != StatusCode::CONTINUE {
            let present = Present::scan(&fields);
            headers::towards_downstream(&mut fields, present);
            link.borrow_mut().put_early(status, &fields);
        }
    }

    /// Makes this request the connection's last when it has served `most`.
    pub fn bound_requests(&self, most: u64) {
        if self.state.served.get() >= most {
            self.worker.gauges.hit(Limit::RequestsPerConnection);
            self.state.drain();
        }
    }
}

/// Serves a connection to its end.
pub async fn serve(worker: Rc<Worker>, tcp: TcpStream, peer: SocketAddr, listening: Arc<Listening>) {
    worker.connected();
    let state = Rc::new(State::new(worker.deadlines.coarse_now()));
    let place = worker.connections.add(&state);
    if let Err(error) = serve_io(&worker, &state, tcp, peer, listening).await {
        tracing::debug!(error = %error, "a downstream connection ended");
    }
    worker.connections.remove(place);
    worker.disconnected();
}

async fn serve_io(
    worker: &Rc<Worker>,
    state: &Rc<State>,
    mut tcp: TcpStream,
    mut peer: SocketAddr,
    listening: Arc<Listening>,
) -> io::Result<()> {
    let view = worker.view();
    let limits = &view.snapshot().config.limits;
    if listening.config.proxy_protocol && listening.config.trusts(peer.ip()) {
        let reading = tokio::time::timeout(limits.header_read, proxy_protocol::read(&mut tcp));
        let named = Box::pin(reading).await??;
        peer = named.unwrap_or(peer);
    }
    let tls = listening.tls();
    let secure = tls.is_some();
    let mut input = Input::default();
    // What few connections need is boxed: the future of a plain one stays small.
    let (stream, is_h2) = match tls {
        Some(config) => Box::pin(handshake(worker, tcp, config, limits.header_read)).await?,
        None => {
            let mut stream = Io::Tcp(tcp);
            let h2 = begins_with_h2(worker, state, &mut stream, &mut input).await?;
            (stream, h2)
        }
    };
    let trusted = listening.config.trusts(peer.ip());
    let connection = Rc::new(Connection {
        worker: Rc::clone(worker),
        hop: Hop::new(peer.ip(), secure, trusted),
        listening,
        peer,
        link: OnceCell::new(),
        state: Rc::clone(state),
    });
    drop(view);
    if is_h2 {
        return Box::pin(h2::serve(connection, stream, input.bytes)).await;
    }
    h1::serve(&connection, stream, input).await;
    Ok(())
}

/// TLS, and whether ALPN chose HTTP/2.
async fn handshake(
    worker: &Worker,
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    patience: Duration,
) -> io::Result<(Io, bool)> {
    let accept = tokio_rustls::TlsAcceptor::from(config).accept(tcp);
    let stream =
        tokio::time::timeout(patience, accept).await.inspect_err(|_| worker.gauges.hit(Limit::HeaderRead))??;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Io::Tls(Box::new(stream.into())), h2))
}

/// Whether a plain connection begins with HTTP/2's preface (prior knowledge, RFC 9113 section 3.4). What is read to know it
/// is in `input`.
async fn begins_with_h2(worker: &Worker, state: &State, stream: &mut Io, input: &mut Input) -> io::Result<bool> {
    // "PRI " begins no other method's request line.
    const PREFACE: &[u8] = b"PRI ";
    let h2 = std::future::poll_fn(|cx| {
        state.follow(cx);
        if state.order.get() != Order::Go {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionAborted)));
        }
        loop {
            let seen = &input.bytes[..input.bytes.len().min(PREFACE.len())];
            if seen == PREFACE || !PREFACE.starts_with(seen) {
                return Poll::Ready(Ok(seen == PREFACE));
            }
            if !seen.is_empty() {
                // The time for a whole head runs.
                state.moves.reading_since.store(worker.deadlines.coarse_now().0.max(1), Relaxed);
            }
            match input.poll_fill(stream, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(read) => drop(read?),
                Poll::Pending => {
                    input.rest();
                    return Poll::Pending;
                }
            }
        }
    })
    .await?;
    state.moves.reading_since.store(0, Relaxed);
    Ok(h2)
}
