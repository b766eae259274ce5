//! How long a stage must last: for each rule, the time in which a canary that is worse by the rollback margin is seen, and
//! that in which an equal one is proven, at a traffic that is expected (evaluator.md sections 2, 4, 6; issue 3, `plan`).
//!
//! The tests foretold are those that the judge runs: their alternatives, strata, bars, the worst user left out, the design
//! effect. What is not known beforehand is assumed, and said: what stable does ([`Habit`]), and who calls ([`Assumed`]).

use std::time::Duration;

use crate::stats::plan::{self, Question, Ticks, Traffic};
use crate::stats::quantile::Tail;
use crate::stats::sketch::Sketch;
use crate::stats::{mean, proportion};

use super::case::{MILD, rate_boundary};
use super::contest::{BETS, Boundary, HARD_BETS, HARD_OMEGAS, OMEGAS};
use super::court::Judge;
use super::policy::{Direction, Margin, Metric, Policy, Rule, Stat};
use super::starts::Bars;

/// The chances that a forecast is made for.
pub const POWERS: [f64; 2] = [0.8, 0.95];
/// The chance that all gates of a stage are proven, at the time that is foretold for them together.
pub const JOINT: f64 = 0.9;
/// Ticks are short for so long after a weight change.
const FAST_S: f64 = 300.0;

/// Who is expected to call, in one stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assumed {
    /// Requests a second, of both arms.
    pub rps: f64,
    /// The canary's share of them, 0 to 1.
    pub weight: f64,
    /// Different users in the time of a stage, of both arms.
    pub users: f64,
    /// The share of its arm's requests that the heaviest user has.
    pub heaviest: f64,
    /// How much less than independent requests are.
    pub design_effect: f64,
    /// What an answer takes, seconds: nothing is known sooner.
    pub answer_s: f64,
}

/// What stable does, as one rule sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Habit {
    /// Of answers, those that the rule looks at.
    pub seen: f64,
    /// What it finds there.
    pub found: Found,
    /// How alike the exposures of one user are, 0 to 1, as they were seen; where not, the assumed design effect stands.
    pub likeness: Option<f64>,
}

/// What a rule finds in stable's answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// This share of bad events.
    Bad(f64),
    /// Values whose logarithm has this standard deviation (and an unknown level).
    Spread(f64),
    /// Values like these.
    Values(Sketch),
    /// Scores with this mean and standard deviation.
    Scores {
        /// The mean.
        level: f64,
        /// The standard deviation of one score around its user's mean.
        deviation: f64,
    },
}

/// What is foretold of one rule. Times are seconds from the stage's start, for each of [`POWERS`]; none: never, or not to be
/// foretold.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Until a canary that is worse by the rollback margin is rolled back.
    pub rollback: [Option<f64>; 2],
    /// Until one that is equal is proven not worse.
    pub promote: [Option<f64>; 2],
    /// The same with so much chance that all gates together are proven with [`JOINT`].
    pub joint: Option<f64>,
}

impl Habit {
    /// What is assumed where nothing is known of stable.
    #[must_use]
    pub fn assumed(rule: &Rule) -> Self {
        let found = match (rule.stat, &rule.metric) {
            (Stat::Rate, Metric::EvalPass) => Found::Bad(0.1),
            (Stat::Rate, metric) if !metric.is_fault() => Found::Bad(0.5),
            (Stat::Rate, _) => Found::Bad(0.01),
            (Stat::Mean, Metric::Quality | Metric::Score(_)) => Found::Scores { level: 0.8, deviation: 0.15 },
            (Stat::Mean, _) => Found::Scores { level: 1.0, deviation: 0.8 },
            _ => Found::Spread(0.8),
        };
        Self { seen: if rule.metric.is_score() { 0.1 } else { 1.0 }, found, likeness: None }
    }
}

impl Judge {
    /// What stable did in the stage so far, rule by rule, as far as it was seen. `each` is how many requests a user sent in it,
    /// as a request sees its user's (Σn²/Σn).
    #[must_use]
    pub fn habits(&self, each: f64) -> Vec<Option<Habit>> {
        let answers = self.state.breaker.answers().max(1) as f64;
        let habit = |(case, rule): (&super::case::Case, &Rule)| {
            let seen = (case.seen as f64 / answers).min(1.0);
            let found = match rule.stat {
                _ if case.seen == 0 => None,
                Stat::Rate => case.soft.as_ref().map(|soft| {
                    let sums = soft.total();
                    Found::Bad((sums.k_s + 0.5) / (sums.n_s + 1.0))
                }),
                Stat::Quantile(_) => Some(Found::Values(case.sketch().clone())),
                Stat::Mean => case
                    .means
                    .as_ref()
                    .and_then(super::means::Means::spread)
                    .map(|(level, deviation)| Found::Scores { level, deviation }),
                Stat::Zero | Stat::Breaches(_) => None,
            };
            // Kish 1965: φ = 1 + (n - 1) likeness. Below two exposures each nothing is to be seen of it.
            let exposures = each * seen;
            let likeness =
                (exposures > 2.0).then(|| ((case.design_effect() - 1.0) / (exposures - 1.0)).clamp(0.0, 1.0));
            found.map(|found| Habit { seen, found, likeness })
        };
        self.state.cases.iter().zip(&self.policy.rules).map(habit).collect()
    }
}

/// What is to be expected of each rule of `policy` in a stage, in their order.
#[must_use]
pub fn forecast(policy: &Policy, residence: Duration, assumed: Assumed, habits: &[Habit]) -> Vec<Forecast> {
    let horizon = policy.horizon.max(residence).as_secs_f64();
    let bars = [Bars::new(f64::from(policy.tests()), policy.alpha, horizon).whole, (1.0 / policy.beta).ln()];
    let warm_up = policy.warm_up.as_secs_f64();
    // The chances of failing add up, at most (Boole).
    let joint = 1.0 - (1.0 - JOINT) / policy.rules.iter().filter(|rule| is_proof(rule)).count().max(1) as f64;
    let of = |(rule, habit): (&Rule, &Habit)| {
        let traffic = Traffic {
            canary: assumed.rps * assumed.weight * habit.seen,
            stable: assumed.rps * (1.0 - assumed.weight) * habit.seen,
            design_effect: assumed.design_effect,
            likeness: habit.likeness.unwrap_or(0.0),
            measured: true,
            users: (assumed.users * assumed.weight).max(1.0),
            heaviest: assumed.heaviest,
        };
        let none = Forecast { rollback: [None; 2], promote: [None; 2], joint: None };
        if traffic.canary <= 0.0 || traffic.stable <= 0.0 {
            return none;
        }
        let late = if matches!(rule.stat, Stat::Rate) { 0.0 } else { warm_up } + assumed.answer_s;
        let ask = |question: &Question, ticks: Ticks, power: f64| {
            plan::seconds(traffic, question, ticks, power).map(|t| t + late)
        };
        let told = |[rollback, promote]: [Question; 2], [soon, later]: [Ticks; 2]| Forecast {
            rollback: POWERS.map(|power| ask(&rollback, soon, power)),
            promote: POWERS.map(|power| ask(&promote, later, power)),
            joint: ask(&promote, later, joint),
        };
        match (rule.stat, &habit.found) {
            (Stat::Rate, Found::Bad(p)) => {
                let ticks = |first_s| Ticks { first_s, first_for_s: FAST_S, then_s: 1.0 };
                told(rate(rule, *p, bars), [ticks(0.25), ticks(1.0)])
            }
            (Stat::Quantile(q), found) => {
                let Some(questions) = share(rule, q, found, bars) else { return none };
                let ticks = Ticks { first_s: 1.0, first_for_s: (FAST_S - warm_up).max(0.0), then_s: 2.0 };
                told(questions, [ticks; 2])
            }
            (Stat::Mean, Found::Scores { level, deviation }) => {
                let powers = [POWERS[0], POWERS[1], joint];
                let [rollback, promote] =
                    means(rule, traffic, [*level, *deviation], bars, powers).map(|of| of.map(|t| t.map(|t| t + late)));
                let of = |[some, most, _]: [Option<f64>; 3]| [some, most];
                Forecast { rollback: of(rollback), promote: of(promote), joint: promote[2] }
            }
            _ => none,
        }
    };
    policy.rules.iter().zip(habits).map(of).collect()
}

/// Whether an advance waits for this rule's evidence. A default gate whose source is silent is not required; one that is heard
/// is: all count but those of scores.
#[must_use]
pub fn is_proof(rule: &Rule) -> bool {
    !rule.is_alarm()
        && matches!(rule.stat, Stat::Rate | Stat::Quantile(_) | Stat::Mean)
        && (rule.required || !rule.metric.is_score())
}

/// The two questions of a rate rule: worse by the rollback margin, and equal.
fn rate(rule: &Rule, p: f64, bars: [f64; 2]) -> [Question; 2] {
    let (null, worse) = (rate_boundary(rule, rule.promote), rate_boundary(rule, rule.rollback));
    let (edge, far) = (null.at(p), worse.at(p));
    let alternatives = if rule.hard {
        HARD_OMEGAS.map(|omega| proportion::by_odds(edge, omega)).into_iter().zip(HARD_BETS).collect()
    } else {
        let mild = proportion::by_odds(edge, MILD).min(far);
        std::iter::once(mild).chain(OMEGAS.map(|omega| proportion::by_odds(edge, omega))).zip(BETS).collect()
    };
    let ask = |canary, Boundary { times, plus }, alternatives, bar| Question {
        stable: p,
        canary,
        times,
        plus,
        alternatives,
        bar,
    };
    [ask(far, null, alternatives, bars[0]), ask(p, worse, vec![(p, 1.0)], bars[1])]
}

/// The same of a quantile rule: shares beyond a limit. None where an absolute margin meets values of unknown level.
fn share(rule: &Rule, q: f64, found: &Found, bars: [f64; 2]) -> Option<[Question; 2]> {
    let (tail, p) = match rule.direction {
        Direction::Higher => (Tail::Above, 1.0 - q),
        Direction::Lower => (Tail::Below, q),
    };
    // The share of values beyond stable's quantile times a ratio.
    let beyond = |ratio: f64| match found {
        Found::Values(sketch) => {
            let share = |at: f64| sketch.quantile(q).map(|u| tail.share(sketch, u * at));
            Some(p * share(ratio)? / share(1.0)?.max(1e-9))
        }
        Found::Spread(sigma) => {
            let z = plan::normal_quantile(1.0 - p) + if tail == Tail::Above { ratio.ln() } else { -ratio.ln() } / sigma;
            Some(1.0 - plan::normal_cdf(z))
        }
        _ => None,
    };
    let ratio = |margin: Margin| match (margin, found) {
        (Margin::Relative(ratio), _) => Some(ratio),
        (Margin::Absolute(by), Found::Values(sketch)) => sketch.quantile(q).filter(|u| *u > 0.0).map(|u| (u + by) / u),
        (Margin::Absolute(_), _) => None,
    };
    let (promote, rollback) = (ratio(rule.promote)?, ratio(rule.rollback)?);
    let worse = beyond(promote / rollback)?;
    let odds = |p: f64| p / (1.0 - p);
    let omegas: Vec<(f64, f64)> = if rule.hard {
        HARD_OMEGAS.into_iter().zip(HARD_BETS).collect()
    } else {
        let mild = (odds(worse.clamp(1e-6, 0.999)) / odds(p)).clamp(1.05, 1.25);
        std::iter::once(mild).chain(OMEGAS).zip(BETS).collect()
    };
    let kept = beyond(rollback)?;
    let ask = |canary, alternatives, bar| Question { stable: p, canary, times: 1.0, plus: 0.0, alternatives, bar };
    Some([
        ask(worse, omegas.iter().map(|(omega, bet)| (proportion::by_odds(p, *omega), *bet)).collect(), bars[0]),
        ask(kept, vec![(p * (kept / p).clamp(0.01, 0.9), 1.0)], bars[1]),
    ])
}

/// The same of a mean: the time at which the score is to be expected to pass, with so much chance.
fn means(
    rule: &Rule,
    traffic: Traffic,
    [level, deviation]: [f64; 2],
    bars: [f64; 2],
    powers: [f64; 3],
) -> [[Option<f64>; 3]; 2] {
    let scale = if matches!(rule.metric, Metric::Quality) || level <= 0.0 { 1.0 } else { 1.0 / level };
    let off = |margin: Margin| match margin {
        Margin::Absolute(by) => by.abs() * scale,
        Margin::Relative(ratio) => (ratio - 1.0).abs() * level * scale,
    };
    let gains = [off(rule.rollback) - off(rule.promote), off(rule.rollback)];
    let each = traffic.design_effect.max(1.0)
        * (deviation * scale).powi(2)
        * (1.0 + traffic.canary / traffic.stable.max(1e-9));
    let kept = 1.0 - traffic.heaviest.clamp(0.0, 0.9);
    let users = (traffic.users * kept).max(1.0);
    if users < mean::FEWEST_USERS {
        return [[None; 3]; 2];
    }
    let least = mean::FEWEST / traffic.canary.min(traffic.stable);
    [0, 1].map(|i| {
        powers.map(|power| {
            let z = plan::normal_quantile(power);
            let n = |t: f64| traffic.canary * kept * t;
            let low = |t: f64| gains[i] * n(t) - z * (each * n(t)).sqrt();
            let passes = |t: f64| mean::log_evidence(low(t), each * n(t), users) > bars[i];
            plan::least(1.0, passes).map(|t| t.max(least))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_traffic_and_wider_margins_take_less_time_and_what_cannot_be_is_not_foretold() {
        let policy = Policy::default().with_stall();
        let habits: Vec<Habit> = policy.rules.iter().map(Habit::assumed).collect();
        let assumed =
            Assumed { rps: 20.0, weight: 0.1, users: 5_000.0, heaviest: 0.01, design_effect: 1.2, answer_s: 3.0 };
        let of = |assumed| forecast(&policy, Duration::from_secs(3_600), assumed, &habits);
        let (plain, busy) = (of(assumed), of(Assumed { rps: 200.0, ..assumed }));
        for ((rule, plain), busy) in policy.rules.iter().zip(&plain).zip(&busy) {
            if rule.stat == Stat::Zero {
                assert_eq!(*plain, Forecast { rollback: [None; 2], promote: [None; 2], joint: None });
                continue;
            }
            for (slow, quick) in plain.promote.iter().zip(busy.promote) {
                assert!(quick.unwrap() < 0.5 * slow.unwrap() + 60.0, "{}: {plain:?}, {busy:?}", rule.name);
            }
            assert!(plain.rollback[0].unwrap() < plain.rollback[1].unwrap(), "{}: {plain:?}", rule.name);
        }
        assert!(of(Assumed { weight: 0.0, ..assumed }).iter().all(|f| f.promote == [None; 2]));
        assert!(of(Assumed { users: 20.0, ..assumed })[3].promote[0].is_none(), "a mean needs six users");
    }
}
