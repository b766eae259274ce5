//! The scenarios of the demo: what the canary does and since when, under which policy, and which verdict must come.

use std::time::Duration;

use super::behaviour::{Script, Spread};

/// Stable's version name in every scenario.
pub const STABLE: &str = "song-1";
/// The canary's version name in every scenario.
pub const CANARY: &str = "song-2";
/// The rollout's name in every scenario.
pub const ROLLOUT: &str = "demo";

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// The name after `--scenario`.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub about: &'static str,
    /// When the canary begins to do it.
    pub since: Since,
    /// What it does.
    pub deed: Deed,
    /// How the rollout must end.
    pub expected: Expected,
    /// The gates that the policy has beside `error_rate` and `latency_p50`, as TOML.
    gates: &'static str,
}

/// When a canary's behaviour changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Since {
    /// Before the rollout starts.
    Start,
    /// As soon as its weight is at least this, in percent.
    Weight(f64),
}

/// What the canary does differently from stable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    /// Nothing.
    Nothing,
    /// This share of its answers is a 500.
    Errors(f64),
    /// It takes this many times as long.
    Slower(f64),
    /// Its answers are worth this many times as much to those who score them.
    Worse(f64),
    /// Its answers are this many times as long, and cost so.
    Dearer(f64),
    /// This share of its answers ends in the middle.
    Cuts(f64),
    /// This share of its answers breaks a safety rule.
    Harms(f64),
}

/// How a scenario must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// All stages passed, the soak too.
    Completed,
    /// Rolled back and latched, because of one of these gates: the first is what a user looks for, others say the same of a
    /// failure that is many things at once.
    RolledBack(&'static [&'static str]),
}

/// What a scenario that fails outright may be caught by: the gate, its hard twin, or the breaker.
const ERRORS: &[&str] = &["error_rate", "breaker"];

/// All scenarios; the first is the default.
pub const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "good",
        about: "the canary is as good as stable, and is proven so stage by stage",
        since: Since::Start,
        deed: Deed::Nothing,
        expected: Expected::Completed,
        gates: "",
    },
    Scenario {
        name: "errors",
        about: "from the second stage on a quarter of the canary's answers are errors",
        since: Since::Weight(50.0),
        deed: Deed::Errors(0.25),
        expected: Expected::RolledBack(ERRORS),
        gates: "",
    },
    Scenario {
        name: "latency",
        about: "the canary answers correctly, but takes five times as long",
        since: Since::Start,
        deed: Deed::Slower(5.0),
        expected: Expected::RolledBack(&["latency_p50", "ttft_p50", "stall"]),
        gates: "",
    },
    Scenario {
        name: "quality",
        about: "the canary is fast and never fails, but people score its answers 40 % lower",
        since: Since::Start,
        deed: Deed::Worse(0.6),
        expected: Expected::RolledBack(&["quality_mean"]),
        gates: "[rollouts.demo.gates.quality_mean]\nrollback = \"-20%\"\npromote = \"-8%\"\n",
    },
    Scenario {
        name: "cost",
        about: "the canary talks three times as long as stable, and bills for it",
        since: Since::Start,
        deed: Deed::Dearer(3.0),
        expected: Expected::RolledBack(&["cost_mean"]),
        gates: "[rollouts.demo.gates.cost_mean]\nrollback = \"+60%\"\npromote = \"+20%\"\n",
    },
    Scenario {
        name: "cut-streams",
        about: "from the second stage on a quarter of the canary's streams end in mid-sentence, with status 200",
        since: Since::Weight(50.0),
        deed: Deed::Cuts(0.25),
        expected: Expected::RolledBack(&["cut_stream_rate"]),
        // A cut stream is an error too: whoever gates both wants to read the one that says what kind.
        gates: "[rollouts.demo.gates.cut_stream_rate]\nrollback = \"+4pp\"\npromote = \"+1pp\"\n",
    },
    Scenario {
        name: "safety",
        about: "in the second stage a canary's answer breaks a safety rule: one is enough",
        since: Since::Weight(50.0),
        deed: Deed::Harms(0.02),
        expected: Expected::RolledBack(&["safety_violations"]),
        gates: "[rollouts.demo.gates.safety_violations]\nrollback = \"any\"\n",
    },
];

/// How long the users talk before the rollout starts: the judge wants stable's history (evaluator.md 1: at least 200 answers).
pub const HISTORY: Duration = Duration::from_secs(11);
/// How long a whole scenario may take before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(150);
/// Requests a second of all users together.
pub const RATE: f64 = 300.0;
/// Users.
pub const USERS: u32 = 400;

impl Scenario {
    /// The scenario of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        SCENARIOS.into_iter().find(|scenario| scenario.name == name)
    }

    /// Whether its users report what they think of answers.
    #[must_use]
    pub const fn is_scored(&self) -> bool {
        matches!(self.deed, Deed::Worse(_) | Deed::Harms(_))
    }

    /// How stable behaves, and the canary until its deed begins.
    #[must_use]
    pub fn faultless(version: &str) -> Script {
        Script {
            latency_ms: Spread::around(24.0, 0.35),
            first_token_ms: Spread::around(12.0, 0.35),
            per_token_ms: 1.0,
            tokens: Spread::around(12.0, 0.3),
            error_rate: 0.005,
            quality: Some(0.85),
            ..Script::named(version)
        }
    }

    /// How the canary behaves once its deed has begun.
    #[must_use]
    pub fn canary(&self) -> Script {
        let mut script = Self::faultless(CANARY);
        match self.deed {
            Deed::Nothing => {}
            Deed::Errors(rate) => script.error_rate = rate,
            Deed::Slower(times) => {
                script.latency_ms.median *= times;
                script.first_token_ms.median *= times;
                script.per_token_ms *= times;
            }
            Deed::Worse(times) => script.quality = script.quality.map(|quality| quality * times),
            Deed::Dearer(times) => script.cost = times,
            Deed::Cuts(rate) => script.cut_rate = rate,
            Deed::Harms(rate) => script.harm_rate = rate,
        }
        script
    }

    /// The configuration of the proxy: every address free, the policy made for a minute (wide margins, short stages, no
    /// signatures).
    #[must_use]
    pub fn config(&self, stable: &str, canary: &str, seed: u64) -> String {
        format!(
            r#"# serin demo --scenario {name} --seed {seed}
# {about}
[admin]
listen = "127.0.0.1:0"

[listeners.demo]
listen = "127.0.0.1:0"

[log]
level = "warn"

[rollouts.{ROLLOUT}]
protocol = "openai"
unit = ["header:x-user-id"]
salt = "demo-{seed}"
prices = {{ input = 0.4, output = 1.6, per = "1M" }}

[rollouts.{ROLLOUT}.stable]
version = "{STABLE}"
endpoints = ["{stable}"]

[rollouts.{ROLLOUT}.canary]
version = "{CANARY}"
endpoints = ["{canary}"]

[rollouts.{ROLLOUT}.plan]
start = "manual"
soak = "6s"
holdback = 10.0
deadline = "20x"
[[rollouts.{ROLLOUT}.plan.stages]]
weight = 10.0
residence = "5s"
samples = 60
approval = "none"
[[rollouts.{ROLLOUT}.plan.stages]]
weight = 50.0
residence = "5s"
samples = 200
approval = "none"
[[rollouts.{ROLLOUT}.plan.stages]]
weight = 100.0

[rollouts.{ROLLOUT}.evaluator]
alpha = 0.01
beta = 0.05
warm_up = "1s"

{gates}
[rollouts.{ROLLOUT}.gates.error_rate]
rollback = "+8pp"
promote = "+2pp"
[rollouts.{ROLLOUT}.gates.latency_p50]
rollback = "+150%"
promote = "+50%"
"#,
            name = self.name,
            about = self.about,
            gates = self.gates,
        )
    }
}

impl Expected {
    /// Whether a rollout that ended in `phase`, for `reason` (the latch's and the failed gates' words), ended as expected.
    #[must_use]
    pub fn is_met(&self, phase: &str, reason: &str) -> bool {
        match self {
            Self::Completed => phase == "completed",
            Self::RolledBack(gates) => phase == "rolled_back" && gates.iter().any(|gate| reason.contains(gate)),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::RolledBack(gates) => write!(f, "rolled back by {}", gates.join(" or ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_scenario_and_no_other_does() {
        for scenario in SCENARIOS {
            assert_eq!(Scenario::find(scenario.name), Some(scenario));
        }
        assert_eq!(Scenario::find("nothing"), None);
    }

    #[test]
    fn only_the_good_canary_behaves_like_stable() {
        for scenario in SCENARIOS {
            let same = scenario.canary() == Scenario::faultless(CANARY);
            assert_eq!(same, scenario.expected == Expected::Completed, "{}", scenario.name);
        }
    }

    #[test]
    fn every_config_is_toml_whose_gates_are_those_that_must_speak() {
        for scenario in SCENARIOS {
            let text = scenario.config("http://127.0.0.1:1", "http://127.0.0.1:2", 3);
            let value: toml::Table = text.parse().unwrap();
            let gates = value["rollouts"][ROLLOUT]["gates"].as_table().unwrap();
            if let Expected::RolledBack(named) = scenario.expected {
                assert!(named.iter().any(|gate| gates.contains_key(*gate)), "{}: {text}", scenario.name);
            }
        }
    }

    #[test]
    fn an_end_is_expected_only_with_its_phase_and_its_gate() {
        let errors = Expected::RolledBack(ERRORS);
        assert!(errors.is_met("rolled_back", "error_rate/hard: 12 of 14"));
        assert!(errors.is_met("rolled_back", "breaker: 8 failures"));
        assert!(!errors.is_met("rolled_back", "latency_p50: slower"));
        assert!(!errors.is_met("completed", "error_rate"));
        assert!(Expected::Completed.is_met("completed", ""));
        assert!(!Expected::Completed.is_met("rolled_back", ""));
    }
}
