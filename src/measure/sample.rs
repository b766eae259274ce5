//! Samples of exchanges for scorers: taken alike from every arm, bounded, redacted, and never waited for.
//!
//! Whether an exchange is a sample is decided by the keyed hash of its request id, so that arms have the same share, every
//! replica decides alike and nobody outside can choose. What is taken goes to the thread of samples by a bounded channel; a
//! full one drops and counts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use regex::Regex;
use tokio::sync::mpsc;

use crate::config::{SampleText, Samples as Terms};

/// Samples on their way to their thread.
pub const WAITING: usize = 256;

/// One exchange, for a scorer.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Rises by one with every sample of this process.
    pub number: u64,
    /// When the request arrived, RFC 3339.
    pub at: String,
    /// The rollout.
    pub rollout: String,
    /// The version that is charged or credited.
    pub version: String,
    /// Its arm.
    pub arm: &'static str,
    /// For feedback: `{"ref": …}`.
    pub r#ref: Option<String>,
    /// What became of it.
    pub outcome: &'static str,
    /// Status sent to the caller.
    pub status: Option<u16>,
    /// Arrival to the last byte, milliseconds.
    pub total_ms: f64,
    /// Arrival to the first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Input and output tokens.
    pub tokens: [u64; 2],
    /// US dollars.
    pub cost_usd: f64,
    /// The request's body, as far as it is kept.
    pub request: Option<String>,
    /// What the answer says, as far as it is kept.
    pub answer: Option<String>,
}

/// Whether the exchange of this request id (as [`super::References::id`] hashes it) is a sample.
#[must_use]
pub fn is_sample(terms: &Terms, id: u64) -> bool {
    // The table of ids takes its sets from the hash: mix once more (SplitMix64's finaliser).
    let mut x = id.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((x ^ (x >> 31)) >> 40) < (terms.share * (1u64 << 24) as f64) as u64
}

/// The way to the thread of samples. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SampleSender {
    sender: mpsc::Sender<Sample>,
    dropped: Arc<AtomicU64>,
}

/// A channel of samples.
#[must_use]
pub fn samples() -> (SampleSender, mpsc::Receiver<Sample>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (SampleSender { sender, dropped: Arc::default() }, receiver)
}

impl SampleSender {
    /// Hands a sample over; a full channel drops it and counts.
    pub fn send(&self, sample: Sample) {
        if self.sender.try_send(sample).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Samples that found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The newest samples of every rollout. Written by their thread, read by the admin side.
#[derive(Clone, Debug, Default)]
pub struct SampleStore(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    number: u64,
    samples: VecDeque<Arc<Sample>>,
}

impl SampleStore {
    /// Keeps a sample under the next number; at most `most` of its rollout stay.
    pub fn keep(&self, mut sample: Sample, most: usize) -> Arc<Sample> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.number += 1;
        sample.number = kept.number;
        let sample = Arc::new(sample);
        let of_rollout = kept.samples.iter().filter(|other| other.rollout == sample.rollout).count();
        if of_rollout >= most.max(1)
            && let Some(oldest) = kept.samples.iter().position(|other| other.rollout == sample.rollout)
        {
            kept.samples.remove(oldest);
        }
        kept.samples.push_back(Arc::clone(&sample));
        sample
    }

    /// Samples after this number, the oldest first, at most `limit`.
    #[must_use]
    pub fn after(&self, number: u64, rollout: Option<&str>, limit: usize) -> Vec<Arc<Sample>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted =
            |sample: &&Arc<Sample>| sample.number > number && rollout.is_none_or(|rollout| sample.rollout == rollout);
        kept.samples.iter().filter(wanted).take(limit).cloned().collect()
    }
}

/// A text as the configuration lets it be kept, at most `most` bytes of it.
#[must_use]
pub fn kept_text(terms: &Terms, bytes: &[u8], cut: bool) -> Option<String> {
    let most = bytes.len().min(terms.bytes);
    let text = String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes));
    let mut text = match terms.text {
        SampleText::None => return None,
        SampleText::Redacted => redacted(&text),
        SampleText::Full => text.into_owned(),
    };
    if cut || most < bytes.len() {
        text.push('…');
    }
    Some(text)
}

/// What is taken out of texts: addresses, keys and tokens, long numbers, and fields that name a person.
static RULES: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let rules = [
        (
            r#"("(?:user|user_id|safety_identifier|email|name|phone|session_id)"\s*:\s*)"(?:[^"\\]|\\.)*""#,
            "$1\"[redacted]\"",
        ),
        (r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}", "[email]"),
        (r"(?i)\b(?:bearer\s+|sk-|pk-|ghp_|xox[bp]-|AKIA)[A-Za-z0-9._~+/=-]{8,}", "[secret]"),
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+", "[secret]"),
        (r"\b(?:\d{1,3}\.){3}\d{1,3}\b", "[address]"),
        (r"\+?\d(?:[ ().-]{0,2}\d){6,}", "[number]"),
    ];
    // A rule that does not compile would be a fault of ours, which the tests find.
    rules.into_iter().filter_map(|(rule, with)| Some((Regex::new(rule).ok()?, with))).collect()
});

fn redacted(text: &str) -> String {
    let mut text = text.to_owned();
    for (rule, with) in RULES.iter() {
        text = rule.replace_all(&text, *with).into_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(share: f64, text: SampleText) -> Terms {
        Terms { share, keep: 3, bytes: 20, text, push: None }
    }

    fn sample(rollout: &str) -> Sample {
        Sample {
            number: 0,
            at: String::new(),
            rollout: rollout.to_owned(),
            version: "b".to_owned(),
            arm: "canary",
            r#ref: None,
            outcome: "success",
            status: Some(200),
            total_ms: 1.0,
            ttft_ms: None,
            tokens: [1, 2],
            cost_usd: 0.0,
            request: None,
            answer: None,
        }
    }

    #[test]
    fn the_share_is_kept_and_a_larger_one_has_the_same_exchanges() {
        let of = |share: f64| -> Vec<u64> {
            (0..100_000u64).filter(|id| is_sample(&terms(share, SampleText::None), *id)).collect()
        };
        let (some, more) = (of(0.01), of(0.05));
        assert!((900..1_100).contains(&some.len()), "{}", some.len());
        assert!(some.iter().all(|id| more.contains(id)));
        assert_eq!((of(0.0).len(), of(1.0).len()), (0, 100_000));
    }

    #[test]
    fn each_rollout_keeps_its_newest() {
        let store = SampleStore::default();
        store.keep(sample("quiet"), 3);
        for _ in 0..10 {
            store.keep(sample("busy"), 3);
        }
        let numbers = |rollout| store.after(0, rollout, 100).iter().map(|s| s.number).collect::<Vec<_>>();
        assert_eq!((numbers(None), numbers(Some("quiet"))), (vec![1, 9, 10, 11], vec![1]));
        assert_eq!(store.after(9, None, 1).len(), 1);
    }

    #[test]
    fn a_full_channel_drops_and_counts() {
        let (sender, _receiver) = samples();
        for _ in 0..WAITING + 5 {
            sender.send(sample("chat"));
        }
        assert_eq!(sender.dropped(), 5);
    }

    #[test]
    fn what_names_a_person_or_opens_a_door_is_taken_out() {
        assert_eq!(RULES.len(), 6, "every rule compiles");
        for (text, expect) in [
            (r#"{"user": "u-\"4711","model":"m"}"#, r#"{"user": "[redacted]","model":"m"}"#),
            ("write to jo.doe+x@example.co.uk now", "write to [email] now"),
            ("Bearer abcdefghijkl and sk-abcdefgh1234", "[secret] and [secret]"),
            ("call +49 (30) 1234-567 at 10.0.0.17", "call [number] at [address]"),
            ("in 2026 there were 12 of 345", "in 2026 there were 12 of 345"),
        ] {
            assert_eq!(redacted(text), expect);
        }
    }

    #[test]
    fn texts_are_cut_and_none_is_kept_where_none_is_wanted() {
        let long = "a".repeat(30);
        let kept = |text| kept_text(&terms(1.0, text), long.as_bytes(), false);
        assert_eq!(kept(SampleText::None), None);
        assert_eq!(kept(SampleText::Full), Some("a".repeat(20) + "…"));
    }
}
