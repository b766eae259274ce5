//! Which record serves which clause. "Serves" is meant soberly: a record is material for whoever must show something,
//! no proof that a law or a standard is complied with.

use serde::Serialize;

/// A clause and the records that serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Clause {
    /// The law, standard or framework.
    pub source: &'static str,
    /// Which part of it.
    pub clause: &'static str,
    /// What it is about, in our words.
    pub about: &'static str,
    /// The records of this report that serve it.
    pub served_by: &'static [&'static str],
    /// How.
    pub how: &'static str,
}

/// Said above the table, wherever it is shown.
pub const CAVEAT: &str = "Each row says which of these records can serve as material for a clause. It does not say that \
                          the clause applies to you, or that it is complied with: that is for your own assessment.";

const INITIATION: &str = "initiation";
const PROMOTIONS: &str = "stage promotions";
const INCIDENT: &str = "rollback incident";
const COMPLETION: &str = "completion certificate";
const EXPOSURE: &str = "exposure ledger";
const TIMELINE: &str = "timeline";
const DRILLS: &str = "drills";

/// All of them, in the order in which they are shown.
pub const CLAUSES: &[Clause] = &[
    Clause {
        source: "EU AI Act (Regulation (EU) 2024/1689)",
        clause: "Article 9",
        about: "risk management through the whole life cycle; testing against metrics and thresholds defined beforehand",
        served_by: &[INITIATION, PROMOTIONS, INCIDENT],
        how: "gates, margins and the version's entry in the register are frozen at the start; each promotion shows the measured numbers against them",
    },
    Clause {
        source: "EU AI Act (Regulation (EU) 2024/1689)",
        clause: "Article 15",
        about: "consistent accuracy and robustness; fail-safe plans",
        served_by: &[PROMOTIONS, COMPLETION, INCIDENT, DRILLS],
        how: "the new version is measured beside the one in use at every stage; rollbacks and their rehearsals are recorded",
    },
    Clause {
        source: "ISO/IEC 42001",
        clause: "8.5, as our source cites it (the 2023 edition ends clause 8 at 8.4: see 8.1 and Annex A.6.2 there)",
        about: "controlled operation, deployment, monitoring and event logs of an AI system",
        served_by: &[INITIATION, PROMOTIONS, COMPLETION, TIMELINE],
        how: "planned changes, the criteria for them, who approved them and what was observed stand in one chained journal",
    },
    Clause {
        source: "NIST AI RMF 1.0",
        clause: "MANAGE 2.2",
        about: "mechanisms that sustain the value of deployed AI systems",
        served_by: &[PROMOTIONS, COMPLETION, EXPOSURE],
        how: "a release rises only on fresh proof that it is not worse; its reach at every stage is counted",
    },
    Clause {
        source: "NIST AI RMF 1.0",
        clause: "MANAGE 4.1",
        about: "monitoring after deployment, override, incident response, recovery and change management",
        served_by: &[INCIDENT, TIMELINE, DRILLS],
        how: "every override, rollback and clearing names who, when and why; recovery is rehearsed and timed",
    },
    Clause {
        source: "APRA CPS 230",
        clause: "operational risk: controls, incidents, change",
        about: "controls over change, and the recording and remediation of operational risk incidents",
        served_by: &[INITIATION, INCIDENT, COMPLETION, DRILLS],
        how: "an incident has its numbers, its timeline, who cleared it and the root cause that he gave",
    },
    Clause {
        source: "Privacy Act 1988 (Cth)",
        clause: "APP 11",
        about: "reasonable steps to protect personal information",
        served_by: &[EXPOSURE],
        how: "exposure is counted; neither journal nor report holds a user's id, a prompt or an answer",
    },
];
