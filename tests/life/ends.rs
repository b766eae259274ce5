//! SIGTERM to the real binary under load: what is under way is answered, nothing fails, and the exit is a good one.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::json;
use serin::clock::Clock;
use serin::demo::{ModelServer, Script, Spread};
use tokio::net::TcpStream;

use crate::client::{Admin, Caller};
use crate::fixture::{head, rollout, shared, until};
use crate::process::Process;

/// Callers that heed `Connection: close` and GOAWAY, and open no new connection once serin says it is not ready.
#[derive(Default)]
struct Load {
    leaving: AtomicBool,
    good: [AtomicU64; 3],
    faults: Mutex<Vec<String>>,
}

impl Load {
    fn count(&self, kind: usize, result: Result<(), String>) {
        match result {
            Ok(()) => drop(self.good[kind].fetch_add(1, Ordering::Relaxed)),
            Err(fault) => self.faults.lock().unwrap().push(fault),
        }
    }

    fn good(&self) -> [u64; 3] {
        [0, 1, 2].map(|kind| self.good[kind].load(Ordering::Relaxed))
    }

    fn leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// A request that was never sent fails nobody: the connection had said goodbye, and another takes it.
    fn never_sent(&self, kind: usize, mut error: TrySendError<Request<Full<Bytes>>>) -> bool {
        let never = error.take_message().is_some();
        if !never {
            self.count(kind, Err(format!("kind {kind}: {:?}", error.error())));
        }
        never
    }

    async fn plain(&self, edge: std::net::SocketAddr, number: usize) {
        let mut user = number;
        while !self.leaving() {
            let mut caller = Caller::connect(edge).await.unwrap();
            // A kept connection is used until serin says that an answer is its last.
            loop {
                user += 32;
                match caller.get("/chat/x", &format!("u{user}")).await {
                    Ok(answer) if answer.status == 200 => {
                        self.count(0, Ok(()));
                        if answer.closes {
                            break;
                        }
                    }
                    other => return self.count(0, Err(format!("plain: {other:?}"))),
                }
            }
        }
    }

    async fn multiplexed(&self, edge: std::net::SocketAddr) {
        while !self.leaving() {
            let stream = TcpStream::connect(edge).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            while sender.ready().await.is_ok() {
                match sender.try_send_request(question(edge, false)).await {
                    Ok(response) => self.count(1, whole(response, |body| body.starts_with(b"{")).await),
                    Err(error) => {
                        if self.never_sent(1, error) {
                            break;
                        }
                        return;
                    }
                }
            }
        }
    }

    async fn streams(&self, edge: std::net::SocketAddr) {
        while !self.leaving() {
            let stream = TcpStream::connect(edge).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            while sender.ready().await.is_ok() {
                match sender.try_send_request(question(edge, true)).await {
                    Ok(response) => self.count(2, whole(response, |body| body.ends_with(b"[DONE]\n\n")).await),
                    Err(error) => {
                        if self.never_sent(2, error) {
                            break;
                        }
                        return;
                    }
                }
            }
        }
    }
}

fn question(edge: std::net::SocketAddr, stream: bool) -> Request<Full<Bytes>> {
    let body = json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "sing"}]});
    Request::post(format!("http://{edge}/chat/v1/chat/completions"))
        .header("host", edge.to_string())
        .header("content-type", "application/json")
        .header("x-user-id", "u")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap()
}

async fn whole(
    response: http::Response<hyper::body::Incoming>,
    is_whole: impl Fn(&[u8]) -> bool,
) -> Result<(), String> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| format!("{status}: {e}"))?.to_bytes();
    if status == 200 && is_whole(&body) { Ok(()) } else { Err(format!("{status}, {} bytes", body.len())) }
}

fn config(drain: &str, stable: &ModelServer) -> String {
    head(2, false) + drain + &rollout("chat", stable.addr(), stable.addr(), "weight = 20.0")
}

#[test]
fn a_sigterm_under_load_fails_no_request_and_exits_well() {
    let _machine = shared();
    let script = Script { per_token_ms: 25.0, tokens: Spread::fixed(16.0), ..Script::named("a") };
    let stable = ModelServer::start(script, 11, Clock::system()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let file = dir.path().join("serin.toml");
        std::fs::write(&file, config("[drain]\ndelay = \"2s\"\ntimeout = \"20s\"\n", &stable)).unwrap();
        let mut process = Process::start(&file);
        let load = Arc::new(Load::default());
        let (edge, callers) = (process.edge, Arc::clone(&load));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for number in 0..24 {
                    let load = Arc::clone(&callers);
                    tasks.spawn(async move {
                        match number {
                            0..12 => load.plain(edge, number).await,
                            12..16 => load.multiplexed(edge).await,
                            _ => load.streams(edge).await,
                        }
                    });
                }
                while let Some(ended) = tasks.join_next().await {
                    ended.unwrap();
                }
            });
        });
        let mut admin = Admin::new(process.admin);
        let enough = [400 + 37 * round, 100, 10];
        until("load of every kind", || {
            load.good().iter().zip(enough).all(|(good, least)| *good >= least).then_some(())
        });
        assert_eq!(admin.call("GET", "/readyz", &json!(null)).0, 200);
        process.signal(Signal::TERM);
        until("/readyz says no", || (admin.call("GET", "/readyz", &json!(null)).0 == 503).then_some(()));
        let told = load.good();
        // New connections are still taken for a while: not every balancer has looked yet.
        until("callers go on meanwhile", || (load.good()[0] >= told[0] + 20).then_some(()));
        load.leaving.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        let status = process.ended();
        let faults = load.faults.lock().unwrap();
        assert!(faults.is_empty(), "round {round}: {faults:?}; {:#?}", process.said());
        assert_eq!(status.code(), Some(0), "round {round}: {:#?}", process.said());
        println!("SIGTERM under load: {:?} plain, HTTP/2 and streamed answers, none failed", load.good());
    }
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let _machine = shared();
    let script = Script { hold_after: Some(2), ..Script::named("a") };
    let stable = ModelServer::start(script, 12, Clock::system()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serin.toml");
    std::fs::write(&file, config("[drain]\ndelay = \"1ms\"\ntimeout = \"10m\"\n", &stable)).unwrap();
    let mut process = Process::start(&file);
    let edge = process.edge;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let held = runtime.block_on(async {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(TcpStream::connect(edge).await.unwrap())).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(question(edge, true)).await.unwrap();
        stable.until(|counts| counts.held == 1).await;
        response
    });
    let mut admin = Admin::new(process.admin);
    process.signal(Signal::TERM);
    until("/readyz says no", || (admin.call("GET", "/readyz", &json!(null)).0 == 503).then_some(()));
    until("connecting is refused: the drain has begun", || std::net::TcpStream::connect(edge).is_err().then_some(()));
    let clock = Clock::system();
    let asked = clock.now();
    process.signal(Signal::TERM);
    let status = process.ended();
    let took = clock.now().since(asked);
    println!("a second SIGTERM beside an open stream: ended after {took:?}");
    assert_eq!(status.code(), Some(0), "{:#?}", process.said());
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(held);
}
