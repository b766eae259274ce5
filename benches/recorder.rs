//! What measuring costs a request: counting it for people, telling the judge, and what a scrape costs.
//!
//! Budget: the per-core recorders cost less than 1 % of a request's 18 µs (design section 4): under 180 ns in all.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serin::measure::ring::{self, Record};
use serin::measure::{Answer, End, Fact, Observation, Outcome, Recorders};
use serin::names::{Arm, Mono, RolloutName, VersionName};

fn recorder(c: &mut Criterion) {
    let mut group = c.benchmark_group("recorder");
    let recorders = Recorders::new(8);
    let slot = recorders.slot(&RolloutName::new("chat"), Arm::Canary, &VersionName::new("b"));
    let seen = Observation {
        outcome: Outcome::Success,
        status: Some(200),
        total_us: 181_000,
        ttfb_us: Some(80_000),
        ttft_us: Some(90_000),
        tpot_us: Some(11_000),
        answer: Answer {
            tokens: [120, 80, 60, 0, 0],
            tokens_all: 200,
            cost_nano: 176_000,
            finish: Some(0),
            ..Answer::default()
        },
    };
    group.bench_function("one_exchange_for_people", |b| {
        b.iter(|| {
            slot.start(3);
            slot.observe(3, black_box(&seen));
            slot.end(3);
        });
    });
    let (mut writer, mut reader) = ring::ring(ring::RING_RECORDS);
    let mut id = 0;
    group.bench_function("one_exchange_for_the_judge", |b| {
        b.iter(|| {
            id += 1;
            let at = Mono(id);
            writer.push(Record::new(0, Fact::Start { id, at, arm: Arm::Canary, user: id, drawn: true }));
            writer.push(Record::new(0, Fact::FirstByte { id, at }));
            writer.push(Record::new(0, Fact::End { id, at, end: End::plain(Outcome::Success, 200) }));
            // The guard's side, or the ring would be full: it costs the guard, not the worker.
            while let Some(record) = reader.pop() {
                black_box(record);
            }
        });
    });
    group.bench_function("a_slot_of_8_workers_read_out", |b| b.iter(|| black_box(slot.sums()).ended));
    group.finish();
}

criterion_group!(benches, recorder);
criterion_main!(benches);
