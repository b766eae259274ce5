//! What the split costs: the bucket of a unit, and the whole choice with cohorts before it.
//!
//! Budget: under 100 ns a request, so that it vanishes beside the 18 µs that a request costs (design section 4).

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderName;
use serin::split::{
    Ask, Bucket, Cohort, CohortTo, Condition, OpenCohorts, Seed, Subject, Table, Test, Unit, Weight, choose,
};

struct Caller;

impl Ask for Caller {
    fn header(&self, name: &HeaderName) -> Option<&str> {
        (name.as_str() == "x-org").then_some("umbrella")
    }
    fn path(&self) -> &str {
        "/v1/chat/completions"
    }
    fn ip(&self) -> IpAddr {
        IpAddr::from([10, 0, 0, 7])
    }
    fn unit(&self) -> Option<&str> {
        Some("user-123456")
    }
}

fn table(cohorts: usize) -> Table {
    let cohort = |n: usize| Cohort {
        name: format!("c{n}"),
        when: vec![Condition {
            subject: Subject::Header(HeaderName::from_static("x-org")),
            test: Test::Is(vec![format!("org-{n}")]),
        }],
        to: CohortTo::Canary,
    };
    Table {
        seed: Seed::derive(b"secret", "bucket", "chat", "b"),
        weight: Weight::from_buckets(10_000),
        baseline: true,
        latched: false,
        cohorts: (0..cohorts).map(cohort).collect(),
        open: OpenCohorts::AllBut(Vec::new()),
    }
}

fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    let seed = Seed::derive(b"secret", "bucket", "chat", "b");
    for text in ["user-123456", "auth0|5f7c8ec7c33c6c004bbafe82-0123456789abcdef0123456789abcdef"] {
        let unit = Unit::new(text.as_bytes());
        group.bench_function(format!("bucket_{}_bytes", text.len()), |b| {
            b.iter(|| unit.map(|unit| Bucket::of(black_box(unit), seed)));
        });
    }
    for cohorts in [0, 1, 10] {
        let (table, unit) = (table(cohorts), Unit::new(b"user-123456"));
        group.bench_function(format!("choose_{cohorts}_cohorts"), |b| {
            b.iter(|| choose(black_box(&table), black_box(unit), &Caller));
        });
    }
    group.finish();
}

criterion_group!(benches, split);
criterion_main!(benches);
