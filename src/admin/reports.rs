//! What reporters may send: so many items of a token in a minute, so many about one user in an hour; and what became of them.
//!
//! A verdict rests on many users: the statistics leave the worst user out, so whoever could report without bound about many
//! users in the name of one token is what is left to bound.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::Limits;
use crate::measure::Limit;
use crate::names::Mono;

/// What became of an item of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The judge has it.
    Accepted,
    /// By version alone: shown, never judged.
    Shown,
    /// It names no answer that is known.
    Unknown,
    /// It was taken before.
    Duplicate,
    /// The token has sent enough.
    Limited,
    /// It is no item of feedback.
    Invalid,
    /// The judge was behind.
    Refused,
}

impl Taken {
    /// All, in the order of the counters.
    pub const ALL: [Taken; 7] = [
        Taken::Accepted,
        Taken::Shown,
        Taken::Unknown,
        Taken::Duplicate,
        Taken::Limited,
        Taken::Invalid,
        Taken::Refused,
    ];

    /// The `result` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Taken::Accepted => "accepted",
            Taken::Shown => "shown",
            Taken::Unknown => "unknown",
            Taken::Duplicate => "duplicate",
            Taken::Limited => "limited",
            Taken::Invalid => "invalid",
            Taken::Refused => "refused",
        }
    }
}

/// Pairs of token and user that are counted apart in an hour: 24 bytes each, as they come.
const PAIRS_MAX: usize = 1 << 20;
const MINUTE_NS: u64 = 60_000_000_000;
const HOUR_NS: u64 = 60 * MINUTE_NS;

/// Reporters' windows and counts.
#[derive(Debug, Default)]
pub struct Reports {
    windows: Mutex<Windows>,
    counts: [AtomicU64; Taken::ALL.len()],
}

#[derive(Debug, Default)]
struct Windows {
    /// By token: the minute, and items in it. Tokens are those of the configuration.
    minutes: BTreeMap<String, (u64, u32)>,
    hour: u64,
    /// By token, user and metric: items in the hour.
    pairs: HashMap<u64, u32>,
    hash: RandomState,
}

impl Reports {
    /// Counts an item.
    pub fn count(&self, taken: Taken) {
        if let Some(count) = self.counts.get(taken as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All counts.
    pub fn counts(&self) -> impl Iterator<Item = (Taken, u64)> + '_ {
        Taken::ALL.into_iter().zip(&self.counts).map(|(taken, count)| (taken, count.load(Ordering::Relaxed)))
    }

    /// Whether this token may send one item more now.
    ///
    /// # Errors
    /// The bound that it has reached.
    pub fn may_send(&self, token: &str, limits: &Limits, now: Mono) -> Result<(), Limit> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.0 / MINUTE_NS;
        let window = match windows.minutes.get_mut(token) {
            Some(window) => window,
            None => windows.minutes.entry(token.to_owned()).or_default(),
        };
        if window.0 != minute {
            *window = (minute, 0);
        }
        window.1 = window.1.saturating_add(1);
        if window.1 > limits.feedback_items { Err(Limit::FeedbackItems) } else { Ok(()) }
    }

    /// Whether this token may say one thing more about this user and metric now.
    ///
    /// # Errors
    /// The bound that it has reached.
    pub fn may_judge(&self, about: (&str, u32, u64, &str), limits: &Limits, now: Mono) -> Result<(), Limit> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let hour = now.0 / HOUR_NS;
        if windows.hour != hour {
            windows.hour = hour;
            windows.pairs.clear();
        }
        let key = windows.hash.hash_one(about);
        if windows.pairs.len() >= PAIRS_MAX && !windows.pairs.contains_key(&key) {
            return Err(Limit::FeedbackPerUser);
        }
        let count = windows.pairs.entry(key).or_default();
        *count = count.saturating_add(1);
        if *count > limits.feedback_per_user { Err(Limit::FeedbackPerUser) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_send_so_many_items_in_a_minute() {
        let (reports, limits) = (Reports::default(), Limits { feedback_items: 3, ..Limits::default() });
        let sent = |token, at| (0..5).filter(|_| reports.may_send(token, &limits, Mono(at)).is_ok()).count();
        assert_eq!((sent("rob", 0), sent("rob", MINUTE_NS - 1), sent("eve", 0)), (3, 0, 3));
        assert_eq!(sent("rob", MINUTE_NS), 3);
    }

    #[test]
    fn a_token_may_say_so_much_about_one_user_in_an_hour() {
        let (reports, limits) = (Reports::default(), Limits { feedback_per_user: 2, ..Limits::default() });
        let said = |token, user, metric, at| {
            (0..5).filter(|_| reports.may_judge((token, 1, user, metric), &limits, Mono(at)).is_ok()).count()
        };
        assert_eq!((said("rob", 7, "quality", 0), said("rob", 7, "quality", HOUR_NS - 1)), (2, 0));
        assert_eq!((said("rob", 8, "quality", 0), said("eve", 7, "quality", 0), said("rob", 7, "tone", 0)), (2, 2, 2));
        assert_eq!(said("rob", 7, "quality", HOUR_NS), 2);
    }

    #[test]
    fn every_result_counts_apart() {
        let reports = Reports::default();
        for (at, taken) in Taken::ALL.into_iter().enumerate() {
            for _ in 0..=at {
                reports.count(taken);
            }
        }
        let counts: Vec<u64> = reports.counts().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7]);
    }
}
