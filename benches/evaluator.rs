//! What a tick of the evaluator costs with 1, 10 and 100 rollouts of twelve gates on 8 workers, at rest and under traffic; and
//! what memory a rollout takes after that.
//!
//! Budget (design section 9), of 100 rollouts: under 2 ms of CPU a tick, under 0.5 ms where we go. A tick is 250 ms of life:
//! the guard's drain of all that came in it, and one turn of the evaluator with every judge's tick.

#![expect(clippy::panic, reason = "a bench that cannot be set up fails by panicking")]
#![expect(clippy::print_stdout, reason = "memory is a figure that criterion does not know")]

use std::cell::{LazyCell, RefCell};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serin::clock::Clock;
use serin::config;
use serin::evaluator::guard::{self, Batch, Guard};
use serin::evaluator::mailbox::mailbox;
use serin::evaluator::threads::{batches, orders};
use serin::evaluator::turn::{Evaluator, TICK_EVERY};
use serin::evaluator::{Board, Heartbeat, ToLog, World};
use serin::journal::Journal;
use serin::judge::{End, Fact, Outcome};
use serin::measure::ring::{self, Record, Writer};
use serin::measure::{Gauges, Recorders};
use serin::names::{Arm, Wall};
use serin::rollout::Now;
use serin::snapshot::{Builder, Live, Runtime};

const WORKERS: usize = 8;
/// Users of each rollout; a tenth of them have the canary.
const USERS: u64 = 5_000;
/// Rates with and without a hard twin, quantiles, means, zero tolerance.
const GATES: [&str; 12] = [
    "error_rate",
    "timeout_rate",
    "throttled_rate",
    "cut_stream_rate",
    "truncated_rate",
    "empty_rate",
    "latency_p50",
    "latency_p99",
    "ttft_p95",
    "tokens_out_mean",
    "cost_mean",
    "safety_violations",
];

struct Bench {
    rollouts: u32,
    clock: Clock,
    rings: Vec<Writer>,
    guard: Guard,
    batches: Receiver<Batch>,
    evaluator: Evaluator,
    id: u64,
}

impl Bench {
    fn new(rollouts: u32) -> Self {
        let mut text = "[listeners.edge]\nlisten = \"127.0.0.1:0\"\n".to_owned();
        for n in 0..rollouts {
            write!(
                text,
                "[rollouts.r{n}]\nmatch = {{ host = \"*\", path_prefix = \"/r{n}\" }}\nunit = [\"header:x-user-id\"]\nweight = 10.0\n\
                 [rollouts.r{n}.stable]\nversion = \"a\"\nendpoints = [\"http://127.0.0.1:9001\"]\n\
                 [rollouts.r{n}.canary]\nversion = \"b\"\nendpoints = [\"http://127.0.0.1:9002\"]\n"
            )
            .unwrap_or_default();
            for gate in GATES {
                writeln!(text, "[rollouts.r{n}.gates.{gate}]").unwrap_or_default();
            }
        }
        let config = config::parse(&text, "bench.toml", &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
        let builder = Builder::new(Arc::default(), Arc::new(Recorders::new(WORKERS)), b"");
        let prepared = Arc::new(builder.prepare(Arc::new(config)).unwrap_or_else(|error| panic!("{error}")));
        let live = Live::new(prepared.merge(|_| Runtime::default()));
        let clock = Clock::manual(Wall(1_795_183_200_000));
        clock.advance(Duration::from_secs(1_000));
        let gauges = Arc::new(Gauges::default());
        let (mailbox, _inbox) = mailbox();
        let (rings, rings_in) = (0..WORKERS).map(|_| ring::ring(ring::RING_RECORDS)).unzip();
        let (orders, orders_in) = orders();
        let (batches, batches_in) = batches();
        let journal = Arc::new(Journal::memory().unwrap_or_else(|error| panic!("{error}")));
        let guard = Guard::new(guard::Parts {
            rings: rings_in,
            live: live.clone(),
            journal: Arc::clone(&journal),
            batches,
            mailbox: mailbox.clone(),
            orders: orders_in,
            gauges: Arc::clone(&gauges),
            clock: clock.clone(),
        });
        let world = World {
            live,
            journal,
            mailbox,
            notifier: Box::new(ToLog),
            guard: orders,
            prepared,
            gauges,
            tracing: None,
            drills: None,
        };
        let now = Now { mono: clock.now(), wall: clock.wall() };
        let evaluator = Evaluator::new(world, Board::default(), Heartbeat::default(), now, |_| None);
        Self { rollouts, clock, rings, guard, batches: batches_in, evaluator, id: 0 }
    }

    /// One that has seen a minute and 40 seconds of so many requests a tick on each rollout.
    fn lived(rollouts: u32, each: u32) -> Self {
        let mut bench = Self::new(rollouts);
        for _ in 0..400 {
            bench.traffic(each.max(2));
            bench.guard_and_judge();
        }
        bench
    }

    /// A quarter of a second passes with so many requests on each rollout.
    fn traffic(&mut self, each: u32) {
        let begun = self.clock.now();
        self.clock.advance(TICK_EVERY);
        for n in 0..each {
            let at = begun.plus(TICK_EVERY.mul_f64(f64::from(n) / f64::from(each.max(1))));
            for rollout in 0..self.rollouts {
                self.id += 1;
                let (id, dice) = (self.id, self.id.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let user = 1 + (dice >> 32) % USERS;
                let arm = if user <= USERS / 10 { Arm::Canary } else { Arm::Stable };
                let first = at.plus(Duration::from_millis(20 + dice % 40));
                let status = if id.is_multiple_of(211) { 500 } else { 200 };
                let outcome = if status == 200 { Outcome::Success } else { Outcome::UpstreamError };
                let tokens = 50 + (dice >> 8) % 400;
                let end =
                    End { tokens_out: Some(tokens), cost_nano: Some(tokens * 600), ..End::plain(outcome, status) };
                let ring = &mut self.rings[rollout as usize % WORKERS];
                ring.push(Record::new(rollout, Fact::Start { id, at, arm, user, drawn: true }));
                ring.push(Record::new(rollout, Fact::FirstByte { id, at: first }));
                ring.push(Record::new(
                    rollout,
                    Fact::End { id, at: first.plus(Duration::from_micros(tokens * 250)), end },
                ));
            }
        }
    }

    fn guard_and_judge(&mut self) {
        self.guard.turn();
        self.judge();
    }

    fn judge(&mut self) {
        let now = Now { mono: self.clock.now(), wall: self.clock.wall() };
        self.evaluator.turn(Vec::new(), self.batches.try_iter().collect(), now);
    }
}

/// Before anything else was allocated and given back: what a hundred rollouts take together.
fn memory() {
    let before = resident_kib();
    let _bench = Bench::lived(100, 25);
    println!(
        "100 rollouts take {:.0} KiB each: judge, guard, configuration, their share of the rings",
        (resident_kib() - before) / 100.0
    );
}

/// Resident memory of this process, KiB (Linux: pages of 4 KiB).
fn resident_kib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).map_or(f64::NAN, |pages: f64| pages * 4.0)
}

fn evaluator(c: &mut Criterion) {
    let mut group = c.benchmark_group("evaluator");
    group.sample_size(20).measurement_time(Duration::from_secs(4));
    memory();
    // Rollouts, and requests of each in a tick.
    for (rollouts, each) in [(1, 0), (1, 250), (10, 25), (100, 0), (100, 2), (100, 25)] {
        // Made when it is asked for: a profile of one figure holds nothing of the others.
        let bench = LazyCell::new(|| RefCell::new(Bench::lived(rollouts, each)));
        group.bench_function(format!("tick_of_{rollouts}_with_{}_requests_a_second", rollouts * each * 4), |b| {
            b.iter_batched(
                || bench.borrow_mut().traffic(each),
                |()| bench.borrow_mut().guard_and_judge(),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, evaluator);
criterion_main!(benches);
