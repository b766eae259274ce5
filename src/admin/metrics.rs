//! `/metrics`: what the recorders, gauges and the board hold, folded into Prometheus families at the moment of the scrape.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::context::Context;
use super::rollouts;
use crate::evaluator::RolloutView;

use crate::judge::{GateResult, Outcome};
use crate::measure::Limit;
use crate::measure::answer::{FINISHES, Note};
use crate::measure::recorder::{BOUNDS_US, CLASSES, HistogramSums, TOKEN_TYPES};
use crate::measure::{Recorder, Sums};
use crate::rollout::Phase;
use crate::split::Weight;

/// The whole exposition.
///
/// # Errors
/// The encoder refused a family: a fault of ours.
pub fn text(cx: &Context) -> prometheus::Result<String> {
    let mut families = requests(&cx.parts().recorders.all());
    families.extend(process_wide(cx));
    families.extend(of_rollouts(cx));
    families.extend(journal(cx));
    families.extend(of_notices(cx));
    families.extend(ProcessCollector::for_self().collect());
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}

type Labels<'a> = &'a [(&'static str, &'a str)];

fn family(name: &str, help: &str, kind: MetricType) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pair = |(name, value): &(&'static str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn count(family: &mut MetricFamily, labels: Labels<'_>, value: f64) {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    family.mut_metric().push(metric);
}

fn gauge(family: &mut MetricFamily, labels: Labels<'_>, value: f64) {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = labelled(labels);
    metric.set_gauge(gauge);
    family.mut_metric().push(metric);
}

fn times(family: &mut MetricFamily, labels: Labels<'_>, sums: &HistogramSums) {
    let mut so_far = 0;
    let mut buckets = Vec::with_capacity(BOUNDS_US.len());
    for (bound, in_bucket) in BOUNDS_US.iter().zip(&sums.counts) {
        so_far += in_bucket;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(so_far);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(sums.counts.iter().sum());
    histogram.set_sample_sum(sums.sum_us as f64 / 1e6);
    histogram.set_bucket(buckets);
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    family.mut_metric().push(metric);
}

/// What every request counts in. A slot that never saw a request is left out, an outcome that never came too.
fn requests(recorders: &[Arc<Recorder>]) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE, HISTOGRAM};
    let mut ended = family("serin_requests_total", "Requests ended, by what became of them.", COUNTER);
    let mut duration =
        family("serin_request_duration_seconds", "Arrival of the request to the end of its answer.", HISTOGRAM);
    let mut ttfb = family("serin_time_to_first_byte_seconds", "Arrival to the upstream's response head.", HISTOGRAM);
    let mut ttft = family("serin_time_to_first_token_seconds", "Arrival to the first generated token.", HISTOGRAM);
    let mut tpot = family("serin_time_per_output_token_seconds", "Time per output token after the first.", HISTOGRAM);
    let mut tokens = family("serin_tokens_total", "Tokens that upstreams reported, by type.", COUNTER);
    let mut cost = family("serin_cost_usd_total", "Cost of tokens at the configured prices, US dollars.", COUNTER);
    let mut answers = family("serin_answers_total", "Models' answers that were read, by why they ended.", COUNTER);
    let mut notes = family("serin_answer_notes_total", "Answers by what was noted in them.", COUNTER);
    let mut in_flight = family("serin_requests_in_flight", "Requests begun and not ended.", GAUGE);
    for recorder in recorders {
        let sums = recorder.sums();
        let whose = recorder.labels.as_ref();
        // Stable may have answered only in the canary's place: tokens, and no request of its own.
        if sums.started == 0 && sums.requests.iter().flatten().chain(&sums.tokens).all(|n| *n == 0) {
            continue;
        }
        let rollout = whose.map_or("", |labels| labels.rollout.as_str());
        let arm = whose.map_or("", |labels| labels.arm.as_str());
        let version = whose.map_or("", |labels| labels.version.as_str());
        let base = [("rollout", rollout), ("arm", arm), ("version", version)];
        by_outcome(&mut ended, base, &sums);
        times(&mut duration, &base, &sums.duration);
        times(&mut ttfb, &base, &sums.ttfb);
        times(&mut ttft, &base, &sums.ttft);
        times(&mut tpot, &base, &sums.tpot);
        let [rollout, arm, version] = base;
        for (kind, value) in TOKEN_TYPES.iter().zip(sums.tokens) {
            count(&mut tokens, &[rollout, arm, version, ("type", kind)], value as f64);
        }
        count(&mut cost, &base, sums.cost_nano as f64 / 1e9);
        for (finish, value) in FINISHES.iter().zip(sums.finishes).filter(|(_, value)| *value != 0) {
            count(&mut answers, &[rollout, arm, version, ("finish", finish)], value as f64);
        }
        for (note, value) in Note::ALL.iter().zip(sums.notes).filter(|(_, value)| *value != 0) {
            count(&mut notes, &[rollout, arm, version, ("note", note.as_str())], value as f64);
        }
        gauge(&mut in_flight, &base, sums.started.saturating_sub(sums.ended) as f64);
    }
    vec![ended, duration, ttfb, ttft, tpot, tokens, cost, answers, notes, in_flight]
}

fn by_outcome(family: &mut MetricFamily, [rollout, arm, version]: [(&'static str, &str); 3], sums: &Sums) {
    for (outcome, row) in Outcome::ALL.iter().zip(&sums.requests) {
        for (class, value) in CLASSES.iter().zip(row) {
            if *value != 0 {
                let labels = [rollout, arm, version, ("outcome", outcome.as_str()), ("code", class)];
                count(family, &labels, *value as f64);
            }
        }
    }
}

/// How the journal fares.
fn journal(cx: &Context) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let health = cx.parts().journal.health();
    let mut failing = family("serin_journal_failing", "1 while the disk refuses records: nothing rises.", GAUGE);
    gauge(&mut failing, &[], f64::from(u8::from(health.failing.is_some())));
    let mut waiting =
        family("serin_journal_waiting_records", "Records of what is in force that the disk has refused so far.", GAUGE);
    gauge(&mut waiting, &[], health.backlog as f64);
    let mut lost =
        family("serin_journal_lost_records_total", "Records given up because too many waited for the disk.", COUNTER);
    count(&mut lost, &[], health.lost as f64);
    vec![failing, waiting, lost]
}

/// What the process as a whole says.
fn process_wide(cx: &Context) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let gauges = &cx.parts().gauges;
    let one = |name: &str, help: &str, kind, value: f64| {
        let mut family = family(name, help, kind);
        if kind == COUNTER {
            count(&mut family, &[], value)
        } else {
            gauge(&mut family, &[], value)
        }
        family
    };
    let mut hits = family("serin_limit_hits_total", "Requests or connections that ran into a bound.", COUNTER);
    for limit in Limit::ALL {
        let forgotten = if limit == Limit::FeedbackIds { cx.parts().memory.lock().forgotten() } else { 0 };
        count(&mut hits, &[("limit", limit.as_str())], (gauges.hits(limit) + forgotten) as f64);
    }
    let mut feedback = family("serin_feedback_items_total", "Feedback items, by what became of them.", COUNTER);
    for (taken, value) in cx.reports().counts() {
        count(&mut feedback, &[("result", taken.as_str())], value as f64);
    }
    let mut build = family("serin_build_info", "Always 1; the label is the version of serin.", GAUGE);
    gauge(&mut build, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let mut rollbacks = family("serin_rollbacks_total", "Rollbacks, by gate, breaker or abort.", COUNTER);
    for (rollout, reason, value) in gauges.rollbacks.all() {
        count(&mut rollbacks, &[("rollout", rollout.as_str()), ("reason", &reason)], value as f64);
    }
    let mut pulses = family(
        "serin_worker_heartbeat_timestamp_seconds",
        "When the worker last showed itself, seconds since 1970.",
        GAUGE,
    );
    let (now, wall_s) = (cx.parts().clock.now(), cx.parts().clock.wall().0 as f64 / 1e3);
    for (worker, silence) in gauges.pulses.silences(now) {
        gauge(&mut pulses, &[("worker", &worker.to_string())], wall_s - silence.as_secs_f64());
    }
    let mut dropped_samples = family("serin_samples_dropped_total", "Samples that found no room.", COUNTER);
    count(&mut dropped_samples, &[], cx.parts().samples.1.dropped() as f64);
    let mut queries = family("serin_queries_total", "External queries, by what came of them.", COUNTER);
    for (rollout, query, result, value) in gauges.queries.all() {
        count(&mut queries, &[("rollout", rollout.as_str()), ("query", &query), ("result", result)], value as f64);
    }
    let connections = gauges.connections.load(Ordering::Relaxed) as f64;
    let dropped = gauges.observations_dropped.load(Ordering::Relaxed) as f64;
    let good = f64::from(u8::from(gauges.reload_good.load(Ordering::Relaxed)));
    let good_at = gauges.reload_good_at_ms.load(Ordering::Relaxed) as f64 / 1e3;
    vec![
        one("serin_connections", "Open downstream connections.", GAUGE, connections),
        hits,
        one(
            "serin_evaluator_heartbeat_timestamp_seconds",
            "When the evaluator last finished a turn, seconds since 1970.",
            GAUGE,
            cx.parts().heartbeat.timestamp_seconds(),
        ),
        one(
            "serin_observations_dropped_total",
            "Facts that did not fit a ring; a window with drops never advances.",
            COUNTER,
            dropped,
        ),
        one("serin_config_last_reload_successful", "Whether the last load of the configuration took.", GAUGE, good),
        one(
            "serin_config_last_reload_success_timestamp_seconds",
            "When the configuration was last loaded with success, seconds since 1970.",
            GAUGE,
            good_at,
        ),
        pulses,
        rollbacks,
        feedback,
        queries,
        dropped_samples,
        build,
    ]
}

/// Where each rollout stands.
fn of_rollouts(cx: &Context) -> Vec<MetricFamily> {
    use MetricType::GAUGE;
    let mut weight = family("serin_weight_percent", "The canary's share: desired, and what requests show.", GAUGE);
    let mut phase = family("serin_rollout_phase", "1 for the phase that the rollout is in.", GAUGE);
    let mut stage = family("serin_rollout_stage", "The stage of the plan, from 0.", GAUGE);
    let mut gates = family("serin_gate_result", "1 for the result that the gate shows now.", GAUGE);
    let snapshot = cx.snapshot();
    for view in rollouts::all(cx) {
        let view: &RolloutView = &view;
        let name = ("rollout", view.name.as_str());
        let desired = snapshot.rollout(&view.name).map_or(Weight::ZERO, |rollout| rollout.split.weight);
        gauge(&mut weight, &[name, ("kind", "desired")], desired.percent());
        if let Some(actual) = view.weight_actual {
            gauge(&mut weight, &[name, ("kind", "actual")], actual);
        }
        for one in Phase::ALL {
            gauge(&mut phase, &[name, ("phase", one.as_str())], f64::from(u8::from(one.as_str() == view.phase)));
        }
        if let Some(at) = &view.stage {
            gauge(&mut stage, &[name], at.index as f64);
        }
        for gate in &view.gates {
            for (result, word) in RESULTS {
                let labels = [name, ("gate", gate.name.as_str()), ("result", word)];
                gauge(&mut gates, &labels, f64::from(u8::from(result == gate.result)));
            }
        }
    }
    vec![weight, phase, stage, gates]
}

/// What became of notices, and what waits.
fn of_notices(cx: &Context) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let counts = &cx.parts().told;
    let mut told = family(
        "serin_notifications_total",
        "Notices by receiver, kind, and what became of them or of an attempt.",
        COUNTER,
    );
    for one in counts.told() {
        let labels = [("target", one.target.as_str()), ("kind", one.kind.as_str()), ("result", one.result.as_str())];
        count(&mut told, &labels, one.count as f64);
    }
    let mut waiting = family("serin_notifications_waiting", "Notices in the outbox, by receiver.", GAUGE);
    let mut oldest =
        family("serin_notifications_oldest_seconds", "Age of the oldest notice that waits, by receiver.", GAUGE);
    let now = cx.parts().clock.wall();
    for one in counts.waiting() {
        gauge(&mut waiting, &[("target", one.target.as_str())], one.depth as f64);
        let age = one.oldest.map_or(0, |at| now.0.saturating_sub(at.0).max(0));
        gauge(&mut oldest, &[("target", one.target.as_str())], age as f64 / 1e3);
    }
    let mut lost = family(
        "serin_notifications_lost_total",
        "Notices without room on the way to the outbox, and changes of the outbox that did not reach the disk.",
        COUNTER,
    );
    for (place, value) in counts.lost() {
        count(&mut lost, &[("at", place)], value as f64);
    }
    let mut calls =
        family("serin_hook_calls_total", "Calls of confirm gates and other hooks, by answer.", MetricType::COUNTER);
    for ((rollout, hook, called), value) in counts.calls() {
        let labels = [("rollout", rollout.as_str()), ("hook", hook.as_str()), ("result", called.as_str())];
        count(&mut calls, &labels, value as f64);
    }
    vec![told, waiting, oldest, lost, calls]
}

/// Gate results and their words.
pub const RESULTS: [(GateResult, &str); 4] = [
    (GateResult::Pass, "pass"),
    (GateResult::Fail, "fail"),
    (GateResult::Inconclusive, "inconclusive"),
    (GateResult::Unarmed, "unarmed"),
];
