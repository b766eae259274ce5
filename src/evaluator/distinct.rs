//! How many different units there were, in 4 KiB: HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007) with 4,096
//! registers (standard error 1.6 %), and linear counting while few are filled.

/// Registers.
const REGISTERS: usize = 1 << 12;
/// Ranks: 0 where nothing came, else 1 to 53.
const RANKS: usize = 64;

/// A count of distinct keys.
#[derive(Clone, Debug)]
pub struct Distinct {
    registers: Box<[u8; REGISTERS]>,
    /// How many registers hold each rank: counting then costs the ranks, not the registers.
    ranks: [u16; RANKS],
}

impl Default for Distinct {
    fn default() -> Self {
        let mut ranks = [0; RANKS];
        ranks[0] = REGISTERS as u16;
        Self { registers: Box::new([0; REGISTERS]), ranks }
    }
}

impl Distinct {
    /// Takes in a key, which must already be a hash.
    pub fn add(&mut self, key: u64) {
        // The key is a hash, but slots elsewhere use its bits too: mix once more (SplitMix64's finaliser).
        let mut x = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
        let register = (x >> 52) as usize;
        let rank = ((x << 12) | (1 << 11)).leading_zeros() as u8 + 1;
        if let Some(place) = self.registers.get_mut(register)
            && rank > *place
        {
            self.ranks[usize::from(*place & 63)] -= 1;
            self.ranks[usize::from(rank & 63)] += 1;
            *place = rank;
        }
    }

    /// Its registers as text: one sign each, from `0` on.
    #[must_use]
    pub fn text(&self) -> String {
        self.registers.iter().map(|rank| char::from(b'0' + (*rank & 63))).collect()
    }

    /// What [`Distinct::text`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ranks: Vec<u8> =
            text.bytes().map(|sign| sign.checked_sub(b'0').filter(|r| *r < 64)).collect::<Option<_>>()?;
        let registers: Box<[u8; REGISTERS]> = ranks.into_boxed_slice().try_into().ok()?;
        let mut ranks = [0; RANKS];
        for rank in registers.iter() {
            ranks[usize::from(*rank & 63)] += 1;
        }
        Some(Self { registers, ranks })
    }

    /// About how many different keys there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        let m = REGISTERS as f64;
        let zeros = self.ranks[0];
        let sum: f64 = (0..).zip(self.ranks).map(|(rank, n)| f64::from(n) * 0.5f64.powi(rank)).sum();
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let estimate = if raw <= 2.5 * m && zeros > 0 { m * (m / f64::from(zeros)).ln() } else { raw };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_right_within_five_standard_errors() {
        for n in [0u64, 1, 10, 500, 5_000, 20_000, 200_000] {
            let mut distinct = Distinct::default();
            for key in 0..n {
                distinct.add(key);
                distinct.add(key);
            }
            let error = distinct.count().abs_diff(n) as f64;
            assert!(error <= 0.08 * n as f64, "{n}: {}", distinct.count());
            let back = Distinct::parse(&distinct.text()).unwrap();
            assert_eq!(back.count(), distinct.count(), "it survives its own text");
        }
    }
}
