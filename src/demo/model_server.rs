//! A scripted model server: real HTTP on a real socket, behaving as its script says at this moment, remembering what it saw.
//!
//! It runs on a thread of its own, so that it serves any caller: an async test, a blocking one, the demo. It speaks HTTP/1.1
//! and HTTP/2 by prior knowledge on one port. Paths whose answers the script shapes: `/v1/chat/completions`, `/v1/responses`,
//! `/v1/messages`, and every path that is not listed here. Paths that do what their name says, whatever the script says about
//! answers (faults of the connection still hit them): `/v1/models`, `/echo` (body and trailers back, as they come), `/headers`
//! (the request's headers as JSON), `/status/NNN`, `/bytes/N` (with `?chunked` without a length), `/slow?ms=N`,
//! `/upgrade` (101, then every byte back).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::answer::{self, Asked, Dialect, Frames, Reply};
use super::behaviour::{Draw, Fate, Fault, HARM, QUALITY, Script};
use super::dice::Dice;
use super::line::{Cord, Line};
use super::seen::{Counts, Ended, How, Seen, SeenRequest, Ticket, Tracked};
use crate::clock::Clock;
use crate::names::Mono;

/// The header that names the version which answered.
pub const UPSTREAM_VERSION: HeaderName = HeaderName::from_static("x-upstream-version");

/// A script's break: the connection ends here.
#[derive(Debug, thiserror::Error)]
#[error("the script breaks the connection here")]
pub struct Broken;

type Body = BoxBody<Bytes, Broken>;

/// A running server. Dropping it closes every connection and joins its thread.
#[derive(Debug)]
pub struct ModelServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    listening: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    clock: Clock,
    script: watch::Sender<Arc<Script>>,
    releases: watch::Sender<u64>,
    seen: Seen,
    failed: Mutex<Option<io::Error>>,
}

impl ModelServer {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound or no thread started.
    pub fn start(script: Script, seed: u64, clock: Clock) -> io::Result<Self> {
        Self::start_on(std::net::TcpListener::bind(("127.0.0.1", 0))?, script, seed, clock)
    }

    /// Starts a server on a listener that is already bound.
    ///
    /// # Errors
    /// When the listener is unusable or no thread can be started.
    pub fn start_on(listener: std::net::TcpListener, script: Script, seed: u64, clock: Clock) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            seed,
            clock: clock.clone(),
            script: watch::Sender::new(Arc::new(script)),
            releases: watch::Sender::new(0),
            seen: Seen::new(clock),
            failed: Mutex::new(None),
        });
        let (stop, stopped) = watch::channel(false);
        let (tell, listening) = watch::channel(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serving = shared.clone();
        let thread = std::thread::Builder::new().name("model-server".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, addr, serving.clone(), stopped, tell)) {
                *serving.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        })?;
        Ok(Self { addr, shared, stop, listening, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDRESS`, as a config's `endpoints` have it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The script in force.
    #[must_use]
    pub fn script(&self) -> Arc<Script> {
        self.shared.script.borrow().clone()
    }

    /// Puts another script in force for the requests that arrive from now on. [`Fault::Down`] closes what is open.
    pub fn set(&self, script: Script) {
        self.shared.script.send_replace(Arc::new(script));
    }

    /// Changes the script in force.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        let mut script = (*self.script()).clone();
        change(&mut script);
        self.set(script);
    }

    /// Lets everything go on that stands still now: hung requests get their answer, held streams their rest.
    pub fn release(&self) {
        self.shared.releases.send_modify(|generation| *generation += 1);
    }

    /// Waits until the listener is open (`true`) or closed by [`Fault::Down`] (`false`). Also ends when the server has.
    pub async fn until_listening(&self, open: bool) {
        let mut listening = self.listening.clone();
        if listening.wait_for(|is| *is == open).await.is_err() {
            // The server has ended: it will not change any more.
        }
    }

    /// What it saw.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.shared.seen
    }

    /// The totals now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.seen.counts()
    }

    /// Waits until the totals satisfy `enough`, and gives those.
    pub async fn until(&self, enough: impl FnMut(&Counts) -> bool) -> Counts {
        self.shared.seen.until(enough).await
    }

    /// The latest requests, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.shared.seen.requests()
    }

    /// How the latest requests ended, oldest first.
    #[must_use]
    pub fn ends(&self) -> Vec<Ended> {
        self.shared.seen.ends()
    }

    /// When the last request arrived.
    #[must_use]
    pub fn last_request_at(&self) -> Option<Mono> {
        self.shared.seen.last_request_at()
    }

    /// Ends the server and says what made it fail before, if anything did.
    ///
    /// # Errors
    /// What ended the server early: its listener broke or could not be bound again.
    pub fn shut_down(mut self) -> io::Result<()> {
        self.join();
        self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn join(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            let failure = io::Error::other("the model server's thread panicked");
            *self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.join();
    }
}

/// Serves until told to stop; goes down and comes up again as the script says.
async fn serve(
    first: std::net::TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    tell: watch::Sender<bool>,
) -> io::Result<()> {
    let mut first = Some(TcpListener::from_std(first)?);
    let mut script = shared.script.subscribe();
    loop {
        let up = script.wait_for(|script| script.fault != Fault::Down);
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            _ = up => {}
        }
        let listener = match first.take() {
            Some(listener) => listener,
            None => TcpListener::bind(addr).await?,
        };
        tell.send_replace(true);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return Ok(()),
                _ = script.wait_for(|script| script.fault == Fault::Down) => break,
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        shared.seen.connected();
                        connections.spawn(connection(stream, shared.clone()));
                    }
                }
                _ = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        drop(listener);
        connections.shutdown().await;
        tell.send_replace(false);
    }
}

/// Serves one connection in whichever HTTP its first bytes begin. How it ends is the caller's to see.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok((line, cord, h2)) = Line::open(stream).await else { return };
    let service = service_fn(move |request| handle(request, shared.clone(), cord.clone()));
    let io = TokioIo::new(line);
    let ended = if h2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(1_000)
            .serve_connection(io, service)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(io, service)
            .with_upgrades()
            .await
    };
    if ended.is_err() {
        // Broken by the script or by the caller: the tickets have seen it.
    }
}

/// One request: take it, break what the script breaks, answer.
async fn handle(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    cord: Cord,
) -> Result<Response<Tracked<Body>>, Broken> {
    let (head, body) = request.into_parts();
    let mut ticket = shared.seen.arrived(&head);
    let script = shared.script.borrow().clone();
    let draw = script.draw(&mut Dice::fork(shared.seed, ticket.number()));
    match draw.fault {
        Fault::None | Fault::ResetAfterHead | Fault::Down => {}
        Fault::Hang => stand_still(&shared).await,
        Fault::ResetBeforeHead => {
            ticket.end(How::Broken);
            cord.pull();
            return Err(Broken);
        }
    }
    let is_head = head.method == Method::HEAD;
    let request = Request::from_parts(head, body);
    let mut response = answer(request, &shared, &script, draw, ticket, cord).await?;
    if let Ok(version) = HeaderValue::from_str(&script.version) {
        response.headers_mut().insert(UPSTREAM_VERSION, version);
    }
    if let Some(quality) = draw.quality.and_then(|quality| HeaderValue::from_str(&format!("{quality:.3}")).ok()) {
        response.headers_mut().insert(QUALITY, quality);
    }
    if draw.harms {
        response.headers_mut().insert(HARM, HeaderValue::from_static("1"));
    }
    Ok(if is_head { response.map(Tracked::finished) } else { response })
}

async fn stand_still(shared: &Shared) {
    // Subscribed before it is counted as held: whoever waits for the count and then releases is heard.
    let mut releases = shared.releases.subscribe();
    let _held = shared.seen.hold();
    if releases.changed().await.is_err() {
        // The server is going: nothing will be released any more.
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    script: &Arc<Script>,
    draw: Draw,
    ticket: Ticket,
    cord: Cord,
) -> Result<Response<Tracked<Body>>, Broken> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        ["echo"] => {
            let kind = request.headers().get(CONTENT_TYPE).cloned();
            let mut response = Response::new(request.into_body().map_err(|_| Broken).boxed());
            if let Some(kind) = kind {
                response.headers_mut().insert(CONTENT_TYPE, kind);
            }
            Ok(response.map(|body| Tracked::new(body, ticket)))
        }
        ["headers"] => {
            let pairs: Vec<[String; 2]> = request
                .headers()
                .iter()
                .map(|(name, value)| [name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()])
                .collect();
            let body = serde_json::to_vec(&pairs).map_err(|_| Broken)?;
            Ok(whole(StatusCode::OK, "application/json", body.into(), ticket))
        }
        ["status", number] => {
            let status = number.parse::<u16>().ok().and_then(|n| StatusCode::from_u16(n).ok());
            let status = status.filter(|status| !status.is_informational()).unwrap_or(StatusCode::BAD_REQUEST);
            let silent = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
            let body = if silent { Bytes::new() } else { Bytes::from(format!("{status}\n")) };
            Ok(whole(status, "text/plain", body, ticket))
        }
        ["bytes", number] => Ok(many(number.parse().unwrap_or(0), query == "chunked", ticket)),
        ["slow"] => {
            let ms = query.split('&').find_map(|pair| pair.strip_prefix("ms=")).and_then(|ms| ms.parse().ok());
            tokio::time::sleep(Duration::from_millis(ms.unwrap_or(0))).await;
            Ok(whole(StatusCode::OK, "text/plain", Bytes::from_static(b"slow\n"), ticket))
        }
        ["upgrade"] if request.headers().contains_key(UPGRADE) => Ok(upgrade(request, ticket)),
        ["v1", "models"] => {
            let body = answer::models(&script.version, shared.clock.wall().0 / 1_000);
            Ok(whole(StatusCode::OK, "application/json", body, ticket))
        }
        _ => {
            let body = request.into_body().collect().await.map_err(|_| Broken)?.to_bytes();
            ticket.keep_body(&body);
            model(Dialect::of(&path), Asked::read(&body), shared, script, draw, ticket, cord).await
        }
    }
}

/// The paths that the script shapes.
async fn model(
    dialect: Dialect,
    asked: Asked,
    shared: &Arc<Shared>,
    script: &Arc<Script>,
    draw: Draw,
    ticket: Ticket,
    cord: Cord,
) -> Result<Response<Tracked<Body>>, Broken> {
    let created = shared.clock.wall().0 / 1_000;
    let number = ticket.number();
    let reply = Reply {
        version: script.version.clone(),
        number,
        created,
        asked,
        tokens: draw.tokens,
        fate: draw.fate,
        caches: script.caches,
    };
    if let Fate::Error(status) = draw.fate {
        tokio::time::sleep(draw.latency).await;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = if dialect == Dialect::Plain { "text/plain" } else { "application/json" };
        let mut response = whole(status, kind, answer::trouble(dialect, status.as_u16()), ticket);
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        return Ok(response);
    }
    let reset = (draw.fault == Fault::ResetAfterHead).then_some(cord);
    let breaks = draw.fate == Fate::Cut || reset.is_some();
    if asked.stream {
        let telling = Telling::new(reply.frames(dialect), script, draw, breaks, reset, shared.clone());
        let body = StreamBody::new(stream::unfold(telling, Telling::next));
        let mut response = Response::new(Tracked::new(BodyExt::boxed(body), ticket));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        return Ok(response);
    }
    tokio::time::sleep(draw.latency).await;
    let kind = if dialect == Dialect::Plain { "text/plain" } else { "application/json" };
    let body = reply.json(dialect);
    if !breaks {
        return Ok(whole(StatusCode::OK, kind, body, ticket));
    }
    let length = body.len();
    let steps = VecDeque::from([Step::Say(body.slice(..length / 2)), Step::Break]);
    let telling = Telling { steps, reset, shared: shared.clone() };
    let body = StreamBody::new(stream::unfold(telling, Telling::next));
    let mut response = Response::new(Tracked::new(BodyExt::boxed(body), ticket));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// One act of an answer that is told piece by piece.
#[derive(Debug)]
enum Step {
    Say(Bytes),
    Wait(Duration),
    StandStill,
    Break,
}

/// An answer that is being told.
struct Telling {
    steps: VecDeque<Step>,
    reset: Option<Cord>,
    shared: Arc<Shared>,
}

impl Telling {
    fn new(
        frames: Frames,
        script: &Script,
        draw: Draw,
        breaks: bool,
        reset: Option<Cord>,
        shared: Arc<Shared>,
    ) -> Self {
        let per_token = Duration::from_secs_f64((script.per_token_ms / 1e3).clamp(0.0, 3_600.0));
        let told = if breaks { frames.tokens.len() / 2 } else { frames.tokens.len() };
        let mut steps: VecDeque<Step> = frames.open.into_iter().map(Step::Say).collect();
        for (index, token) in frames.tokens.into_iter().take(told).enumerate() {
            if script.hold_after == Some(index) {
                steps.push_back(Step::StandStill);
            }
            steps.push_back(Step::Wait(if index == 0 { draw.first_token } else { per_token }));
            steps.push_back(Step::Say(token));
        }
        if breaks {
            steps.push_back(Step::Break);
        } else {
            steps.extend(frames.close.into_iter().map(Step::Say));
        }
        Self { steps, reset, shared }
    }

    /// The next piece, when its time has come.
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Broken>, Self)> {
        loop {
            match self.steps.pop_front()? {
                Step::Say(bytes) => return Some((Ok(Frame::data(bytes)), self)),
                Step::Wait(time) if time.is_zero() => {}
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::StandStill => stand_still(&self.shared).await,
                Step::Break => {
                    // Being pending once makes hyper write out what was said before.
                    tokio::task::yield_now().await;
                    if let Some(cord) = &self.reset {
                        cord.pull();
                    }
                    return Some((Err(Broken), self));
                }
            }
        }
    }
}

/// An answer in one piece, with its length.
fn whole(status: StatusCode, kind: &'static str, body: Bytes, ticket: Ticket) -> Response<Tracked<Body>> {
    let body = Full::new(body).map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(Tracked::new(body, ticket));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// `n` bytes in pieces of 16 KiB at most, with a length or without.
fn many(n: usize, chunked: bool, ticket: Ticket) -> Response<Tracked<Body>> {
    static PIECE: Bytes = Bytes::from_static(&[b'x'; 16 * 1024]);
    let pieces = stream::unfold(n, |left| async move {
        let size = left.min(PIECE.len());
        (size > 0).then(|| (Ok(Frame::data(PIECE.slice(..size))), left - size))
    });
    let mut response = Response::new(Tracked::new(BodyExt::boxed(StreamBody::new(pieces)), ticket));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if !chunked {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(n));
    }
    response
}

/// Switches protocols and gives every byte back.
fn upgrade(mut request: Request<Incoming>, ticket: Ticket) -> Response<Tracked<Body>> {
    let wanted = request.headers().get(UPGRADE).cloned();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(stream) = upgraded.await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
        if tokio::io::copy(&mut from, &mut to).await.is_err() {
            // The caller is gone.
        } else if tokio::io::AsyncWriteExt::shutdown(&mut to).await.is_err() {
            // Likewise.
        }
    });
    let mut response = whole(StatusCode::SWITCHING_PROTOCOLS, "text/plain", Bytes::new(), ticket);
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(wanted) = wanted {
        headers.insert(UPGRADE, wanted);
    }
    response
}

#[cfg(test)]
mod tests {
    use http::header::HOST;
    use http_body_util::Empty;
    use hyper::client::conn::http2;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::client::{Client, ClientError};
    use super::*;

    fn server(script: Script) -> ModelServer {
        ModelServer::start(script, 7, Clock::system()).unwrap()
    }

    fn ask(path: &str, body: &str) -> Request<Full<Bytes>> {
        let method = if body.is_empty() { Method::GET } else { Method::POST };
        let request = Request::builder().method(method).uri(path).header(HOST, "model");
        request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
    }

    async fn text(server: &ModelServer, path: &str, body: &str) -> (http::response::Parts, String) {
        let (response, _lease) = Client::new(server.addr()).send(ask(path, body)).await.unwrap();
        let (head, body) = response.into_parts();
        (head, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    const CHAT: &str = "/v1/chat/completions";
    const STREAM: &str = r#"{"stream":true,"messages":[]}"#;

    #[tokio::test]
    async fn it_answers_the_model_paths_and_names_its_version() {
        let server = server(Script::named("m-7"));
        for path in [CHAT, "/v1/responses", "/v1/messages", "/openai/v1/chat/completions"] {
            let (head, body) = text(&server, path, r#"{"messages":[]}"#).await;
            assert_eq!(
                (head.status, &head.headers[UPSTREAM_VERSION]),
                (StatusCode::OK, &HeaderValue::from_static("m-7"))
            );
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["model"], "m-7", "{path}");
            let (head, body) = text(&server, path, STREAM).await;
            assert_eq!(head.headers[CONTENT_TYPE], "text/event-stream");
            assert!(body.starts_with("data: ") || body.starts_with("event: "), "{path}: {body}");
        }
        let (_, models) = text(&server, "/v1/models", "").await;
        assert_eq!(serde_json::from_str::<Value>(&models).unwrap()["data"][0]["id"], "m-7");
    }

    #[tokio::test]
    async fn plain_paths_do_what_their_name_says() {
        let server = server(Script { error_rate: 1.0, ..Script::default() });
        assert_eq!(text(&server, "/echo", "hello").await.1, "hello");
        assert_eq!(text(&server, "/status/418", "").await.0.status, StatusCode::IM_A_TEAPOT);
        assert_eq!(text(&server, "/status/204", "").await.1, "");
        let (head, body) = text(&server, "/bytes/40000", "").await;
        assert_eq!((body.len(), &head.headers[CONTENT_LENGTH]), (40_000, &HeaderValue::from_static("40000")));
        let (head, body) = text(&server, "/bytes/40000?chunked", "").await;
        assert!(body.len() == 40_000 && !head.headers.contains_key(CONTENT_LENGTH));
        assert!(text(&server, "/headers", "").await.1.contains(r#"["host","model"]"#));
        assert_eq!(text(&server, "/slow?ms=1", "").await.1, "slow\n");
        assert_eq!(text(&server, "/anything", "").await.0.status, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test]
    async fn a_change_of_the_script_holds_from_the_next_request_on() {
        let server = server(Script::named("a"));
        assert_eq!(text(&server, "/x", "").await.0.headers[UPSTREAM_VERSION], "a");
        server.set(Script { error_rate: 1.0, error_status: 429, ..Script::named("b") });
        let (head, _) = text(&server, CHAT, STREAM).await;
        assert_eq!(
            (head.status, &head.headers[UPSTREAM_VERSION]),
            (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from_static("b"))
        );
        assert!(head.headers.contains_key(RETRY_AFTER));
    }

    #[tokio::test]
    async fn it_speaks_http2_by_prior_knowledge_on_the_same_port() {
        let server = server(Script::default());
        let stream = TcpStream::connect(server.addr()).await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://model/v1/models").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!((response.version(), response.status()), (http::Version::HTTP_2, StatusCode::OK));
        assert_eq!(server.requests()[0].version, http::Version::HTTP_2);
    }

    #[tokio::test]
    async fn an_upgraded_connection_gives_every_byte_back() {
        let server = server(Script::default());
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        let ask = b"GET /upgrade HTTP/1.1\r\nhost: m\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
    }

    #[tokio::test]
    async fn a_hung_request_is_answered_after_the_release_and_not_before() {
        let server = server(Script { fault: Fault::Hang, ..Script::default() });
        let client = Client::new(server.addr());
        let asked = tokio::spawn(async move { client.send(ask(CHAT, STREAM)).await.unwrap().0.status() });
        let counts = server.until(|counts| counts.held == 1).await;
        assert_eq!((counts.in_flight, counts.finished), (1, 0));
        assert!(!asked.is_finished());
        server.release();
        assert_eq!(asked.await.unwrap(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_caller_who_leaves_in_mid_answer_is_recorded_as_cancelled() {
        let server = server(Script { hold_after: Some(3), ..Script::default() });
        let (mut response, lease) = Client::new(server.addr()).send(ask(CHAT, STREAM)).await.unwrap();
        server.until(|counts| counts.held == 1).await;
        let first = response.frame().await.unwrap().unwrap();
        assert!(first.is_data());
        drop((response, lease));
        let counts = server.until(|counts| counts.cancelled == 1).await;
        assert_eq!((counts.in_flight, counts.held, counts.finished), (0, 0, 0));
        let ended = server.ends()[0];
        assert_eq!((ended.request, ended.how), (0, How::Cancelled));
        assert!(ended.at > server.requests()[0].at);
    }

    #[tokio::test]
    async fn a_held_stream_goes_on_where_it_stood() {
        let server = server(Script { hold_after: Some(3), ..Script::default() });
        let (mut response, _lease) = Client::new(server.addr()).send(ask(CHAT, STREAM)).await.unwrap();
        server.until(|counts| counts.held == 1).await;
        let mut before = String::new();
        while before.matches("\n\n").count() < 4 {
            let frame = response.frame().await.unwrap().unwrap();
            before.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        assert!(before.contains("sings") && !before.contains("small"), "{before}");
        server.release();
        let rest = response.into_body().collect().await.unwrap().to_bytes();
        assert!(rest.ends_with(b"data: [DONE]\n\n"));
        assert_eq!(server.until(|counts| counts.finished == 1).await.in_flight, 0);
    }

    #[tokio::test]
    async fn resets_come_before_the_head_or_after_it() {
        let server = server(Script { fault: Fault::ResetBeforeHead, ..Script::default() });
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: m\r\n\r\n").await.unwrap();
        let error = stream.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        server.change(|script| script.fault = Fault::ResetAfterHead);
        for body in [STREAM, "{}"] {
            let (response, _lease) = Client::new(server.addr()).send(ask(CHAT, body)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert!(response.into_body().collect().await.is_err());
        }
        assert_eq!(server.until(|counts| counts.broken == 3).await.requests, 3);
    }

    #[tokio::test]
    async fn a_cut_stream_ends_without_its_last_words() {
        let server = server(Script { cut_rate: 1.0, ..Script::default() });
        let (mut response, _lease) = Client::new(server.addr()).send(ask(CHAT, STREAM)).await.unwrap();
        let mut said = Vec::new();
        loop {
            match response.frame().await {
                Some(Ok(frame)) => said.extend_from_slice(frame.data_ref().unwrap()),
                Some(Err(_)) => break,
                None => panic!("it ended properly: {}", String::from_utf8_lossy(&said)),
            }
        }
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("canary") && !said.contains("[DONE]"), "{said}");
    }

    #[tokio::test]
    async fn a_server_that_is_down_refuses_and_comes_up_again_on_its_address() {
        let server = server(Script::default());
        let client = Client::new(server.addr());
        let (response, lease) = client.send(ask("/x", "")).await.unwrap();
        response.into_body().collect().await.unwrap();
        lease.give_back();
        server.change(|script| script.fault = Fault::Down);
        server.until_listening(false).await;
        assert!(client.send(ask("/x", "")).await.is_err(), "the kept connection was closed too");
        let refused = Client::new(server.addr()).send(ask("/x", "")).await.unwrap_err();
        assert!(
            matches!(&refused, ClientError::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused),
            "{refused:?}"
        );
        server.change(|script| script.fault = Fault::None);
        server.until_listening(true).await;
        assert_eq!(text(&server, "/x", "").await.0.status, StatusCode::OK);
        server.shut_down().unwrap();
    }

    #[tokio::test]
    async fn a_head_request_and_an_empty_answer_end_as_finished() {
        let server = server(Script::default());
        let client = Client::new(server.addr());
        let head = Request::head("/v1/models").header(HOST, "m").body(Full::default()).unwrap();
        client.send(head).await.unwrap();
        client.send(ask("/status/204", "")).await.unwrap();
        let counts = server.until(|counts| counts.finished == 2).await;
        assert_eq!(counts.cancelled, 0);
    }

    #[tokio::test]
    async fn it_remembers_the_heads_and_bodies_that_came() {
        let server = server(Script::default());
        let mut request = ask(CHAT, STREAM);
        request.headers_mut().insert("serin-arm", HeaderValue::from_static("canary"));
        Client::new(server.addr()).send(request).await.unwrap();
        let seen = &server.requests()[0];
        assert_eq!((seen.uri.path(), &seen.headers["serin-arm"]), (CHAT, &HeaderValue::from_static("canary")));
        assert_eq!(seen.body, STREAM.as_bytes());
    }
}
