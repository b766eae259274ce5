//! Trace lines: what a recorded request or control event says, and the facts that become known from it, each in its time.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use xxhash_rust::xxh3::xxh3_64;

use crate::names::{Arm, Mono};

use super::facts::{End, Fact, Flags, Outcome};
use super::policy::Metric;

/// A 504 that took this long is a time-out of the upstream's, not its quick answer.
const LONG_MS: f64 = 10_000.0;

/// One line of a trace, borrowed from its text.
#[derive(Debug, Deserialize)]
pub struct Line<'a> {
    /// Seconds since the start: arrival at the proxy.
    pub ts: f64,
    /// Present on control lines: `stage`, `weight`, `restart`, `tick`, `dropped`, `end`.
    #[serde(borrow, default)]
    pub event: Option<Text<'a>>,
    /// Of `stage`: the canary's share, 0 to 1.
    #[serde(default)]
    pub weight: Option<f64>,
    /// Of `stage`: least residence, where it is not the policy's.
    #[serde(default)]
    pub residence_s: Option<f64>,
    /// Of `stage`: least canary requests, where they are not the policy's.
    #[serde(default)]
    pub samples: Option<u64>,
    /// `stable`, `baseline` or `canary`.
    #[serde(borrow, default)]
    version: Option<Text<'a>>,
    #[serde(borrow, default)]
    user: Option<Text<'a>>,
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    latency_ms: Option<f64>,
    #[serde(default)]
    ttft_ms: Option<f64>,
    #[serde(default)]
    tpot_ms: Option<f64>,
    #[serde(default)]
    tokens: Option<f64>,
    #[serde(default)]
    cost: Option<f64>,
    #[serde(default)]
    quality: Option<f64>,
    #[serde(default)]
    quality_ts: Option<f64>,
    #[serde(default)]
    safety: Option<bool>,
    #[serde(default)]
    outcome: Option<Outcome>,
    #[serde(default)]
    flags: Option<Flags>,
    #[serde(default)]
    drawn: Option<bool>,
    #[serde(default)]
    scores: Option<Vec<ScoreLine>>,
}

/// A score beside a request.
#[derive(Debug, Deserialize)]
struct ScoreLine {
    metric: Metric,
    value: f64,
    ts: f64,
}

/// A string that borrows where it can; a number is taken as its digits.
#[derive(Debug)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(number.to_string())))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A status code, or the word for why there is none.
#[derive(Clone, Copy, Debug)]
enum Status {
    Code(u16),
    Timeout,
    Connect,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Status;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status code, \"timeout\" or \"connect\"")
            }
            fn visit_u64<E: Error>(self, code: u64) -> Result<Status, E> {
                u16::try_from(code).map(Status::Code).map_err(|_| E::custom("no status code"))
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<Status, E> {
                match word {
                    "timeout" => Ok(Status::Timeout),
                    "connect" | "reset" => Ok(Status::Connect),
                    code => code.parse().map(Status::Code).map_err(|_| E::custom("no status code")),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Nanoseconds of a trace's seconds.
#[must_use]
pub fn nanos(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9).round() as u64
}

/// The keyed hash of a trace's user. What serin wrote is `h` and 16 hexadecimal digits of the hash itself.
#[must_use]
pub fn user_hash(user: &str) -> u64 {
    user.strip_prefix('h')
        .filter(|digits| digits.len() == 16)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or_else(|| xxh3_64(user.as_bytes()))
}

impl Line<'_> {
    /// Tells of each fact of a request, in no order: they become known at their own times. `id` names the exchange.
    ///
    /// # Errors
    /// A line that lacks what every request has, or a version that is none; the text says which.
    pub fn facts(&self, id: u64, mut tell: impl FnMut(Fact)) -> Result<(), &'static str> {
        let arm = match self.version.as_ref().map(|version| &*version.0) {
            Some("stable") => Arm::Stable,
            Some("baseline") => Arm::Baseline,
            Some("canary") => Arm::Canary,
            Some(_) => return Err("version is none of stable, baseline, canary"),
            None => return Err("version is missing"),
        };
        let latency_ms = self.latency_ms.ok_or("latency_ms is missing")?;
        let status = self.status.ok_or("status is missing")?;
        let user = self.user.as_ref().map_or(0, |user| user_hash(&user.0));
        let drawn = self.drawn.unwrap_or(true);
        let at = nanos(self.ts);
        let after = |ms: f64| Mono(at.saturating_add((ms.max(0.0) * 1e6).round() as u64));
        tell(Fact::Start { id, at: Mono(at), arm, user, drawn });
        let ttft_ms = self.ttft_ms.map(|ttft| ttft.min(latency_ms));
        if let Some(ttft) = ttft_ms {
            tell(Fact::FirstByte { id, at: after(ttft) });
        }
        tell(Fact::End { id, at: after(latency_ms), end: self.end(status, latency_ms, ttft_ms) });
        let score = |metric: Metric, value: f64, ts: f64| Fact::Score {
            arm,
            user,
            drawn,
            metric,
            value,
            arrived: Mono(at),
            known: Mono(nanos(ts)),
        };
        if let Some(value) = self.quality {
            let ts = self.quality_ts.unwrap_or(self.ts + latency_ms / 1e3);
            tell(score(Metric::Quality, value, ts));
        }
        for line in self.scores.iter().flatten() {
            tell(score(line.metric.clone(), line.value, line.ts));
        }
        Ok(())
    }

    fn end(&self, status: Status, latency_ms: f64, ttft_ms: Option<f64>) -> End {
        let (outcome, code) = match status {
            Status::Timeout => (Outcome::Timeout, 504),
            Status::Connect | Status::Code(0) => (Outcome::UpstreamError, 0),
            Status::Code(504) if latency_ms >= LONG_MS => (Outcome::Timeout, 504),
            Status::Code(code @ 500..) => (Outcome::UpstreamError, code),
            Status::Code(429) => (Outcome::Throttled, 429),
            Status::Code(code @ 400..) => (Outcome::ClientError, code),
            Status::Code(code) => (Outcome::Success, code),
        };
        let mut flags = self.flags.unwrap_or_default();
        flags.safety |= self.safety.unwrap_or(false);
        End {
            outcome: self.outcome.unwrap_or(outcome),
            status: code,
            ttft_us: ttft_ms.map(|ms| (ms * 1e3).round() as u64),
            tpot_us: self.tpot_ms.map(|ms| (ms * 1e3).round() as u64),
            tokens_out: self.tokens.map(|tokens| tokens.max(0.0) as u64),
            cost_nano: self.cost.map(|dollars| (dollars.max(0.0) * 1e9).round() as u64),
            flags,
        }
    }
}
