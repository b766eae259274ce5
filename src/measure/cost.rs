//! What an answer cost, from its tokens and the version's prices: whole numbers throughout.

use crate::config::Prices;
use crate::wire::Facts;

/// Prices are told in 10⁻¹² dollars, costs in 10⁻⁹.
const PICO_IN_NANO: u128 = 1_000;

/// Cost in billionths of a dollar, rounded once; none where no tokens or no prices are known: that is not 0.
#[must_use]
pub fn cost_nano(prices: Option<&Prices>, facts: &Facts) -> Option<u64> {
    let prices = prices?;
    facts.tokens_in.or(facts.tokens_out)?;
    let charged = [
        (facts.tokens_in_fresh(), prices.input_pico),
        (facts.tokens_cached, prices.cached_input_pico),
        (facts.tokens_cache_written, prices.cache_write_pico),
        (facts.tokens_out, prices.output_pico),
    ];
    let each = charged.map(|(count, pico)| u128::from(count.unwrap_or(0)) * u128::from(pico));
    let pico = each.into_iter().fold(0, u128::saturating_add);
    Some(u64::try_from(pico.saturating_add(PICO_IN_NANO / 2) / PICO_IN_NANO).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Dialect;

    const PRICES: Prices =
        Prices { input_pico: 400_000, cached_input_pico: 100_000, cache_write_pico: 500_000, output_pico: 1_600_000 };

    #[test]
    fn what_is_read_from_and_written_into_a_cache_is_charged_at_its_own_price() {
        let facts = Facts {
            dialect: Dialect::Chat,
            tokens_in: Some(1_000),
            tokens_cached: Some(400),
            tokens_out: Some(10),
            ..Facts::default()
        };
        assert_eq!(cost_nano(Some(&PRICES), &facts), Some(600 * 400 + 400 * 100 + 10 * 1_600));
        assert_eq!(cost_nano(None, &facts), None);
        assert_eq!(
            cost_nano(Some(&PRICES), &Facts::default()),
            None,
            "what says nothing of its use did not cost nothing"
        );
        let messages = Facts {
            dialect: Dialect::Messages,
            tokens_in: Some(7),
            tokens_cached: Some(400),
            tokens_cache_written: Some(1_000),
            tokens_out: Some(10),
            ..Facts::default()
        };
        assert_eq!(cost_nano(Some(&PRICES), &messages), Some(7 * 400 + 400 * 100 + 1_000 * 500 + 10 * 1_600));
    }

    #[test]
    fn a_cost_is_rounded_once_and_never_wraps() {
        let cost = |tokens_in: u64, tokens_out: u64, prices: Prices| {
            let facts = Facts { tokens_in: Some(tokens_in), tokens_out: Some(tokens_out), ..Facts::default() };
            cost_nano(Some(&prices), &facts)
        };
        let fine = Prices { input_pico: 37_500, output_pico: 37_499, ..PRICES };
        assert_eq!((cost(1, 0, fine), cost(0, 1, fine), cost(1, 1, fine)), (Some(38), Some(37), Some(75)));
        let dear = Prices { input_pico: 1_000_000_000_000_000, ..PRICES };
        assert_eq!(cost(u64::MAX, u64::MAX, dear), Some(u64::MAX));
        // Half a million answers of 0.3 µ$: floats would have drifted by now.
        let each = cost(1, 0, Prices { input_pico: 300_000, ..PRICES }).unwrap_or(0);
        assert_eq!((0..500_000).map(|_| each).sum::<u64>(), 150_000_000);
    }
}
