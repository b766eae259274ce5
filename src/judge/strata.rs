//! A stratum: the exposures that became known in one tick, and stable's rate as known before it.

/// Half-life of the memory of stable's rate: long enough for some failures, short enough to follow a drift.
const HALF_LIFE_NS: f64 = 300e9;

/// Exposures that wait for their tick to close. Stable's are sums already; the canary's are also kept by slot.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Stratum {
    pub(super) since: u64,
    pub(super) events: Vec<(u16, bool)>,
    pub(super) canary: Side,
    pub(super) stable: Side,
}

/// One arm's part of a stratum.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Side {
    /// Exposures.
    pub(super) n: f64,
    /// Bad ones.
    pub(super) k: f64,
    /// Sum of the exposures' offsets.
    offsets: f64,
    /// The same of what they are beyond the rollback margin.
    far: f64,
}

impl Side {
    /// One exposure more, of a user with these offsets.
    pub(super) fn add(&mut self, bad: bool, [offset, far]: [f64; 2]) {
        self.n += 1.0;
        self.k += f64::from(u8::from(bad));
        self.offsets += offset;
        self.far += far;
    }

    /// Mean offset of the exposures beyond the rollback margin; 1 without any.
    pub(super) fn far(&self) -> f64 {
        if self.n > 0.0 { self.far / self.n } else { 1.0 }
    }

    /// Mean offset of the exposures; 1 without any.
    pub(super) fn rho(&self) -> f64 {
        if self.n > 0.0 { self.offsets / self.n } else { 1.0 }
    }
}

/// Stable's rate per unit of offset, from strata that have closed.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Past {
    bad: f64,
    exposures: f64,
    at: u64,
}

impl Past {
    /// p̂ = (Σ k n/Σρ + ½)/(Σ n + 20), clipped so that no rate made of it passes 0.9. The ½ in 20 keeps the first guess off 0.
    pub(super) fn rate(&self, most_rho: f64) -> f64 {
        ((self.bad + 0.5) / (self.exposures + 20.0)).max(1e-4).min(0.9 / most_rho)
    }

    pub(super) fn add(&mut self, stable: Side, now: u64) {
        let fade = 0.5f64.powf(now.saturating_sub(self.at) as f64 / HALF_LIFE_NS);
        self.at = now;
        self.bad = self.bad * fade + stable.k / stable.rho();
        self.exposures = self.exposures * fade + stable.n;
    }
}
