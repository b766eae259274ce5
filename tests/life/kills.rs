//! The kill switch, measured: from the abort to the last canary request that arrives, with every worker saturated.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serin::clock::Clock;
use serin::names::Mono;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::client::{Admin, Caller};
use crate::fixture::{House, alone, head, rollout, until};

const TRIALS: usize = 150;
const WORKERS: usize = 4;
const CALLERS: usize = 32;
/// What the product promises.
const LIMIT: Duration = Duration::from_millis(10);

/// CPU time in ticks: of this process, and of the whole machine with what was stolen from it.
fn spent() -> (f64, f64) {
    let sum = |text: &str, skip: usize, take: usize| {
        text.split_whitespace().skip(skip).take(take).map(|n| n.parse::<f64>().unwrap()).sum::<f64>()
    };
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    let all = std::fs::read_to_string("/proc/stat").unwrap();
    let all = all.lines().next().unwrap();
    // The fields behind the process's name: state is the first, user and system time the 12th and 13th.
    (sum(own.rsplit(')').next().unwrap(), 11, 2), sum(all, 1, 3) + sum(all, 6, 3))
}

/// A server that answers every request at once and can say how many heads have reached it, those among them that it has
/// not read yet.
struct Counter {
    addr: std::net::SocketAddr,
    seen: Arc<Seen>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    heads: AtomicU64,
    last: AtomicU64,
    lines: Mutex<Vec<Arc<Line>>>,
}

/// One connection: its socket a second time, and how many bytes were read from it. Reading and looking exclude each other.
struct Line {
    again: std::net::TcpStream,
    taken: Mutex<u64>,
}

impl Counter {
    fn start(clock: &Clock) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (stop, mut stopped) = watch::channel(false);
        let (shared, clock) = (Arc::clone(&seen), clock.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            let (stream, _) = accepted.unwrap();
                            tokio::spawn(serve(stream, Arc::clone(&shared), clock.clone()));
                        }
                        _ = stopped.wait_for(|stop| *stop) => return,
                    }
                }
            });
        });
        Self { addr, seen, stop, thread: Some(thread) }
    }

    fn heads(&self) -> u64 {
        self.seen.heads.load(Ordering::SeqCst)
    }

    fn last(&self) -> Mono {
        Mono(self.seen.last.load(Ordering::SeqCst))
    }

    /// Bytes that have arrived by now on all connections, read or not.
    fn arrived(&self) -> u64 {
        let mut waiting = vec![0; 1 << 16];
        let lines = self.seen.lines.lock().unwrap();
        lines
            .iter()
            .map(|line| {
                let taken = line.taken.lock().unwrap();
                *taken + line.again.peek(&mut waiting).unwrap_or(0) as u64
            })
            .sum()
    }

    /// Bytes that were read.
    fn taken(&self) -> u64 {
        self.seen.lines.lock().unwrap().iter().map(|line| *line.taken.lock().unwrap()).sum()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

async fn serve(stream: TcpStream, seen: Arc<Seen>, clock: Clock) {
    let stream = stream.into_std().unwrap();
    let line = Arc::new(Line { again: stream.try_clone().unwrap(), taken: Mutex::new(0) });
    let stream = TcpStream::from_std(stream).unwrap();
    stream.set_nodelay(true).unwrap();
    seen.lines.lock().unwrap().push(Arc::clone(&line));
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    while stream.readable().await.is_ok() {
        let read = {
            let mut taken = line.taken.lock().unwrap();
            let read = stream.try_read(&mut chunk);
            *taken += *read.as_ref().unwrap_or(&0) as u64;
            read
        };
        match read {
            Ok(0) => return,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        }
        while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            seen.last.store(clock.now().0, Ordering::SeqCst);
            seen.heads.fetch_add(1, Ordering::SeqCst);
            bytes.drain(..end + 4);
            if stream.try_write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

/// Callers that never pause, each on a connection of its own.
struct Load {
    stop: Arc<AtomicBool>,
    /// By caller.
    answers: Arc<[AtomicU64]>,
    /// Odd while an abort has been answered and no weight was set since.
    killed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(edge: std::net::SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let killed = Arc::new(AtomicU64::new(0));
        let answers: Arc<[AtomicU64]> = (0..CALLERS).map(|_| AtomicU64::new(0)).collect();
        let (stopped, counted, dead) = (Arc::clone(&stop), Arc::clone(&answers), Arc::clone(&killed));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut callers = tokio::task::JoinSet::new();
                for number in 0..CALLERS {
                    let (stopped, counted, dead) = (Arc::clone(&stopped), Arc::clone(&counted), Arc::clone(&dead));
                    callers.spawn(async move {
                        let mut caller = Caller::connect(edge).await.unwrap();
                        let mut user = number;
                        while !stopped.load(Ordering::Relaxed) {
                            user = user.wrapping_mul(31).wrapping_add(7) % 100_000;
                            let before = dead.load(Ordering::SeqCst);
                            let answer = caller.get("/chat", &format!("u{user}")).await.unwrap();
                            assert!(answer.status == 200 && !answer.closes, "{answer:?}");
                            let by_canary = answer.canary || answer.why != "latched";
                            assert!(
                                !(before % 2 == 1 && dead.load(Ordering::SeqCst) == before && by_canary),
                                "begun after a kill: {answer:?}"
                            );
                            counted[number].fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                while let Some(ended) = callers.join_next().await {
                    ended.unwrap();
                }
            });
        });
        Self { stop, answers, killed, threads: vec![thread] }
    }

    fn answers(&self) -> Vec<u64> {
        self.answers.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn after_an_abort_the_last_canary_request_arrives_within_ten_milliseconds_and_none_after_its_answer() {
    let _machine = alone();
    let clock = Clock::system();
    let (stable, canary) = (Counter::start(&clock), Counter::start(&clock));
    let text = head(WORKERS, false) + &rollout("chat", stable.addr, canary.addr, "weight = 0.0");
    let text = text + "[rollouts.chat.evaluator]\nenabled = false\n";
    let house = House::start(&text, &clock);
    let mut admin = Admin::new(house.admin());
    let load = Load::start(house.edge());
    let (mut last, mut acknowledged, mut late) = (Vec::new(), Vec::new(), Vec::new());
    // First the connections: bytes on one that the counter has not accepted yet would not be seen to have arrived.
    admin.weight("chat", 50.0);
    until("connections of every caller", || (canary.heads() >= 20 * CALLERS as u64).then_some(()));
    let begun = (clock.now(), load.answers().iter().sum::<u64>());
    let cpu = spent();
    for trial in 0..TRIALS {
        admin.weight("chat", 50.0);
        let from = canary.heads();
        // Another moment of the workers' round in each trial.
        let some = from + 60 + (trial as u64 * 37) % 41;
        until("canary requests under load", || (canary.heads() >= some).then_some(()));
        let asked = clock.now();
        admin.verb("chat", "abort");
        let answered = clock.now();
        load.killed.fetch_add(1, Ordering::SeqCst);
        let arrived = canary.arrived();
        // Every caller has gone round twice: whatever was under way has arrived.
        let before = load.answers();
        let round = || load.answers().iter().zip(&before).all(|(now, then)| *now >= then + 2);
        until("the load goes on", || (round() && canary.taken() >= arrived).then_some(()));
        last.push(canary.last().since(asked));
        acknowledged.push(answered.since(asked));
        if canary.taken() != arrived {
            late.push((trial, canary.taken() - arrived, canary.last().since(answered)));
        }
        load.killed.fetch_add(1, Ordering::SeqCst);
        admin.verb("chat", "clear");
    }
    let rate = (load.answers().iter().sum::<u64>() - begun.1) as f64 / clock.now().since(begun.0).as_secs_f64();
    let cpu = (spent().0 - cpu.0, spent().1 - cpu.1);
    load.end();
    last.sort_unstable();
    acknowledged.sort_unstable();
    let at = |times: &[Duration], share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    // Where others take the machine too (a build beside the tests), every thread waits for its turn that much longer.
    let others = (cpu.1 / cpu.0).max(1.0);
    println!(
        "{TRIALS} kills, {WORKERS} workers, {CALLERS} connections, {rate:.0} requests/s, the machine busy {others:.2} times \
         as much as this test: last canary request p50 {:?}, p99 {:?}, most {:?}; answered p50 {:?}, p99 {:?}; {} with a \
         head after the answer",
        at(&last, 0.5),
        at(&last, 0.99),
        at(&last, 1.0),
        at(&acknowledged, 0.5),
        at(&acknowledged, 0.99),
        late.len(),
    );
    assert!(late.is_empty(), "canary heads after the abort was answered (trial, bytes, after): {late:?}");
    let limit = if others < 1.2 { LIMIT } else { LIMIT.mul_f64(2.0 * others) };
    assert!(at(&last, 0.99) < limit, "p99 {:?}, at most {limit:?} here: {last:?}", at(&last, 0.99));
}
