//! The report under trial: a whole life through the real machine, rendered three ways and held against what was done.

use std::sync::Arc;
use std::time::Duration;

use super::release::Outcome;
use super::{Book, Report, Told, markdown, page};
use crate::journal::{Body, Entry, Summary};
use crate::judge::{GateResult, On, Verdict};
use crate::names::{Mono, RolloutName, VersionName, Wall};
use crate::rollout::{
    Actor, Effect, Event, Exposed, GateNumbers, Now, Numbers, Phase, Plan, Registration, ReleaseKind, RiskClass, Role,
    State, Terms, Threshold, Verb, step,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// A rollout that is lived through the machine, with numbers put beside its records as the evaluator would.
pub(crate) struct Life {
    pub terms: Terms,
    pub state: State,
    pub now: Now,
    pub entries: Vec<Entry>,
    pub exposed: Exposed,
    worse: f64,
}

impl Life {
    pub(crate) fn new(preset: &str) -> Self {
        let terms = Terms {
            rollout: RolloutName::new("chat"),
            stable: VersionName::new("gpt-large-0603"),
            canary: Some(VersionName::new("gpt-large-0711")),
            plan: Some(Arc::new(Plan::preset(preset).unwrap())),
            weight: None,
            gates: "6a".repeat(32),
            policy: None,
            drill_every: None,
            confirm: Arc::default(),
            register: Some(Arc::new(Registration {
                version: VersionName::new("gpt-large-0711"),
                digest: format!("sha256:{}", "9f".repeat(32)),
                kind: ReleaseKind::Minor,
                risk: Some(RiskClass::High),
                owner: "ml-platform".to_owned(),
                contacts: vec!["#release".to_owned()],
                shadow_evidence: vec!["reports/shadow-0711".to_owned()],
                thresholds: Threshold::of(&crate::judge::Policy::default()),
            })),
        };
        let now = Now { mono: Mono(1), wall: Wall(1_795_183_200_000) };
        let state = State::initial(&terms).resume(now.mono);
        Self { terms, state, now, entries: Vec::new(), exposed: Exposed::default(), worse: 0.1 }
    }

    fn take(&mut self, event: Event) {
        let (state, effects) = step(&self.terms, &self.state, event, self.now).unwrap();
        for effect in effects {
            if let Effect::Record(mut record) = effect {
                record.numbers = Some(Box::new(self.numbers()));
                let n = self.entries.len() as u64 + 1;
                self.entries.push(Entry { n, body: Body::Record(record) });
            }
        }
        self.state = state;
    }

    fn numbers(&self) -> Numbers {
        let gate = |name: &str, unit: &str, size: f64, worse: f64, result| GateNumbers {
            name: name.to_owned(),
            unit: unit.to_owned(),
            on: On::Rollback,
            required: true,
            result,
            stable: Some(size),
            canary: Some(size * (1.0 + worse)),
            difference: Some(size * worse),
            interval: Some([size * (worse - 0.2), size * (worse + 0.25)]),
            promote: Some(size * 0.2),
            rollback: Some(size * 0.5),
            limit: None,
            worse: Some([0.4, 7.6]),
            fine: Some([4.0, 3.0]),
            samples: 5_120,
            users: 311,
            why: "proven not worse".to_owned(),
        };
        let fell = if self.worse > 0.5 { GateResult::Fail } else { GateResult::Pass };
        let mut quality = gate("quality_mean", "score", 0.91, -0.01, GateResult::Pass);
        (quality.promote, quality.rollback) = (Some(-0.018), Some(-0.091));
        let gates = vec![
            gate("error_rate", "ratio", 0.0031, 0.05, GateResult::Pass),
            gate("latency_p99", "ms", 1_840.0, self.worse, fell),
            gate("cost_mean", "usd", 0.0042, 0.02, GateResult::Pass),
            quality,
        ];
        Numbers { gates, exposed: self.exposed, users: [900, 100, 100] }
    }

    fn by(&mut self, name: &str, verb: Verb, reason: &str) {
        let roles: &[Role] = if name == "olga" { &[Role::Owner] } else { &[Role::Operator, Role::Approver] };
        self.take(Event::Command { verb, actor: Actor::new(name, roles), reason: reason.to_owned() });
    }

    fn passes(&mut self, hours: u32) {
        self.now.mono = self.now.mono.plus(HOUR * hours);
        self.now.wall.0 += i64::from(hours) * 3_600_000;
        let share = u64::from(self.state.weight.buckets()) * u64::from(hours);
        self.exposed.users += share / 60;
        self.exposed.requests += share;
        self.exposed.cost_nano += share * 4_200_000;
    }

    fn proven(&mut self) {
        let reason = "every gate is proven not worse: error_rate log e 4.0 > 3.0, latency_p99 3.4 > 3.0".to_owned();
        self.take(Event::Judged(Verdict::Advance { reason }));
    }

    /// Starts and advances through so many stages, each signed.
    pub(crate) fn rise(&mut self, stages: usize) {
        self.by("alice", Verb::Start, "release 0711");
        for _ in 0..stages {
            self.passes(49);
            self.proven();
            for name in ["bob", "carol"] {
                if self.state.phase == Phase::Awaiting {
                    self.passes(1);
                    self.proven();
                    self.by(name, Verb::Approve, "looked at the dashboards");
                }
            }
        }
    }

    pub(crate) fn fall(&mut self) {
        self.passes(7);
        self.worse = 0.74;
        self.take(Event::Judged(Verdict::Rollback {
            rule: "latency_p99".to_owned(),
            reason: "canary 3201 ms, stable 1840 ms, +74 % > +50 %: log e 9.1 > 7.6 in a window of 12 min".to_owned(),
        }));
    }

    pub(crate) fn report(self) -> Report {
        let summary = Summary { first: 1, last: self.entries.len() as u64, hash: "ab".repeat(32) };
        let mut book = Book::new(self.terms.rollout.clone());
        self.entries.into_iter().for_each(|entry| book.take(entry));
        book.close(&summary, Wall(1_796_183_200_000)).unwrap()
    }
}

/// Two releases: one that fell in its fourth stage and was cleared, and one that was completed.
fn two_releases() -> Life {
    let mut life = Life::new("conservative");
    life.rise(3);
    life.fall();
    life.passes(20);
    life.by("bob", Verb::Clear, "the new tokenizer was built without its cache");
    (life.worse, life.exposed) = (0.1, Exposed::default());
    life.take(Event::Drilled { took: Duration::from_micros(740), failed: None });
    life.rise(6);
    life.passes(73);
    life.proven();
    life
}

#[test]
fn a_fall_and_a_completion_leave_the_records_that_they_should() {
    let report = two_releases().report();
    let [done, fallen] = &report.releases[..] else { panic!("{} releases", report.releases.len()) };
    assert_eq!((done.outcome, fallen.outcome), (Outcome::Completed, Outcome::RolledBack));
    let begun = fallen.initiation.as_ref().unwrap();
    assert_eq!((begun.by.as_str(), begun.gates.as_str()), ("alice", "6a".repeat(32).as_str()));
    assert_eq!(begun.plan.as_ref().unwrap().stages.len(), 7);
    assert_eq!(begun.register.as_ref().map(|entry| entry.owner.as_str()), Some("ml-platform"));
    let weights: Vec<f64> = fallen.promotions.iter().map(|p| p.weight).collect();
    assert_eq!(weights, [5.0, 10.0, 25.0]);
    assert!(fallen.promotions.iter().all(|p| p.proven && p.approvals == ["bob", "carol"] && p.gates.len() == 4));
    let incident = fallen.incident.as_ref().unwrap();
    assert_eq!((incident.severity, incident.gate.as_deref()), ("P2", Some("latency_p99")));
    assert_eq!((incident.stage, incident.weight_before, incident.rollbacks), (Some(3), 25.0, 1));
    assert_eq!(incident.at_weight_s, Some(7.0 * 3_600.0));
    assert_eq!(incident.gates[1].result, GateResult::Fail);
    assert!(incident.reason.contains("9.1 > 7.6"));
    let review = incident.review.as_ref().unwrap();
    assert_eq!(
        (review.by.as_str(), review.root_cause.as_str()),
        ("bob", "the new tokenizer was built without its cache")
    );
    let completion = done.completion.as_ref().unwrap();
    assert!(completion.proven && completion.unproven == 0 && completion.approvals == ["bob", "carol"]);
    assert_eq!(done.promotions.len(), 6);
    assert_eq!(report.drills.len(), 1);
}

#[test]
fn the_ledger_adds_up_to_what_the_canary_was_seen_by() {
    let report = two_releases().report();
    for release in &report.releases {
        let (users, requests) =
            release.exposure.iter().fold((0, 0), |sum, stay| (sum.0 + stay.new_users, sum.1 + stay.requests));
        let told = release.incident.as_ref().map(|i| i.exposed).or(release.completion.as_ref().map(|c| c.exposed));
        let told = told.unwrap();
        assert_eq!((users, requests), (told.users, told.requests));
        assert!(requests > 10_000);
        for pair in release.exposure.windows(2) {
            assert_eq!(pair[0].to, Some(pair[1].from), "no gap between stays");
        }
    }
}

#[test]
fn what_people_decide_beyond_the_proof_stands_in_a_list_of_its_own() {
    let mut life = Life::new("gradual");
    life.by("alice", Verb::Start, "");
    life.by("alice", Verb::Promote { full: false }, "the launch is today");
    life.by("olga", Verb::SetWeight(crate::split::Weight::from_percent(60.0).unwrap()), "more of it");
    life.by("olga", Verb::Gates, "a wider margin");
    life.by("alice", Verb::Abort, "enough");
    let report = life.report();
    let release = &report.releases[0];
    let said: Vec<(&str, &str)> = release.overrides.iter().map(|o| (o.by.as_str(), o.reason.as_str())).collect();
    assert_eq!(said, [("alice", "the launch is today"), ("olga", "more of it"), ("olga", "a wider margin")]);
    assert_eq!(release.outcome, Outcome::Aborted);
    let incident = release.incident.as_ref().unwrap();
    assert_eq!((incident.by.as_str(), &incident.gate, incident.reason.as_str()), ("alice", &None, "enough"));
}

#[test]
fn every_rendering_says_the_same_and_nobody_writes_markup_but_we() {
    let mut life = Life::new("gradual");
    life.by("<script>alert(1)</script>", Verb::Start, "a | b <img src=x> _c_\n# no head");
    let report = life.report();
    let html = page::render(&report);
    let md = markdown::render(&report);
    assert!(!html.contains("<script") && !html.contains("<img"), "a name is no markup");
    assert!(html.contains("&lt;script&gt;"));
    assert!(!md.contains("<img") || md.contains("\\<img"), "{md}");
    assert!(!md.contains("\n# no head") && md.contains("a \\| b"));
    let json = serde_json::to_value(two_releases().report()).unwrap();
    assert_eq!(json["releases"][0]["outcome"], "completed");
    assert_eq!(json["releases"][1]["incident"]["at"], "2026-11-27T06:00:00.000Z");
    let (html, md) = (page::render(&two_releases().report()), markdown::render(&two_releases().report()));
    for text in [&html, &md] {
        for word in [
            "2026-11-27 06:00:00 UTC",
            "25 %",
            "the new tokenizer was built without its cache",
            "ml-platform",
            "reports/shadow-0711",
            "+0.5 pp",
            "high",
            "Article 15",
            "CPS 230",
            "APP 11",
            "MANAGE 4.1",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
    let digest = format!("sha256:{}", "9f".repeat(32));
    assert!(html.contains(&digest) && md.contains(&digest));
    assert!(html.contains("3202 ms") && md.contains("3202 ms"), "the numbers of the gate that fell");
}

#[test]
fn who_was_told_stands_with_the_release_and_the_decision_that_it_is_about() {
    let report = two_releases().report();
    let (done, fallen) = (&report.releases[0], &report.releases[1]);
    let rollback = fallen.timeline.iter().find(|line| line.decision == crate::rollout::Decision::Rollback).unwrap();
    let start = done.timeline.first().unwrap();
    let (rollback_g, rollback_n, start_g) = (rollback.generation, rollback.n, start.generation);
    let near = super::release::Moment(Wall(rollback.at.0.0 - 60_000));
    let told = |generation, kind: &str, at, result: &str, attempts, why: &str| Told {
        n: None,
        generation,
        kind: kind.to_owned(),
        to: "ops".to_owned(),
        at,
        result: result.to_owned(),
        attempts,
        why: why.to_owned(),
    };
    let report = report.clone().with_told(vec![
        told(Some(rollback_g), "rollback", rollback.at, "delivered", 3, ""),
        told(Some(start_g), "started", start.at, "refused", 1, "it answered 422 <b>"),
        told(None, "limit", near, "delivered", 1, ""),
        told(Some(9_999), "stage", start.at, "waiting", 0, ""),
    ]);
    let kinds = |at: usize| report.releases[at].told.iter().map(|t| (t.kind.as_str(), t.n)).collect::<Vec<_>>();
    assert_eq!(kinds(1), [("limit", None), ("rollback", Some(rollback_n))], "in order of time");
    assert_eq!(kinds(0), [("started", Some(report.releases[0].timeline[0].n))]);
    let (html, md) = (page::render(&report), markdown::render(&report));
    for text in [&html, &md] {
        assert!(text.contains("delivered at the 3. attempt") && text.contains("Who was told"));
        assert!(!text.contains("could not be read") && !text.contains("<b>\u{0}"));
    }
    assert!(html.contains("it answered 422 &lt;b&gt;") && md.contains("it answered 422 \\<b\\>"));
    let silent = two_releases().report();
    assert!(!silent.told_known && markdown::render(&silent).contains(super::words::NOBODY_KNOWS));
    assert!(page::render(&silent).contains(super::words::NOBODY_KNOWS));
}

#[test]
fn the_page_needs_nothing_from_outside() {
    let html = page::render(&two_releases().report());
    for word in ["http://", "https://", "<script", "<link", "@import", "url(", "src="] {
        assert!(!html.contains(word), "{word}");
    }
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("@media print"));
    let plots = html.matches("<svg class=\"plot\"").count();
    assert!(plots >= 8, "{plots} plots");
    assert!(!html.contains("NaN") && !html.contains("inf\""), "every number of a drawing is one");
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert_eq!(html.matches("<table").count(), html.matches("</table>").count());
}

#[test]
fn a_journal_that_begins_in_the_middle_still_gives_what_it_knows() {
    let mut life = Life::new("conservative");
    life.rise(3);
    life.fall();
    let gone = life.entries.iter().position(|e| matches!(&e.body, Body::Record(r) if r.stage == Some(2))).unwrap();
    life.entries.drain(..gone);
    let report = life.report();
    let release = &report.releases[0];
    assert_eq!((release.initiation.is_none(), release.outcome), (true, Outcome::RolledBack));
    assert_eq!(release.incident.as_ref().unwrap().weight_before, 25.0);
    let whole: u64 = release.exposure.iter().map(|stay| stay.requests).sum();
    assert!(whole < release.incident.as_ref().unwrap().exposed.requests, "nothing is booked that was not seen here");
}

#[test]
fn a_rollout_that_the_journal_does_not_know_has_no_report() {
    let summary = Summary { first: 0, last: 0, hash: String::new() };
    assert_eq!(Book::new(RolloutName::new("chat")).close(&summary, Wall(0)), None);
}
