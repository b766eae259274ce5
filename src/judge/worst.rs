//! Worst user out: what the loudest of the canary's users gave to the evidence, which is then left out of it (evaluator.md section 2).

use crate::stats::cluster::Slots;
use crate::stats::proportion;

use super::contest::{Sums, Terms};
use super::users::Offsets;

/// The largest positive contribution of any one slot of the canary to the evidence of alternative `i`: what it gave beyond what was
/// expected of this very user, and the share of stable's evidence that was set against its exposures. Of the bad events of a slot
/// at most `each` are in the evidence.
///
/// By the mean of all users, one who is known to be slow would seem to accuse the canary, and one who is known to be quick to
/// speak for it, by all that was expected of them; a heavy one then hid a fault of all others, or took all proof away.
pub(super) fn loudest(sums: &Sums, i: usize, terms: Terms, slots: &Slots<2>, offsets: &Offsets, each: f32) -> f64 {
    let (bad, good) = means(sums, i);
    let paired = paired(sums, i);
    let (rho, far) = (sums.rho_c / sums.n_c, sums.far_c / sums.n_c);
    // Where all of the canary's events are of one kind, the rates cannot be told from their mean log ratios.
    let rates = proportion::rates(bad, good);
    let (plus, better) = match terms {
        Terms::Worse { null, .. } => (null.plus, false),
        Terms::Better { null, .. } => (null.plus, true),
        Terms::Above { .. } => (f64::INFINITY, false), // everybody's rate is the limit's
    };
    let log_odds = bad - good;
    let mut most = 0.0;
    for (slot, [n, k]) in slots.iter() {
        let (bad_ones, good_ones) = (f64::from(k.min(each)), f64::from(n - k));
        let [own, own_far] = offsets.both(*slot);
        let paired = f64::from(*n) * paired * if plus.is_finite() { own / rho } else { 1.0 };
        let Some([p, q]) = rates else {
            most = f64::max(most, bad_ones * bad + good_ones * good + paired);
            continue;
        };
        let plus = plus.min(q);
        let own_q = (plus + (q - plus) * own / rho).min(proportion::MOST);
        let own_p = if better { p * own_far / far } else { proportion::by_odds(own_q, log_odds.exp()) };
        let own_p = own_p.min(proportion::MOST);
        // No logarithm for those who cannot be it: ln x ≤ x − 1, and no ratio of rates is larger than that of their odds.
        let of_bad = if better { own_p / own_q - 1.0 } else { log_odds };
        let at_most = bad_ones * of_bad + good_ones * (own_q - own_p) / (1.0 - own_q) + paired;
        if at_most > most {
            most = f64::max(most, proportion::log_ratio(bad_ones, good_ones, own_p, own_q) + paired);
        }
    }
    most
}

/// Mean log ratio of a bad and of a good event of the canary.
pub(super) fn means(sums: &Sums, i: usize) -> (f64, f64) {
    let good = sums.n_c - sums.k_c;
    (if sums.k_c > 0.0 { sums.bad[i] / sums.k_c } else { 0.0 }, if good > 0.0 { sums.good[i] / good } else { 0.0 })
}

/// What stable's events gave for each exposure of the canary. The nearest null balances the two arms exposure by exposure:
/// a user lifted out takes along the share of stable's evidence that was set against it, or a whale's would stay behind
/// and accuse the rest.
fn paired(sums: &Sums, i: usize) -> f64 {
    let stable = sums.log[i] - sums.bad[i] - sums.good[i];
    if sums.n_c > 0.0 { stable.max(0.0) / sums.n_c } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::contest::Boundary;
    use super::super::users::Alone as History;
    use super::*;

    const HEAVY: u16 = 7;
    const NULL: Boundary = Boundary::NONE;

    /// Offsets after a history in which user 7 had nine bad answers of ten, and 20 others one of ten.
    fn offsets() -> Offsets {
        let mut history = History::default();
        for step in 1..=2_000u64 {
            for user in (0..=20u16).filter(|user| *user != HEAVY) {
                history.add(user, (step + u64::from(user)) % 10 == 0);
            }
            history.add(HEAVY, step % 10 != 0);
            history.tick(step * 5_000_000_000);
        }
        history.freeze(10_001_000_000_000)
    }

    /// Sums of a time in which the canary's users had these events, `alternative` against `null`.
    fn sums(slots: &Slots<2>, offsets: &Offsets, [alternative, null]: [f64; 2]) -> Sums {
        let mut sums = Sums::default();
        for (slot, [n, k]) in slots.iter() {
            let (n, k) = (f64::from(*n), f64::from(*k));
            sums.n_c += n;
            sums.k_c += k;
            sums.rho_c += n * offsets.both(*slot)[0];
            sums.far_c += n * offsets.both(*slot)[1];
            sums.bad[0] += k * (alternative / null).ln();
            sums.good[0] += (n - k) * ((1.0 - alternative) / (1.0 - null)).ln();
        }
        sums.log[0] = sums.bad[0] + sums.good[0];
        sums
    }

    fn slots(heavy: [f32; 2], others: [f32; 2]) -> Slots<2> {
        let mut slots = Slots::default();
        let users = (0..=20u16).map(|user| (user, if user == HEAVY { heavy } else { others }));
        slots.add(&users.collect::<Vec<_>>());
        slots
    }

    #[test]
    fn who_does_as_he_always_did_accuses_nobody_and_hides_nobody() {
        let (offsets, terms) = (offsets(), Terms::Worse { null: NULL, mild: 1.25, cap: None, hard: false });
        // The heavy user as ever; all others twice as bad as expected.
        let slots = slots([400.0, 360.0], [100.0, 20.0]);
        let sums = sums(&slots, &offsets, [0.35, 0.23]);
        let known = loudest(&sums, 0, terms, &slots, &offsets, f32::INFINITY);
        let unknown = loudest(&sums, 0, terms, &slots, &Offsets::default(), f32::INFINITY);
        assert!(sums.log[0] > 10.0 && known < 0.25 * sums.log[0], "{known} of {}", sums.log[0]);
        assert!(unknown > sums.log[0], "{unknown}: were nothing known of him, all evidence would leave with him");
    }

    #[test]
    fn who_is_worse_than_ever_before_is_left_out_whole() {
        let (offsets, terms) = (offsets(), Terms::Worse { null: NULL, mild: 1.25, cap: None, hard: false });
        let mut slots = slots([400.0, 360.0], [100.0, 10.0]);
        slots.add(&[(3, [300.0, 190.0])]);
        let sums = sums(&slots, &offsets, [0.35, 0.23]);
        let out = loudest(&sums, 0, terms, &slots, &offsets, f32::INFINITY);
        assert!(out > sums.log[0], "{out} of {}: user 3 is all that is wrong", sums.log[0]);
    }

    #[test]
    fn a_quick_user_s_quickness_is_no_proof_that_leaves_with_him() {
        let offsets = offsets();
        let terms = Terms::Better { null: NULL, share: 0.5 };
        // Twenty quick users, half as often bad as the null has it, and a slow one; one of the quick ones is heavy.
        let mut slots = slots([100.0, 67.0], [100.0, 5.0]);
        slots.add(&[(3, [2_000.0, 100.0])]);
        let rate = 0.9 * 100.0 / 4_100.0 + 0.1 * 4_000.0 / 4_100.0;
        let sums = sums(&slots, &offsets, [0.5 * rate, rate]);
        let known = loudest(&sums, 0, terms, &slots, &offsets, f32::INFINITY);
        let share = 2_100.0 / 4_100.0;
        assert!(known < (share + 0.1) * sums.log[0], "{known} of {}: no more than his share", sums.log[0]);
    }

    #[test]
    fn without_any_bad_event_the_means_stand_for_everybody() {
        let offsets = offsets();
        let slots = slots([100.0, 0.0], [100.0, 0.0]);
        let sums = sums(&slots, &offsets, [0.1, 0.2]);
        let out = loudest(&sums, 0, Terms::Better { null: NULL, share: 0.5 }, &slots, &offsets, f32::INFINITY);
        assert!((out - sums.log[0] / 21.0).abs() < 1e-9, "{out}");
    }
}
