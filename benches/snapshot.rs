//! What the one cell costs: a worker's look at it, and a change of weight with few and with many rollouts.
//!
//! Budgets: a look is one atomic load and a comparison (under 10 ns), whatever the number of rollouts; a change is out of
//! the hot path, yet a kill with 1,000 rollouts must stay far below its 10 ms.

#![expect(clippy::panic, reason = "a bench that cannot be set up fails by panicking")]

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serin::config;
use serin::measure::Recorders;
use serin::snapshot::{Builder, Live, Prepared, Runtime};
use serin::split::Weight;

fn prepared(rollouts: usize) -> Arc<Prepared> {
    let mut text = "[listeners.edge]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for n in 0..rollouts {
        write!(
            text,
            "[rollouts.r{n}]\nmatch = {{ host = \"*\", path_prefix = \"/r{n}\" }}\nunit = [\"header:x-user-id\"]\nweight = 5.0\n\
             [rollouts.r{n}.stable]\nversion = \"a\"\nendpoints = [\"http://127.0.0.1:9001\"]\n\
             [rollouts.r{n}.canary]\nversion = \"b\"\nendpoints = [\"http://127.0.0.1:9002\"]\n"
        )
        .unwrap_or_default();
    }
    let config = config::parse(&text, "bench.toml", &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let builder = Builder::new(Arc::default(), Arc::new(Recorders::new(8)), b"secret");
    Arc::new(builder.prepare(Arc::new(config)).unwrap_or_else(|error| panic!("{error}")))
}

fn snapshot(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    for rollouts in [1, 100, 1_000] {
        let prepared = prepared(rollouts);
        let live = Live::new(prepared.merge(|_| Runtime::default()));
        let mut cache = live.cache();
        group.bench_function(format!("load_of_{rollouts}"), |b| b.iter(|| black_box(cache.load()).generation));
        let last = format!("r{}", rollouts - 1);
        let mut buckets = 0;
        group.bench_function(format!("weight_of_{rollouts}"), |b| {
            b.iter(|| {
                buckets = (buckets + 1) % 100_000;
                live.update_runtime(&last, |now| Some(Runtime { weight: Weight::from_buckets(buckets), ..now.clone() }))
            });
        });
        group.bench_function(format!("route_of_{rollouts}"), |b| {
            let snapshot = live.load();
            let path = format!("/{last}/v1/chat/completions");
            b.iter(|| snapshot.routes.find(black_box("api.example.com"), black_box(&path)));
        });
        group.bench_function(format!("reload_of_{rollouts}"), |b| {
            b.iter_batched(
                || Arc::clone(&prepared),
                |next| live.update(|current| Some(next.merge_onto(current, |_| false, |_| Runtime::default()))),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
