//! Kinds of traffic: what users of an AI service do, and how the service answers all of them.

/// A kind of traffic. Rates are per second, chances and shares 0 to 1, times in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub name: &'static str,
    pub about: &'static str,
    pub users: usize,
    /// A user's share of requests falls with rank to this power.
    pub zipf: f64,
    pub rate: f64,
    /// The canary's share of users.
    pub weight: f64,
    /// Mean requests of a session; those of one come some seconds apart.
    pub session: f64,
    /// Chance of failing, and how much users differ in it (σ of ln).
    pub errors: f64,
    pub error_spread: f64,
    /// Of failures, those that come at once; the others take 5 to 30 s.
    pub fast: f64,
    /// Median of tokens, σ of ln within and between users.
    pub tokens: f64,
    pub token_sigma: f64,
    pub length_spread: f64,
    pub s_per_token: f64,
    /// Median of the time to the first token, σ of ln within users.
    pub ttft_s: f64,
    pub ttft_sigma: f64,
    /// σ of ln of users' speed.
    pub speed_spread: f64,
    /// Of requests, those of a second kind, twenty times as long (agents among chats).
    pub long: f64,
    /// Swing of rate, errors and latency over an hour and a half.
    pub drift: f64,
    /// Times the rate in bursts of some 30 s, five minutes apart; 0: none.
    pub bursts: f64,
    /// Incidents an hour that meet both arms alike.
    pub incidents: f64,
    /// Chance that a client tries again after a failure, up to five times.
    pub retry: f64,
    /// Users now and then send what always fails, and try again twice a second for 40 s: storms an hour.
    pub storms: f64,
    /// The canary is so many times slower for its first 45 s, fading.
    pub cold: f64,
    /// One user sends this share of all requests from the twentieth minute on, twice as long as others'.
    pub whale: f64,
    /// Of answers, those that are scored.
    pub scored: f64,
}

/// What the kinds are variations of.
pub const STEADY: Traffic = Traffic {
    name: "steady",
    about: "600 sticky users, Zipf 0.8",
    users: 600,
    zipf: 0.8,
    rate: 20.0,
    weight: 0.25,
    session: 1.0,
    errors: 0.01,
    error_spread: 0.7,
    fast: 0.8,
    tokens: 250.0,
    token_sigma: 0.7,
    length_spread: 0.5,
    s_per_token: 0.015,
    ttft_s: 0.35,
    ttft_sigma: 0.5,
    speed_spread: 0.3,
    long: 0.0,
    drift: 0.0,
    bursts: 0.0,
    incidents: 0.0,
    retry: 0.0,
    storms: 0.0,
    cold: 1.0,
    whale: 0.0,
    scored: 0.25,
};

/// The sample traces' traffic, as measured on them: users' shares, how much users differ (errors σ of ln 0.9, tokens 0.24,
/// speed 0.08, where they differ among themselves by 0.95 and 0.61), failures, retries. What is stated of the method
/// was simulated on traffic like this; `STEADY` has heavier users who differ more.
pub const SAMPLE: Traffic = Traffic {
    name: "sample",
    about: "like the sample traces: 600 users, none above 3 %, that differ little",
    zipf: 0.57,
    errors: 0.012,
    error_spread: 0.9,
    fast: 0.5,
    retry: 0.5,
    tokens: 265.0,
    token_sigma: 0.95,
    length_spread: 0.24,
    ttft_s: 0.4,
    ttft_sigma: 0.61,
    speed_spread: 0.08,
    ..STEADY
};

/// Fourteen kinds.
pub const KINDS: [Traffic; 14] = [
    STEADY,
    Traffic {
        name: "heavy tail",
        about: "80 users, Zipf 1.3, even split",
        users: 80,
        zipf: 1.3,
        weight: 0.5,
        rate: 10.0,
        ..STEADY
    },
    Traffic {
        name: "unequal users",
        about: "errors of users differ by 1.5 in ln, lengths and speed by 1",
        error_spread: 1.5,
        length_spread: 1.0,
        speed_spread: 0.8,
        zipf: 1.0,
        ..STEADY
    },
    Traffic { name: "sessions", about: "bursts of 12 requests of one user", session: 12.0, zipf: 1.0, ..STEADY },
    Traffic { name: "bursts", about: "rate times 6 for 30 s", bursts: 6.0, rate: 15.0, ..STEADY },
    Traffic {
        name: "drift",
        about: "rate, errors and latency swing by half",
        drift: 0.5,
        weight: 0.1,
        zipf: 1.0,
        ..STEADY
    },
    Traffic {
        name: "shared incidents",
        about: "four an hour: 40 % errors, 3 x slower, in both arms",
        incidents: 4.0,
        retry: 0.5,
        ..STEADY
    },
    Traffic {
        name: "retry storms",
        about: "5 % errors, 70 % retried, users that hammer twice a second",
        errors: 0.05,
        error_spread: 1.0,
        retry: 0.7,
        storms: 12.0,
        weight: 0.1,
        ..STEADY
    },
    Traffic {
        name: "cold start",
        about: "canary 4 x slower at first, fading in 45 s",
        cold: 4.0,
        rate: 30.0,
        ..STEADY
    },
    Traffic { name: "few users", about: "16 users", users: 16, zipf: 0.5, rate: 10.0, weight: 0.5, ..STEADY },
    Traffic {
        name: "one tenant",
        about: "a tenant with two fifths of the traffic among 300",
        users: 300,
        zipf: 0.6,
        whale: -0.4,
        rate: 15.0,
        ..STEADY
    },
    Traffic {
        name: "new whale",
        about: "a new user brings a fifth of the traffic, twice as long, from minute 20 on",
        whale: 0.2,
        weight: 0.5,
        rate: 12.0,
        ..STEADY
    },
    Traffic {
        name: "many errors",
        about: "18 % fast errors, 50 requests/s, long answers by agents among chats",
        errors: 0.18,
        fast: 1.0,
        rate: 50.0,
        users: 3_000,
        zipf: 0.9,
        weight: 0.1,
        long: 0.1,
        ..STEADY
    },
    Traffic {
        name: "thin canary",
        about: "1 % of 40 requests/s, 5,000 users",
        users: 5_000,
        zipf: 0.9,
        rate: 40.0,
        weight: 0.01,
        errors: 0.005,
        ..STEADY
    },
];
