//! Trace lines: what a recorded request or control event says, and the facts that become known from it, each in its time.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use xxhash_rust::xxh3::xxh3_64;

use crate::names::{Arm, Mono, Script};

use super::facts::{End, Fact, Flags, Outcome};
use super::policy::Metric;

/// A 504 that took this long is a time-out of the upstream's, not its quick answer.
const LONG_MS: f64 = 10_000.0;

/// One line of a trace, borrowed from its text.
#[derive(Debug, Deserialize)]
pub struct Line<'a> {
    /// Seconds since the start: arrival at the proxy.
    pub ts: f64,
    /// Present on control lines: `begin`, `stage`, `weight`, `restart`, `tick`, `dropped`, `end`; and on facts that
    /// have a line of their own: `first_byte`, `finish`, `score`, `query`.
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
    script: Option<Script>,
    #[serde(default)]
    tool: Option<u8>,
    #[serde(default)]
    drawn: Option<bool>,
    #[serde(default)]
    scores: Option<Vec<ScoreLine>>,
    /// Of `begin`: what `ts` 0 is on the judge's clock, in nanoseconds.
    #[serde(default)]
    pub mono: Option<u64>,
    /// Of `begin`: the judge's checkpoint, hexadecimal.
    #[serde(borrow, default)]
    pub evidence: Option<Text<'a>>,
    /// Names the exchange; without it the line's number does.
    #[serde(default)]
    id: Option<u64>,
    /// Not ended where the line was written; its end follows as `finish`, or never came.
    #[serde(default)]
    open: bool,
    /// When it really was, where the line comes too late for that to be its `ts`.
    #[serde(default)]
    at: Option<f64>,
    /// Control lines before start, first byte and end were told, where one of them was past their times.
    #[serde(default)]
    late: Option<[u64; 3]>,
    /// The same, of a fact on a line of its own.
    #[serde(default)]
    after: Option<u64>,
    /// Time to first token as it was told with the end, where it is not `ttft_ms`.
    #[serde(default, deserialize_with = "given")]
    ttft_us: Option<Option<u64>>,
    #[serde(default)]
    metric: Option<Metric>,
    #[serde(default)]
    value: Option<Exact>,
    #[serde(default)]
    arrived: Option<f64>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(default)]
    stable: Option<Exact>,
    #[serde(default)]
    canary: Option<Exact>,
}

/// Tells a field that is null from one that is not there.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// A number, or its digits as text where a JSON reader might round it.
#[derive(Clone, Copy, Debug)]
struct Exact(f64);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Exact;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Exact, E> {
                Ok(Exact(number))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Exact, E> {
                Ok(Exact(number as f64))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Exact, E> {
                Ok(Exact(number as f64))
            }
            fn visit_str<E: Error>(self, digits: &str) -> Result<Exact, E> {
                digits.parse().map(Exact).map_err(|_| E::custom("no number"))
            }
        }
        deserializer.deserialize_any(Reader)
    }
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

/// A trace's seconds on the judge's clock.
fn moment(origin: u64, seconds: f64) -> Mono {
    Mono(origin.saturating_add_signed((seconds * 1e9).round() as i64))
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
    pub fn facts(&self, id: u64, tell: impl FnMut(Fact)) -> Result<(), &'static str> {
        self.facts_from(0, id, tell)
    }

    /// The same, with `ts` 0 at `origin` on the judge's clock, nanoseconds.
    ///
    /// # Errors
    /// As [`Self::facts`].
    pub fn facts_from(&self, origin: u64, id: u64, mut tell: impl FnMut(Fact)) -> Result<(), &'static str> {
        let id = self.id.unwrap_or(id);
        let arm = self.arm()?;
        let user = self.user_hash();
        let drawn = self.drawn.unwrap_or(true);
        let at = self.moment(origin).0;
        let after = |ms: f64| Mono(at.saturating_add((ms.max(0.0) * 1e6).round() as u64));
        if self.open {
            tell(Fact::Start { id, at: Mono(at), arm, user, drawn });
            if let Some(ttft) = self.ttft_ms {
                tell(Fact::FirstByte { id, at: after(ttft) });
            }
            return Ok(());
        }
        let latency_ms = self.latency_ms.ok_or("latency_ms is missing")?;
        let status = self.status.ok_or("status is missing")?;
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
            known: moment(origin, ts),
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

    /// The fact of a line that has one alone; none where `event` is no such line's.
    ///
    /// # Errors
    /// A line that lacks what such a fact has; the text says what.
    pub fn fact(&self, event: &str, origin: u64) -> Result<Option<Fact>, &'static str> {
        let at = self.moment(origin);
        let id = self.id.ok_or("id is missing");
        let fact = match event {
            "first_byte" => Fact::FirstByte { id: id?, at },
            "finish" => {
                let status = self.status.ok_or("status is missing")?;
                Fact::End { id: id?, at, end: self.end(status, 0.0, None) }
            }
            "score" => Fact::Score {
                arm: self.arm()?,
                user: self.user_hash(),
                drawn: self.drawn.unwrap_or(true),
                metric: self.metric.clone().ok_or("metric is missing")?,
                value: self.value.ok_or("value is missing")?.0,
                arrived: moment(origin, self.arrived.ok_or("arrived is missing")?),
                known: at,
            },
            "query" => Fact::Query {
                name: self.name.as_ref().map(|name| (&*name.0).into()).ok_or("name is missing")?,
                stable: self.stable.ok_or("stable is missing")?.0,
                canary: self.canary.ok_or("canary is missing")?.0,
                known: at,
            },
            _ => return Ok(None),
        };
        Ok(Some(fact))
    }

    /// How many control lines there were before a fact of this line was told, whatever its time.
    #[must_use]
    pub fn after(&self, fact: &Fact) -> u64 {
        let [start, first, end] = self.late.unwrap_or_default();
        let own = match fact {
            Fact::Start { .. } => start,
            Fact::FirstByte { .. } => first,
            Fact::End { .. } => end,
            Fact::Score { .. } | Fact::Query { .. } => 0,
        };
        self.after.unwrap_or(own)
    }

    fn arm(&self) -> Result<Arm, &'static str> {
        match self.version.as_ref().map(|version| &*version.0) {
            Some("stable") => Ok(Arm::Stable),
            Some("baseline") => Ok(Arm::Baseline),
            Some("canary") => Ok(Arm::Canary),
            Some(_) => Err("version is none of stable, baseline, canary"),
            None => Err("version is missing"),
        }
    }

    fn user_hash(&self) -> u64 {
        self.user.as_ref().map_or(0, |user| user_hash(&user.0))
    }

    fn moment(&self, origin: u64) -> Mono {
        moment(origin, self.at.unwrap_or(self.ts.max(0.0)))
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
            ttft_us: self.ttft_us.unwrap_or_else(|| ttft_ms.map(|ms| (ms * 1e3).round() as u64)),
            tpot_us: self.tpot_ms.map(|ms| (ms * 1e3).round() as u64),
            tokens_out: self.tokens.map(|tokens| tokens.max(0.0) as u64),
            cost_nano: self.cost.map(|dollars| (dollars.max(0.0) * 1e9).round() as u64),
            flags,
            script: self.script,
            tool: self.tool,
        }
    }
}
