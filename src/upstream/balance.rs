//! Power of two choices over the endpoints that are not held out, with a floor under ejection.
//!
//! Mitzenmacher, "The power of two choices in randomized load balancing" (2001): two random candidates, the less
//! loaded one. At most `at_most` of the endpoints may be out; beyond that, being out is ignored (a wide outage is
//! no reason to send everything to one survivor).

use std::sync::Arc;

use super::endpoint::Endpoint;
use crate::config::Ejection;
use crate::names::Mono;

/// Picks an endpoint for one attempt, or `None` when `endpoints` is empty. `random` is any 64 random bits; `tried`
/// is an endpoint that has just failed and is avoided where another one exists.
#[must_use]
pub fn pick<'a>(
    endpoints: &'a [Arc<Endpoint>],
    ejection: &Ejection,
    now: Mono,
    random: u64,
    tried: Option<usize>,
) -> Option<&'a Arc<Endpoint>> {
    if let [only] = endpoints {
        return Some(only);
    }
    let allowed_out = (endpoints.len() as f64 * ejection.at_most.clamp(0.0, 1.0)).floor() as usize;
    let out = endpoints.iter().filter(|e| e.is_out(now)).count();
    let heed = out <= allowed_out;
    let usable = |e: &&Arc<Endpoint>| !(heed && e.is_out(now)) && Some(e.id) != tried;
    let count = endpoints.iter().filter(usable).count();
    if count == 0 {
        return endpoints.iter().find(|e| Some(e.id) != tried).or_else(|| endpoints.first());
    }
    let nth = |n: usize| endpoints.iter().filter(usable).nth(n);
    let first = (random as u32 as usize) % count;
    let second = (first + 1 + ((random >> 32) as usize) % (count - 1).max(1)) % count;
    match (nth(first), nth(second)) {
        (Some(a), Some(b)) => Some(if b.in_flight() < a.in_flight() { b } else { a }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::Registry;
    use super::*;
    use crate::config::{Endpoint as Address, Scheme};

    fn endpoints(n: u16) -> Vec<Arc<Endpoint>> {
        let registry = Registry::default();
        (0..n)
            .map(|i| registry.endpoint(&Address { scheme: Scheme::Http, host: "127.0.0.1".into(), port: 9_000 + i }))
            .collect()
    }

    fn randoms() -> impl Iterator<Item = u64> {
        (0..1_000u64).map(|i| xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()))
    }

    #[test]
    fn the_less_loaded_of_two_is_taken() {
        let all = endpoints(2);
        let _busy: Vec<_> = (0..5).map(|_| all[0].begin()).collect();
        for random in randoms() {
            assert_eq!(pick(&all, &Ejection::default(), Mono(1), random, None).unwrap().id, all[1].id);
        }
    }

    #[test]
    fn an_ejected_endpoint_rests_until_its_time_is_up() {
        let all = endpoints(4);
        let ejection = Ejection::default();
        for _ in 0..ejection.failures {
            all[2].failed(&ejection, Mono(1));
        }
        assert!(randoms().all(|r| pick(&all, &ejection, Mono(2), r, None).unwrap().id != all[2].id));
        let later = Mono(2).plus(ejection.for_);
        assert!(randoms().any(|r| pick(&all, &ejection, later, r, None).unwrap().id == all[2].id));
    }

    #[test]
    fn no_more_than_the_floor_is_held_out() {
        let all = endpoints(4);
        let ejection = Ejection::default();
        for endpoint in &all[..3] {
            for _ in 0..ejection.failures {
                endpoint.failed(&ejection, Mono(1));
            }
        }
        let seen: std::collections::HashSet<_> =
            randoms().map(|r| pick(&all, &ejection, Mono(2), r, None).unwrap().id).collect();
        assert_eq!(seen.len(), 4, "three of four out is more than half: being out is ignored");
    }

    #[test]
    fn a_retry_goes_to_another_endpoint() {
        let all = endpoints(2);
        assert!(
            randoms().all(|r| pick(&all, &Ejection::default(), Mono(1), r, Some(all[0].id)).unwrap().id == all[1].id)
        );
    }
}
