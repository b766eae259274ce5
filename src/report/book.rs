//! Sorts a journal's entries into releases and their records.

use super::clauses::CLAUSES;
use super::release::{
    Completion, Drill, Exposure, Incident, Initiation, Line, Moment, Outcome, PlanShown, Promotion, Release, Report,
    Review, Source,
};
use crate::journal::{Body, Entry, Summary};
use crate::names::{RolloutName, Wall};
use crate::rollout::{Decision, Exposed, Phase, Record};

/// The most records of one rollout in one report; the oldest are counted and left out.
const RECORDS_MAX: usize = 20_000;

/// Collects the records of one rollout.
#[derive(Debug)]
pub struct Book {
    rollout: RolloutName,
    records: std::collections::VecDeque<(u64, Box<Record>)>,
    omitted: u64,
}

impl Book {
    /// An empty book for this rollout.
    #[must_use]
    pub fn new(rollout: RolloutName) -> Self {
        Self { rollout, records: std::collections::VecDeque::new(), omitted: 0 }
    }

    /// Takes in an entry; those of other rollouts are passed over.
    pub fn take(&mut self, entry: Entry) {
        if let Body::Record(record) = entry.body
            && record.rollout == self.rollout
        {
            if self.records.len() == RECORDS_MAX {
                self.records.pop_front();
                self.omitted += 1;
            }
            self.records.push_back((entry.n, record));
        }
    }

    /// The report; `None` when the journal knows nothing of the rollout.
    #[must_use]
    pub fn close(self, journal: &Summary, made_at: Wall) -> Option<Report> {
        if self.records.is_empty() {
            return None;
        }
        let mut releases: Vec<Chapter> = Vec::new();
        let mut drills = Vec::new();
        for (n, record) in &self.records {
            if record.decision == Decision::Drill {
                drills.push(Drill { n: *n, at: Moment(record.at), result: record.reason.clone() });
            }
            match releases.last_mut().filter(|chapter| chapter.takes(record)) {
                Some(chapter) => chapter.add(*n, record),
                None if begins(record) => releases.push(Chapter::new(*n, record)),
                None => {}
            }
        }
        drills.reverse();
        let source =
            Source { first: journal.first, last: journal.last, hash: journal.hash.clone(), omitted: self.omitted };
        Some(Report {
            rollout: self.rollout.to_string(),
            made_at: Moment(made_at),
            journal: source,
            releases: releases.into_iter().rev().map(Chapter::close).collect(),
            told_known: false,
            drills,
            clauses: CLAUSES,
        })
    }
}

/// Whether a record stands inside a release: it began before, or begins now.
fn begins(record: &Record) -> bool {
    record.version.is_some()
        && (record.to != Phase::Idle || record.from != Phase::Idle)
        && !matches!(record.decision, Decision::Drill | Decision::Swap | Decision::Clear | Decision::Register)
}

/// A release in the making.
struct Chapter {
    release: Release,
    /// Exposure counted before the present stay.
    base: Exposed,
    /// The newest exposure that a record has told.
    seen: Exposed,
    /// It has ended, and at most its review or its swap may follow.
    over: bool,
    /// The phase after its last record.
    phase: Phase,
}

impl Chapter {
    fn new(n: u64, record: &Record) -> Self {
        let at = Moment(record.at);
        let version = record.version.as_ref().map_or_else(String::new, ToString::to_string);
        let began = record.from == Phase::Idle;
        let initiation = began.then(|| Initiation {
            n,
            at,
            by: record.actor.clone(),
            reason: record.reason.clone(),
            gates: record.gates.clone(),
            register: record.state.register.as_deref().cloned(),
            plan: record.state.plan.as_deref().map(PlanShown::of),
        });
        let release = Release {
            version,
            stable: record.stable.to_string(),
            outcome: Outcome::Underway,
            began_at: at,
            ended_at: None,
            initiation,
            promotions: Vec::new(),
            incident: None,
            completion: None,
            exposure: Vec::new(),
            overrides: Vec::new(),
            timeline: Vec::new(),
            told: Vec::new(),
        };
        // Where the start is no longer known, neither is what was exposed before the first record that is.
        let base = if began { Exposed::default() } else { exposed(record).unwrap_or_default() };
        let mut chapter = Self { release, base, seen: base, over: false, phase: record.from };
        chapter.add(n, record);
        chapter
    }

    /// Whether the record belongs to this release.
    fn takes(&self, record: &Record) -> bool {
        let same = record.version.as_ref().is_some_and(|v| v.as_str() == self.release.version);
        let ends = matches!(record.decision, Decision::Adopt | Decision::Swap | Decision::Clear | Decision::Remove);
        if self.phase == Phase::Idle || (record.from == Phase::Idle && record.to != Phase::Idle) {
            return false;
        }
        same || (ends && record.from != Phase::Idle)
    }

    fn add(&mut self, n: u64, record: &Record) {
        let at = Moment(record.at);
        let line = line(n, record);
        let began = record.decision == Decision::Start || record.from == Phase::Idle;
        if let Some(exposed) = exposed(record).filter(|_| !began) {
            self.seen = exposed;
        }
        let moved = record.weight != record.weight_before || record.stage != record.stage_before || began;
        if moved || record.to == Phase::RolledBack {
            self.leave(at);
            if !matches!(record.to, Phase::Idle | Phase::RolledBack) {
                self.release.exposure.push(Exposure {
                    stage: record.stage,
                    weight: record.weight.percent(),
                    from: at,
                    to: None,
                    new_users: 0,
                    requests: 0,
                    cost_nano: 0,
                });
            }
        }
        match record.decision {
            Decision::Advance | Decision::Promote if record.to != Phase::Completed => {
                self.release.promotions.push(promotion(n, record));
            }
            Decision::Complete | Decision::Promote => self.complete(n, record),
            Decision::Rollback | Decision::Abort => self.fall(n, record),
            Decision::Clear => {
                if let Some(incident) = self.release.incident.as_mut() {
                    incident.review =
                        Some(Review { n, at, by: record.actor.clone(), root_cause: record.reason.clone() });
                }
            }
            Decision::Swap => {
                if let Some(completion) = self.release.completion.as_mut() {
                    completion.made_stable_at = Some(at);
                }
            }
            _ => {}
        }
        if record.to == Phase::Idle && !self.over {
            self.over = true;
            self.release.outcome = Outcome::Replaced;
            self.release.ended_at = Some(at);
        }
        if overrides(record) {
            self.release.overrides.push(line.clone());
        }
        self.release.timeline.push(line);
        self.phase = record.to;
    }

    /// Closes the present stay with what it has been seen by.
    fn leave(&mut self, at: Moment) {
        if let Some(stay) = self.release.exposure.last_mut().filter(|stay| stay.to.is_none()) {
            stay.to = Some(at);
            book(stay, self.base, self.seen);
        }
        self.base = self.seen;
    }

    fn complete(&mut self, n: u64, record: &Record) {
        let at = Moment(record.at);
        let mut approvals: Vec<String> = Vec::new();
        for name in self.release.promotions.iter().flat_map(|p| &p.approvals) {
            if !approvals.contains(name) {
                approvals.push(name.clone());
            }
        }
        self.over = true;
        self.release.outcome = Outcome::Completed;
        self.release.ended_at = Some(at);
        self.release.completion = Some(Completion {
            n,
            at,
            by: record.actor.clone(),
            proven: record.proven,
            reason: record.reason.clone(),
            took_s: at.since(self.release.began_at),
            approvals,
            unproven: self.release.overrides.iter().filter(|o| o.weight > o.weight_before).count(),
            exposed: self.seen,
            gates: gates(record),
            made_stable_at: None,
        });
    }

    fn fall(&mut self, n: u64, record: &Record) {
        let at = Moment(record.at);
        let since = self.release.exposure.last().map(|stay| at.since(stay.from));
        let gate = (record.decision == Decision::Rollback)
            .then(|| record.reason.split(':').next().map(|name| name.trim().to_owned()))
            .flatten()
            .filter(|_| record.actor != "breaker");
        self.over = true;
        self.release.outcome =
            if record.decision == Decision::Rollback { Outcome::RolledBack } else { Outcome::Aborted };
        self.release.ended_at = Some(at);
        self.release.incident = Some(Incident {
            severity: "P2",
            n,
            at,
            by: record.actor.clone(),
            gate,
            reason: record.reason.clone(),
            weight_before: record.weight_before.percent(),
            stage: record.stage_before,
            at_weight_s: since,
            exposed: self.seen,
            gates: gates(record),
            rollbacks: record.version.as_ref().map_or(0, |v| record.state.rollbacks_of(v)),
            review: None,
        });
    }

    fn close(mut self) -> Release {
        if let Some(stay) = self.release.exposure.last_mut().filter(|stay| stay.to.is_none()) {
            book(stay, self.base, self.seen);
        }
        self.release
    }
}

/// What a stay adds to the ledger; after a restart that lost the newest counts it is never less than nothing.
fn book(stay: &mut Exposure, base: Exposed, seen: Exposed) {
    stay.new_users = seen.users.saturating_sub(base.users);
    stay.requests = seen.requests.saturating_sub(base.requests);
    stay.cost_nano = seen.cost_nano.saturating_sub(base.cost_nano);
}

fn exposed(record: &Record) -> Option<Exposed> {
    record.numbers.as_ref().map(|numbers| numbers.exposed)
}

fn gates(record: &Record) -> Vec<crate::rollout::GateNumbers> {
    record.numbers.as_ref().map(|numbers| numbers.gates.clone()).unwrap_or_default()
}

fn promotion(n: u64, record: &Record) -> Promotion {
    Promotion {
        n,
        at: Moment(record.at),
        from_stage: record.stage_before,
        to_stage: record.stage,
        weight_before: record.weight_before.percent(),
        weight: record.weight.percent(),
        proven: record.proven,
        by: record.actor.clone(),
        approvals: record.approvals.clone(),
        reason: record.reason.clone(),
        gates: gates(record),
    }
}

/// What was decided without, or against, proof: it stands in a list of its own, signed off by name and reason.
fn overrides(record: &Record) -> bool {
    match record.decision {
        Decision::Promote => true,
        Decision::SetWeight | Decision::Resume => record.weight > record.weight_before,
        Decision::Gates | Decision::Clear => true,
        _ => false,
    }
}

fn line(n: u64, record: &Record) -> Line {
    Line {
        n,
        at: Moment(record.at),
        decision: record.decision,
        by: record.actor.clone(),
        reason: record.reason.clone(),
        phase: record.to,
        stage: record.stage,
        weight_before: record.weight_before.percent(),
        weight: record.weight.percent(),
        proven: record.proven,
        approvals: record.approvals.clone(),
        generation: record.generation,
    }
}
