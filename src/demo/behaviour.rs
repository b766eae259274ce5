//! How a scripted model server behaves, and what one request draws from that.

use std::time::Duration;

use http::HeaderName;

use super::dice::Dice;

/// The header that carries what a fair judge would score the answer.
pub const QUALITY: HeaderName = HeaderName::from_static("x-demo-quality");
/// The header of an answer that breaks a safety rule.
pub const HARM: HeaderName = HeaderName::from_static("x-demo-harm");

/// A log-normal distribution by its median and the standard deviation of its logarithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the draws are below; 0 makes every draw 0. Its unit is that of the field it stands in.
    pub median: f64,
    /// 0 makes every draw the median; 0.5 is a usual service, 1 a heavy tail.
    pub sigma: f64,
}

impl Spread {
    /// Always `value`.
    #[must_use]
    pub const fn fixed(value: f64) -> Self {
        Self { median: value, sigma: 0.0 }
    }

    /// Half of the draws below `median`, spread by `sigma`.
    #[must_use]
    pub const fn around(median: f64, sigma: f64) -> Self {
        Self { median, sigma }
    }

    /// One draw.
    pub fn draw(self, dice: &mut Dice) -> f64 {
        self.median * (self.sigma * dice.normal()).exp()
    }

    fn draw_ms(self, dice: &mut Dice) -> Duration {
        Duration::from_secs_f64((self.draw(dice) / 1e3).clamp(0.0, 3_600.0))
    }
}

/// What breaks below HTTP, for a share of the requests ([`Script::fault_rate`]) or for the whole server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The request is taken and no head comes until [`super::ModelServer::release`].
    Hang,
    /// The connection is reset (TCP RST; RST_STREAM in HTTP/2) before any byte of the answer.
    ResetBeforeHead,
    /// The head and the opening of the answer come, then the connection is reset.
    ResetAfterHead,
    /// The process is gone: its listener and all its connections are closed. Ignores the rate.
    Down,
}

/// How a scripted model server behaves from now on. Rates are probabilities per request, drawn in the order of the fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The model name in answers and in the `x-upstream-version` header.
    pub version: String,
    /// Arrival to the whole answer, of what is not streamed, in ms.
    pub latency_ms: Spread,
    /// Head to first token, of what is streamed, in ms.
    pub first_token_ms: Spread,
    /// Between two tokens of a stream, in ms.
    pub per_token_ms: f64,
    /// Output tokens of an answer.
    pub tokens: Spread,
    /// Output tokens and their price: each answer has this many times the tokens drawn.
    pub cost: f64,
    /// Share that is answered with [`Script::error_status`].
    pub error_rate: f64,
    /// The status of those, usually 500, 503 or 429.
    pub error_status: u16,
    /// Share that is answered 200 with an error inside.
    pub in_band_error_rate: f64,
    /// Share that is answered 200 with no token.
    pub empty_rate: f64,
    /// Share of streams that end in mid-answer without their last words; answers that are not streamed lose their tail.
    pub cut_rate: f64,
    /// Share that declines to answer.
    pub refusal_rate: f64,
    /// What a fair judge would score its good answers, 0 to 1; sent along in [`QUALITY`] for users to report. `None`: unknown.
    pub quality: Option<f64>,
    /// Share of good answers that break a safety rule; said in [`HARM`] for users to report.
    pub harm_rate: f64,
    /// What breaks below HTTP.
    pub fault: Fault,
    /// Share of requests that the fault hits.
    pub fault_rate: f64,
    /// Answers say that parts of their prompts came out of a cache or went into one, and that parts of what they generated
    /// were reasoning, each answer other parts.
    pub caches: bool,
    /// Streams stand still after this many tokens until [`super::ModelServer::release`].
    pub hold_after: Option<usize>,
}

impl Default for Script {
    /// A faultless model that answers twelve tokens at once.
    fn default() -> Self {
        Self {
            version: "model".to_owned(),
            latency_ms: Spread::fixed(0.0),
            first_token_ms: Spread::fixed(0.0),
            per_token_ms: 0.0,
            tokens: Spread::fixed(12.0),
            cost: 1.0,
            error_rate: 0.0,
            error_status: 500,
            in_band_error_rate: 0.0,
            empty_rate: 0.0,
            cut_rate: 0.0,
            refusal_rate: 0.0,
            quality: None,
            harm_rate: 0.0,
            fault: Fault::None,
            fault_rate: 1.0,
            caches: false,
            hold_after: None,
        }
    }
}

impl Script {
    /// A faultless, instant model of that name.
    #[must_use]
    pub fn named(version: impl Into<String>) -> Self {
        Self { version: version.into(), ..Self::default() }
    }

    /// What the request with these dice gets.
    #[must_use]
    pub fn draw(&self, dice: &mut Dice) -> Draw {
        let latency = self.latency_ms.draw_ms(dice);
        let first_token = self.first_token_ms.draw_ms(dice);
        let tokens = (self.tokens.draw(dice) * self.cost).round().clamp(0.0, 100_000.0) as usize;
        let fault = if dice.chance(self.fault_rate) { self.fault } else { Fault::None };
        let rates = [
            (self.error_rate, Fate::Error(self.error_status)),
            (self.in_band_error_rate, Fate::InBandError),
            (self.empty_rate, Fate::Empty),
            (self.cut_rate, Fate::Cut),
            (self.refusal_rate, Fate::Refusal),
        ];
        let fate = rates.into_iter().find_map(|(rate, fate)| dice.chance(rate).then_some(fate));
        let fate = fate.unwrap_or(Fate::Good);
        let is_good = fate == Fate::Good;
        let wobble = 1.0 + 0.1 * dice.normal();
        let quality = self.quality.filter(|_| is_good).map(|quality| (quality * wobble).clamp(0.0, 1.0));
        let harms = dice.chance(self.harm_rate) && is_good;
        Draw { latency, first_token, tokens, fault, fate, quality, harms }
    }
}

/// What one request gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Wait before an answer that is not streamed.
    pub latency: Duration,
    /// Wait before the first token of a stream.
    pub first_token: Duration,
    /// Output tokens.
    pub tokens: usize,
    /// What breaks below HTTP.
    pub fault: Fault,
    /// How the answer is.
    pub fate: Fate,
    /// What a fair judge would score it.
    pub quality: Option<f64>,
    /// Whether it breaks a safety rule.
    pub harms: bool,
}

/// How an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Whole and right.
    Good,
    /// An HTTP error of this status.
    Error(u16),
    /// 200 with an error inside.
    InBandError,
    /// 200 without a token.
    Empty,
    /// Ends in the middle.
    Cut,
    /// Declines.
    Refusal,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(script: &Script, n: u64) -> Vec<Draw> {
        (0..n).map(|i| script.draw(&mut Dice::fork(11, i))).collect()
    }

    #[test]
    fn a_seed_draws_the_same_requests_again() {
        let script = Script { latency_ms: Spread::around(50.0, 0.7), error_rate: 0.3, ..Script::default() };
        assert_eq!(draws(&script, 200), draws(&script, 200));
    }

    #[test]
    fn half_of_the_latencies_are_below_the_median_and_the_spread_is_log_normal() {
        let script = Script { latency_ms: Spread::around(50.0, 0.5), ..Script::default() };
        let mut ms: Vec<f64> = draws(&script, 20_000).iter().map(|d| d.latency.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        assert!((ms[10_000] / 50.0 - 1.0).abs() < 0.03, "median {}", ms[10_000]);
        let at_one_sigma = ms[(20_000.0 * 0.8413) as usize];
        assert!((at_one_sigma / (50.0 * 0.5f64.exp()) - 1.0).abs() < 0.04, "one sigma {at_one_sigma}");
    }

    #[test]
    fn each_fate_comes_as_often_as_its_rate_says() {
        let share = |script: &Script, fate: Fate| {
            draws(script, 10_000).iter().filter(|d| d.fate == fate).count() as f64 / 10_000.0
        };
        let base = Script::default();
        assert!((share(&base, Fate::Good) - 1.0).abs() < 1e-9);
        for (script, fate) in [
            (Script { error_rate: 0.2, error_status: 429, ..base.clone() }, Fate::Error(429)),
            (Script { in_band_error_rate: 0.2, ..base.clone() }, Fate::InBandError),
            (Script { empty_rate: 0.2, ..base.clone() }, Fate::Empty),
            (Script { cut_rate: 0.2, ..base.clone() }, Fate::Cut),
            (Script { refusal_rate: 0.2, ..base.clone() }, Fate::Refusal),
        ] {
            let seen = share(&script, fate);
            assert!((seen - 0.2).abs() < 0.015, "{fate:?} came at {seen}");
        }
    }

    #[test]
    fn cost_multiplies_the_tokens() {
        let script = Script { tokens: Spread::fixed(10.0), cost: 2.5, ..Script::default() };
        assert!(draws(&script, 50).iter().all(|d| d.tokens == 25));
    }
}
