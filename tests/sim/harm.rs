//! What can be wrong with a canary, and from when on.

/// A fault of the canary. `Harm::NONE` is a canary as good as stable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Harm {
    /// Every answer fails at once, or after as long as a failure takes.
    pub outage: bool,
    /// Nothing is ever answered: a time-out after ten minutes.
    pub hang: bool,
    /// So much is added to the chance of failing.
    pub errors: f64,
    /// Of so many users alone.
    pub subset: f64,
    /// Times the latency of every answer.
    pub latency: f64,
    /// Times the latency of the slowest 5 %.
    pub latency_tail: f64,
    pub ttft: f64,
    /// So many answers are a 200 without tokens.
    pub empty: f64,
    /// Times the tokens (and what they cost and take).
    pub tokens: f64,
    pub cost: f64,
    /// Times the cost of the dearest 5 %.
    pub cost_tail: f64,
    pub quality: f64,
    /// The first answer after the onset breaks a safety rule, and no other.
    pub unsafe_once: bool,
    /// Seconds over which errors and latency grow from nothing to what is said above; 0: at once.
    pub grows_s: f64,
}

impl Harm {
    pub const NONE: Harm = Harm {
        outage: false,
        hang: false,
        errors: 0.0,
        subset: 1.0,
        latency: 1.0,
        latency_tail: 1.0,
        ttft: 1.0,
        empty: 0.0,
        tokens: 1.0,
        cost: 1.0,
        cost_tail: 1.0,
        quality: 1.0,
        unsafe_once: false,
        grows_s: 0.0,
    };

    /// How it is `since` seconds after the onset.
    pub fn after(self, since: f64) -> Harm {
        if since < 0.0 {
            return Harm::NONE;
        }
        if self.grows_s <= 0.0 {
            return self;
        }
        let grown = (since / self.grows_s).min(1.0);
        Harm { errors: self.errors * grown, latency: 1.0 + (self.latency - 1.0) * grown, ..self }
    }
}
