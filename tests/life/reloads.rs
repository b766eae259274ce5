//! Two hundred reloads under load: nothing fails, nothing is cut, nothing that lives is reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use serin::clock::Clock;
use serin::demo::{ModelServer, Script, Spread};
use tokio::net::TcpStream;

use crate::client::{Admin, Caller};
use crate::fixture::{House, hang, head, rollout, shared, until};

const RELOADS: u32 = 200;

/// What one kind of caller has seen.
#[derive(Default)]
struct Tally {
    good: AtomicU64,
    faults: std::sync::Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, result: Result<(), String>) {
        match result {
            Ok(()) => drop(self.good.fetch_add(1, Ordering::Relaxed)),
            Err(fault) => self.faults.lock().unwrap().push(fault),
        }
    }

    fn good(&self) -> u64 {
        self.good.load(Ordering::Relaxed)
    }
}

/// Callers of all three kinds.
struct Load {
    stop: Arc<AtomicBool>,
    kinds: Arc<[Tally; 3]>,
    thread: JoinHandle<()>,
}

const KINDS: [&str; 3] = ["HTTP/1.1 requests", "HTTP/2 requests", "streams"];

impl Load {
    fn start(edge: std::net::SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let kinds = Arc::new(<[Tally; 3]>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&kinds));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut callers = tokio::task::JoinSet::new();
                for number in 0..16 {
                    let (stop, kinds) = (Arc::clone(&stopped), Arc::clone(&counted));
                    callers.spawn(async move {
                        match number {
                            0..6 => plain(edge, number, &stop, &kinds[0]).await,
                            6..8 => multiplexed(edge, number, &stop, &kinds[1]).await,
                            _ => streams(edge, number, &stop, &kinds[2]).await,
                        }
                    });
                }
                while let Some(ended) = callers.join_next().await {
                    ended.unwrap();
                }
            });
        });
        Self { stop, kinds, thread }
    }

    fn good(&self) -> u64 {
        self.kinds.iter().map(Tally::good).sum()
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        for (kind, tally) in KINDS.iter().zip(self.kinds.iter()) {
            let faults = tally.faults.lock().unwrap();
            println!("{} {kind} good, {} not", tally.good(), faults.len());
            assert!(faults.is_empty(), "{kind}: {faults:?}");
            assert!(tally.good() >= 20, "too few {kind} to prove anything: {}", tally.good());
        }
    }
}

async fn plain(edge: std::net::SocketAddr, number: u32, stop: &AtomicBool, tally: &Tally) {
    let mut caller = Caller::connect(edge).await.unwrap();
    let mut user = number;
    while !stop.load(Ordering::Relaxed) {
        user += 16;
        tally.count(match caller.get("/chat/x", &format!("u{user}")).await {
            Ok(answer) if answer.status == 200 && !answer.closes => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

fn question(edge: std::net::SocketAddr, user: u32, stream: bool) -> Request<Full<Bytes>> {
    let body = json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "sing"}]});
    Request::post(format!("http://{edge}/chat/v1/chat/completions"))
        .header("host", edge.to_string())
        .header("content-type", "application/json")
        .header("x-user-id", format!("u{user}"))
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap()
}

/// One HTTP/2 connection with eight streams at a time.
async fn multiplexed(edge: std::net::SocketAddr, number: u32, stop: &AtomicBool, tally: &Tally) {
    let stream = TcpStream::connect(edge).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut user = number;
    while !stop.load(Ordering::Relaxed) {
        let eight = (0..8).map(|_| {
            user += 16;
            let (mut sender, request) = (sender.clone(), question(edge, user, false));
            async move {
                let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
                let status = response.status();
                let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
                if status == 200 && body.starts_with(b"{") { Ok(()) } else { Err(format!("{status} {body:?}")) }
            }
        });
        for result in futures_util::future::join_all(eight).await {
            tally.count(result);
        }
    }
}

/// One stream after another, each of many events, read to its last word.
async fn streams(edge: std::net::SocketAddr, number: u32, stop: &AtomicBool, tally: &Tally) {
    let stream = TcpStream::connect(edge).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut user = number;
    while !stop.load(Ordering::Relaxed) {
        user += 16;
        let one = async {
            sender.ready().await.map_err(|e| e.to_string())?;
            let response = sender.send_request(question(edge, user, true)).await.map_err(|e| e.to_string())?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            let whole = body.ends_with(b"data: [DONE]\n\n");
            if status == 200 && whole { Ok(()) } else { Err(format!("{status}, whole {whole}: {} bytes", body.len())) }
        };
        tally.count(one.await);
    }
}

#[test]
fn two_hundred_reloads_under_load_fail_nothing_cut_nothing_and_reset_nothing() {
    let _machine = shared();
    let clock = Clock::system();
    let server = |version: &str| {
        // A stream lasts a third of a second: dozens of reloads fall into each.
        let script = Script { per_token_ms: 20.0, tokens: Spread::fixed(16.0), ..Script::named(version) };
        ModelServer::start(script, 3, clock.clone()).unwrap()
    };
    let (stable, canary) = (server("a"), server("b"));
    let plan = "[[rollouts.other.plan.stages]]\nweight = 1.0\nresidence = \"24h\"\n\
                [[rollouts.other.plan.stages]]\nweight = 5.0\nresidence = \"24h\"\n\
                [[rollouts.other.plan.stages]]\nweight = 100.0\n";
    let version = |n: u32| {
        // Cohorts, headers, time-outs and limits: what a file may change while it serves.
        let chat = format!(
            "[[rollouts.chat.cohorts]]\nname = \"c{n}\"\nwhen = {{ header = \"x-org\", is = [\"o{n}\"] }}\nto = \"canary\"\n"
        );
        let more =
            format!("tag_responses = true\nfallback = \"{}\"", if n.is_multiple_of(2) { "connect" } else { "none" });
        head(2, false)
            + &rollout("chat", stable.addr(), canary.addr(), &format!("{more}\nweight = 0.0"))
            + &chat
            + &rollout("other", stable.addr(), canary.addr(), "")
            + plan
            + &rollout("dead", stable.addr(), canary.addr(), "weight = 0.0")
            + &if n.is_multiple_of(3) {
                rollout("now-and-then", stable.addr(), canary.addr(), "weight = 2.0")
            } else {
                String::new()
            }
    };
    let house = House::start(&version(1), &clock);
    let mut admin = Admin::new(house.admin());
    admin.weight("chat", 40.0);
    admin.weight("dead", 40.0);
    admin.verb("dead", "abort");
    admin.verb("other", "start");
    admin.must("POST", "/api/v1/rollouts/other/promote", &json!({"reason": "test"}));
    let life = |admin: &mut Admin| {
        ["chat", "other", "dead"].map(|name| {
            let said = admin.must("GET", &format!("/api/v1/rollouts/{name}"), &json!(null));
            json!([said["phase"], said["weight"], said["stage"]["index"], said["latch"], said["started_by"]])
        })
    };
    let before = life(&mut admin);
    assert_eq!(before[1][2], 1, "the second stage: {}", before[1]);
    assert!(before[2][3].is_object(), "latched: {}", before[2]);
    let load = Load::start(house.edge());
    until("load of every kind", || load.kinds.iter().all(|kind| kind.good() >= 10).then_some(()));
    let begun = (clock.now(), load.good());
    for n in 0..RELOADS {
        house.write(&version(n));
        if n.is_multiple_of(2) {
            house.serin().reload().unwrap_or_else(|fault| panic!("reload {n}: {fault}"));
        } else {
            admin.must("POST", "/api/v1/reload", &json!({}));
        }
        if n % 10 == 5 {
            // A bad file changes nothing, and says so.
            house.write(&(version(n) + "[rollouts.chat.stable]\nweigth = 3\n"));
            let (status, said) = admin.call("POST", "/api/v1/reload", &json!({}));
            assert_eq!(status, 422, "{said}");
            let config = &house.serin().live.load().config;
            assert_eq!(config.rollout("chat").unwrap().cohorts[0].name, format!("c{n}"), "the old one stays in force");
        }
        let live = house.serin().live.load();
        let of = |name: &str| live.rollout(name).map(|one| (one.split.weight.percent(), one.split.latched)).unwrap();
        assert_eq!([of("chat"), of("other"), of("dead")], [(40.0, false), (5.0, false), (0.0, true)], "reload {n}");
        // A little of the load between two of them.
        let some = load.good() + 3;
        until("the load goes on", || (load.good() >= some).then_some(()));
    }
    let took = clock.now().since(begun.0);
    println!("{RELOADS} reloads in {took:?} among {} exchanges", load.good() - begun.1);
    assert_eq!(life(&mut admin), before, "stage, weight and latch are never reset");
    let config = &house.serin().live.load().config;
    assert_eq!(
        config.rollout("chat").unwrap().cohorts[0].name,
        format!("c{}", RELOADS - 1),
        "the last one is in force"
    );
    load.end();
}

#[test]
fn a_reload_that_was_refused_because_the_evaluator_hung_never_comes_into_force() {
    let _machine = shared();
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let text = |weight: f64| head(1, false) + &rollout("chat", nowhere, nowhere, &format!("weight = {weight}"));
    let with_more = text(1.0) + &rollout("more", nowhere, nowhere, "weight = 2.0");
    let house = House::start(&text(1.0), &Clock::system());
    let go_on = hang(house.serin());
    house.write(&with_more);
    let refused = house.serin().reload().unwrap_err();
    assert!(refused.contains("does not answer"), "{refused}");
    drop(go_on);
    let mut admin = Admin::new(house.admin());
    // A change that is answered was behind the reload in the box.
    admin.weight("chat", 3.0);
    assert!(house.serin().live.load().rollout("more").is_none(), "what was refused has come into force");
    house.serin().reload().unwrap();
    assert!(house.serin().live.load().rollout("more").is_some());
}
