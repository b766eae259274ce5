//! Who was told of a release, and when: the receipts of the outbox beside the decisions that they are about.

use serde::Serialize;

use super::release::{Moment, Outcome, Release, Report};

/// What became of a notice at one receiver.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// The journal's entry that it tells of; absent for limits that came near.
    pub n: Option<u64>,
    /// The generation of that decision.
    pub generation: Option<u64>,
    /// started, stage, rollback, and so on.
    pub kind: String,
    /// The receiver, by its name in the configuration.
    pub to: String,
    /// When the receiver had it, or it was given up; for what still waits, when it happened.
    pub at: Moment,
    /// delivered, refused, expired, dropped, or waiting.
    pub result: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What the receiver said, where it was not delivered.
    pub why: String,
}

impl Report {
    /// The same with what the outbox knows; each notice stands with the release that it is about, in order of time.
    #[must_use]
    pub fn with_told(mut self, told: Vec<Told>) -> Self {
        self.told_known = true;
        for mut one in told {
            let Some(release) = self.releases.iter_mut().find(|release| is_about(release, &one)) else { continue };
            let line = release.timeline.iter().find(|line| Some(line.generation) == one.generation);
            one.n = line.map(|line| line.n);
            release.told.push(one);
        }
        for release in &mut self.releases {
            release.told.sort_by_key(|one| (one.at, one.n));
        }
        self
    }
}

/// A decision's notice belongs to the release that the decision stands in; a limit's to the one of its time. What a
/// reminder repeats is the last decision before it.
fn is_about(release: &Release, told: &Told) -> bool {
    match told.generation {
        Some(generation) => release.timeline.iter().any(|line| line.generation == generation),
        None => {
            let ended = release.ended_at.filter(|_| release.outcome != Outcome::Underway);
            told.at >= release.began_at && ended.is_none_or(|ended| told.at <= ended)
        }
    }
}
