//! All gates folded to one verdict, and checkpoints of what it rests on.

use std::sync::Arc;
use std::time::Duration;

use crate::names::Mono;

use super::case::{Case, Test};
use super::court::{DROPPED_NS, Derived, Judge, State};
use super::policy::{On, Policy, Rule, Stat};
use super::reading::{Reading, Together};
use super::verdict::{Lack, Missing, Verdict};

/// Proof is looked at this often, once the residence is over; until then, for people alone, this often, or ten times in a short
/// residence. A fail: at every tick.
const FOLD_NS: u64 = 1_000_000_000;
const FOLD_EARLY_NS: u64 = 10_000_000_000;
/// Stable is failing too when this share of its answers of the last minute failed.
const SHARED_SHARE: f64 = 0.3;
const SHARED_LEAST: u64 = 8;
const SHARED_NS: u64 = 60_000_000_000;
/// First bytes of a checkpoint: what it is, and its form.
const MAGIC: &[u8] = b"serin-judge-6\n";

/// Why a checkpoint cannot be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is cut, or not of this version.
    #[error("the checkpoint cannot be read: it is cut or of another version of serin")]
    Unreadable,
    /// It was made under another policy.
    #[error("the checkpoint was made under another policy")]
    OtherPolicy,
}

impl Judge {
    /// The verdict at `now`.
    pub(super) fn fold(&mut self, now: Mono) -> Verdict {
        if self.state.stage.is_none() {
            return hold(vec![Missing { rule: None, lack: Lack::Stage }]);
        }
        // What asks for a step back goes on until the stage is left: something worse may still come.
        if self.state.fallen.as_ref().is_none_or(|(rule, _)| self.steps_back(rule))
            && let Some(fallen) = self.fallen(now)
        {
            self.state.fallen = Some(fallen);
        }
        if let Some((rule, reason)) = self.state.fallen.clone() {
            let steps_back = self.steps_back(&rule);
            return if steps_back { Verdict::StepBack { rule, reason } } else { Verdict::Rollback { rule, reason } };
        }
        let residence = self.state.stage.map_or(Duration::ZERO, |stage| stage.residence);
        let resident = now.since(Mono(self.state.entered)) >= residence;
        let waited = now.0.saturating_sub(self.state.folded);
        let tenth = u64::try_from((residence / 10).as_nanos()).unwrap_or(u64::MAX);
        let waiting_for = if resident { FOLD_NS } else { tenth.clamp(FOLD_NS, FOLD_EARLY_NS) };
        if !self.state.fresh || waited >= waiting_for {
            self.state.folded = now.0;
            self.state.fresh = true;
            self.state.lacks = self.lacks(now);
            self.derived.held = None;
        }
        if self.state.lacks.is_empty() {
            return Verdict::Advance { reason: self.proven(now) };
        }
        if let Some(held) = &self.derived.held {
            return held.clone();
        }
        let name = |i: u16| self.policy.rules.get(usize::from(i)).map(|rule| Arc::clone(&rule.name));
        let missing = self.state.lacks.iter().map(|(rule, lack)| Missing { rule: rule.and_then(name), lack: *lack });
        let held = hold(missing.collect());
        self.derived.held = Some(held.clone());
        held
    }

    /// Whether a fail of that name takes the canary back a stage, and no further.
    fn steps_back(&self, fail: &str) -> bool {
        self.policy.rules.iter().any(|rule| rule.on == On::StepBack && rule.is_named(fail))
    }

    /// The rollback, if one is due: zero tolerance first, then the breaker, then the tests of all rules together. Else the first step
    /// back.
    fn fallen(&mut self, now: Mono) -> Option<(String, String)> {
        let policy = Arc::clone(&self.policy);
        let mut step = None;
        for (case, rule) in self.state.cases.iter_mut().zip(&policy.rules) {
            let found = outright(case, rule);
            if let Some(reason) = found {
                match rule.on {
                    On::Rollback => return Some((rule.name.to_string(), reason)),
                    On::StepBack if step.is_none() => step = Some((rule.name.to_string(), reason)),
                    On::StepBack | On::Hold => {}
                }
                case.failing = Some((case.violations[0].max(u64::from(case.breaches)) as f64, 0.0));
            }
        }
        if let Some(tripped) = self.state.breaker.tick(now) {
            return Some(("breaker".to_owned(), tripped.reason));
        }
        let (bars, budgets) = (self.state.bars, self.state.budgets);
        let mut all = Together::default();
        let mut changed = false;
        for (case, rule) in self.state.cases.iter_mut().zip(&policy.rules) {
            // A rule that only holds has said all that it can once it has failed.
            let decided = rule.on == On::Hold && case.failing.is_some();
            if std::mem::take(&mut case.changed) && !decided {
                changed = true;
                case.near = case.read(rule, now.0, &bars, true);
            }
            let Some((test, reading)) = case.near else { continue };
            if rule.on == On::Rollback {
                all.add(reading);
            } else if reading.headroom() > 0.0 {
                if rule.on == On::StepBack && step.is_none() {
                    step = Some((fail(rule, test), sentence(case, rule, test, &reading, budgets)));
                }
                case.failing = Some((reading.evidence, reading.bar));
            }
        }
        // Rules that overlap see one fault: their e-values are added as those of the starts are.
        all.told().filter(|told| changed && told.headroom() > 0.0).and_then(|told| self.told(&told)).or(step)
    }

    /// The rollback that the rules say together: by the first that passes alone, else by the one nearest to its bar.
    fn told(&self, told: &Reading) -> Option<(String, String)> {
        let near = self.policy.rules.iter().zip(&self.state.cases).filter(|(rule, _)| rule.on == On::Rollback);
        let near = near.filter_map(|(rule, case)| Some((rule, case, case.near?)));
        let nearest = || near.clone().max_by(|(.., (_, a)), (.., (_, b))| a.headroom().total_cmp(&b.headroom()));
        let (rule, case, (test, own)) = near.clone().find(|(.., (_, own))| own.headroom() > 0.0).or_else(nearest)?;
        let told = if own.headroom() > 0.0 { &own } else { told };
        let mut reason = sentence(case, rule, test, told, self.state.budgets);
        if own.headroom() <= 0.0 {
            let others = near.filter(|(other, ..)| other.name != rule.name);
            let others = others.map(|(rule, _, (test, reading))| {
                format!("{} ({:.1} of {:.1})", fail(rule, test), reading.evidence, reading.bar)
            });
            reason += &format!("; {:.1} of its own, with {}", own.evidence, others.collect::<Vec<_>>().join(", "));
        }
        Some((fail(rule, test), reason))
    }

    /// What keeps the stage from advancing.
    fn lacks(&mut self, now: Mono) -> Vec<(Option<u16>, Lack)> {
        let (users, hand_picked) = (self.effective_users(), self.is_hand_picked());
        let state = &mut self.state;
        let Some(stage) = state.stage else { return vec![(None, Lack::Stage)] };
        if hand_picked && state.breaker.canary_arrivals() == 0 {
            return vec![(None, Lack::Stage)];
        }
        let mut lacks = Vec::new();
        let elapsed = now.since(Mono(state.entered));
        if elapsed < stage.residence {
            lacks.push((None, Lack::Residence { left_s: (stage.residence - elapsed).as_secs_f64() }));
        }
        // Hand-picked answers: one at least, whatever the plan says. No evidence is no proof.
        let (have, need) = if hand_picked {
            (state.arrived[1], stage.samples.max(1))
        } else {
            (state.answers[0] as u64, stage.samples)
        };
        if have < need {
            lacks.push((None, Lack::Requests { have, need }));
        }
        if users < self.policy.min_users && !hand_picked {
            lacks.push((None, Lack::Users { have: users, need: self.policy.min_users }));
        }
        let (failed, answers) = state.breaker.stable_since(Mono(now.0.saturating_sub(SHARED_NS)));
        if answers >= SHARED_LEAST && failed as f64 >= SHARED_SHARE * answers as f64 {
            lacks.push((None, Lack::Shared { failed, answers }));
        }
        if state.dropped.is_some_and(|at| now.0.saturating_sub(at) < DROPPED_NS) {
            lacks.push((None, Lack::Dropped));
        }
        let bar = self.policy.proof_bar();
        let elapsed_s = elapsed.as_secs_f64();
        for (i, (case, rule)) in state.cases.iter_mut().zip(&self.policy.rules).enumerate() {
            let compares = !matches!(rule.stat, Stat::Zero | Stat::Breaches(_));
            let lack = if hand_picked && compares {
                // No proof is asked for where nothing is drawn; a limit that has failed and only holds does hold.
                case.failing.map(|(evidence, bar)| Lack::Failing { evidence, bar })
            } else {
                lack_of(case, rule, bar, now, elapsed_s)
            };
            if let Some(lack) = lack {
                lacks.push((u16::try_from(i).ok(), lack));
            }
        }
        lacks
    }

    fn proven(&self, now: Mono) -> String {
        let state = &self.state;
        if self.is_hand_picked() {
            return format!(
                "{} canary answers of hand-picked units over {:.0} s: no limit, no zero-tolerance rule and no breaker \
                 speaks against it; nothing is drawn, so nothing was compared",
                state.arrived[1],
                now.since(Mono(state.entered)).as_secs_f64(),
            );
        }
        let asked = |(rule, case): &(&Rule, &Case)| rule.required || (case.seen > 0 && !rule.is_alarm());
        let rules = self.policy.rules.iter().zip(&state.cases).filter(asked);
        format!(
            "all {} rules proven not worse over {:.0} s: {} canary answers from {:.1} effective users",
            rules.count(),
            now.since(Mono(state.entered)).as_secs_f64(),
            state.answers[0],
            self.effective_users(),
        )
    }

    /// Everything it knows, as bytes; restoring them changes no later verdict.
    #[must_use]
    pub fn checkpoint(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let parts = (&*self.policy, &self.state);
        // Only a type that refuses to be serialised could fail here, and none of ours does; an empty checkpoint is
        // refused by `restore`.
        postcard::to_stdvec(&parts).map_or_else(
            |_| Vec::new(),
            |body| {
                bytes.extend_from_slice(&body);
                bytes
            },
        )
    }

    /// Takes up where a checkpoint left off.
    ///
    /// # Errors
    /// Bytes that are no checkpoint of this version and policy.
    pub fn restore(policy: Arc<Policy>, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let body = bytes.strip_prefix(MAGIC).ok_or(CheckpointError::Unreadable)?;
        let (mut made_under, mut state): (Policy, State) =
            postcard::from_bytes(body).map_err(|_| CheckpointError::Unreadable)?;
        // A judge does not read these: they are for who enters a stage that does not say its own.
        (made_under.min_stage, made_under.min_requests) = (policy.min_stage, policy.min_requests);
        if made_under != *policy || state.cases.len() != policy.rules.len() {
            return Err(CheckpointError::OtherPolicy);
        }
        if !state.take_up_offsets() {
            return Err(CheckpointError::Unreadable);
        }
        Ok(Self { derived: Derived::new(&policy), policy, state })
    }
}

fn hold(missing: Vec<Missing>) -> Verdict {
    let mut reason = String::new();
    for item in &missing {
        if !reason.is_empty() {
            reason.push_str("; ");
        }
        reason.push_str(&item.to_string());
    }
    Verdict::Hold { missing, reason }
}

/// Fails that need no evidence: a violation, or breaches in a row.
fn outright(case: &Case, rule: &Rule) -> Option<String> {
    match rule.stat {
        Stat::Zero if case.violations[0] > 0 => {
            let plural = if case.violations[0] == 1 { "violation" } else { "violations" };
            Some(format!("{} {plural}, 0 allowed; stable has {}", case.violations[0], case.violations[1]))
        }
        Stat::Breaches(most) if case.breaches >= most.max(1) => {
            let (stable, canary) = case.query?;
            Some(format!("{} breaches in a row: canary {canary}, stable {stable}; outside alpha", case.breaches))
        }
        _ => None,
    }
}

/// What keeps one rule from passing.
fn lack_of(case: &mut Case, rule: &Rule, bar: f64, now: Mono, elapsed_s: f64) -> Option<Lack> {
    if let Some((evidence, bar)) = case.failing {
        return Some(Lack::Failing { evidence, bar });
    }
    if case.seen == 0 && !rule.required {
        return None;
    }
    let external = rule.metric.is_score() || matches!(rule.stat, Stat::Breaches(_));
    if external && case.seen > 0 && now.since(Mono(case.last)) > rule.stale {
        return Some(Lack::Stale { silent_s: now.since(Mono(case.last)).as_secs_f64() });
    }
    case.lacks(rule, bar, elapsed_s).filter(|_| !rule.is_alarm())
}

/// The name of a fail.
fn fail(rule: &Rule, test: Test) -> String {
    format!("{}{}", rule.name, test.suffix())
}

/// A rollback's numbers.
fn sentence(case: &Case, rule: &Rule, test: Test, reading: &Reading, budgets: u32) -> String {
    let mut text = format!(
        "log e {:.1} > {:.1} over {:.0} s, design effect {:.1}",
        reading.evidence, reading.bar, reading.seconds, reading.design_effect
    );
    let contest = match test {
        Test::Soft => &case.soft,
        Test::Twin => &case.twin,
        Test::Limit => &case.limit,
    };
    if let Some(sums) = contest.as_ref().map(super::contest::Contest::total) {
        text += &format!("; stage: canary {}/{}, stable {}/{}", sums.k_c, sums.n_c, sums.k_s, sums.n_s);
    } else if let Some(means) = &case.means {
        let (canary, stable) = means.counts();
        let (stable_mean, canary_mean) = means.values();
        text += &format!(
            "; stage: canary {:.4} of {canary}, stable {:.4} of {stable}",
            canary_mean.unwrap_or(f64::NAN),
            stable_mean.unwrap_or(f64::NAN)
        );
    }
    if let Some(limit) = rule.limit.filter(|_| test == Test::Limit) {
        text += &format!("; limit {limit} {}", rule.metric.unit());
    }
    if budgets > 1 {
        text += &format!("; alpha's budget number {budgets}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{End, Fact, Outcome, Stage};
    use super::*;
    use crate::names::Arm;

    #[test]
    fn what_a_short_stage_lacks_is_told_anew_each_second() {
        let second = |n: u64| Mono(n * 1_000_000_000);
        let mut judge = Judge::new(Arc::new(Policy::default()), second(0));
        judge.enter_stage(Stage { weight: 0.5, residence: Duration::from_secs(5), samples: 100 }, second(1));
        let seen = |judge: &mut Judge, at: Mono| match judge.tick(at) {
            Verdict::Hold { missing, .. } => missing.iter().find_map(|missing| match missing.lack {
                Lack::Requests { have, .. } => Some(have),
                _ => None,
            }),
            _ => None,
        };
        assert_eq!(seen(&mut judge, second(1)), Some(0));
        for id in 0..30 {
            judge.observe(&Fact::Start { id, at: second(1), arm: Arm::Canary, user: id, drawn: true });
            judge.observe(&Fact::End { id, at: second(2), end: End::plain(Outcome::Success, 200) });
        }
        assert_eq!(seen(&mut judge, second(3)), Some(30));
    }
}
