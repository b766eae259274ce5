//! What an answer cost, from its tokens and the version's prices.

use crate::config::Prices;
use crate::wire::Facts;

/// Cost in billionths of a dollar; none where no tokens or no prices are known: that is not 0.
#[must_use]
pub fn cost_nano(prices: Option<&Prices>, facts: &Facts) -> Option<u64> {
    let prices = prices?;
    facts.tokens_in.or(facts.tokens_out)?;
    let tokens = |count: Option<u64>| count.unwrap_or(0) as f64;
    let cost = tokens(facts.tokens_in_fresh()) * prices.input_nano
        + tokens(facts.tokens_cached) * prices.cached_input_nano
        + tokens(facts.tokens_cache_written) * prices.cache_write_nano
        + tokens(facts.tokens_out) * prices.output_nano;
    Some(cost.round().max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_from_and_written_into_a_cache_is_charged_at_its_own_price() {
        let prices =
            Prices { input_nano: 400.0, cached_input_nano: 100.0, cache_write_nano: 500.0, output_nano: 1_600.0 };
        let facts = Facts {
            dialect: crate::wire::Dialect::Chat,
            tokens_in: Some(1_000),
            tokens_cached: Some(400),
            tokens_out: Some(10),
            ..Facts::default()
        };
        assert_eq!(cost_nano(Some(&prices), &facts), Some(600 * 400 + 400 * 100 + 10 * 1_600));
        assert_eq!(cost_nano(None, &facts), None);
        assert_eq!(
            cost_nano(Some(&prices), &Facts::default()),
            None,
            "what says nothing of its use did not cost nothing"
        );
        let messages = Facts {
            dialect: crate::wire::Dialect::Messages,
            tokens_in: Some(7),
            tokens_cached: Some(400),
            tokens_cache_written: Some(1_000),
            tokens_out: Some(10),
            ..Facts::default()
        };
        assert_eq!(cost_nano(Some(&prices), &messages), Some(7 * 400 + 400 * 100 + 1_000 * 500 + 10 * 1_600));
    }
}
