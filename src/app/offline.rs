//! Commands that need the judge, the configuration or a journal but no running serin: `check`, `replay`, `report`.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::run::say;
use crate::admin;
use crate::cli::args::ReplayPolicy;
use crate::cli::{Output, ReplayArgs, ReportArgs};
use crate::clock::Clock;
use crate::config;
use crate::judge::Policy;
use crate::judge::replay::replay as judge_again;
use crate::names::RolloutName;
use crate::notify::heard;
use crate::report::{self, Book};

/// Names all faults of a configuration.
#[must_use]
pub fn check(path: &Path, output: Output) -> ExitCode {
    match config::load(path) {
        Ok(config) => {
            let text = match output {
                Output::Json => {
                    serde_json::json!({ "ok": true, "faults": [], "warnings": config.warnings, "waiting": config::waiting(&config) }).to_string()
                }
                Output::Human | Output::Md | Output::Html => {
                    for warning in &config.warnings {
                        say(&format!("warning: {warning}"));
                    }
                    for sentence in config::waiting(&config) {
                        say(&format!("warning: {sentence}"));
                    }
                    format!("{}: good", path.display())
                }
            };
            printed(&text)
        }
        Err(faults) => {
            match output {
                Output::Json => {
                    printed(&faults.json().to_string());
                }
                Output::Human | Output::Md | Output::Html => say(&faults.to_string()),
            }
            ExitCode::FAILURE
        }
    }
}

pub(super) fn printed(text: &str) -> ExitCode {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The records of a rollout, from a journal's files; another process may be writing them.
#[must_use]
pub fn report(args: &ReportArgs) -> ExitCode {
    let mut book = Book::new(RolloutName::new(args.name.as_str()));
    let summary = match crate::journal::visit(&args.journal, &mut |entry| book.take(entry)) {
        Ok(summary) => summary,
        Err(broken) => {
            say(&format!("serin: the journal cannot be relied on: {broken}"));
            return ExitCode::FAILURE;
        }
    };
    let Some(report) = book.close(&summary, Clock::system().wall()) else {
        say(&format!("serin: {} has no record of the rollout {:?}", args.journal.display(), args.name));
        return ExitCode::FAILURE;
    };
    let heard =
        outbox_of(&args.journal).and_then(|outbox| heard::read(&outbox, &RolloutName::new(args.name.as_str())).ok());
    let report = admin::report::with_heard(report, heard);
    match args.output {
        Output::Json => printed(&serde_json::to_string(&report).unwrap_or_default()),
        Output::Html => printed(&report::page::render(&report)),
        Output::Human | Output::Md => printed(&report::markdown::render(&report)),
    }
}

/// The outbox of the store that a journal is in: the store, its journal's directory, or one segment was named.
fn outbox_of(journal: &Path) -> Option<PathBuf> {
    journal.ancestors().take(3).map(|dir| dir.join("outbox")).find(|outbox| outbox.is_dir())
}

/// The same judge over a recorded trace; good whatever the verdict.
#[must_use]
pub fn replay(args: &ReplayArgs) -> ExitCode {
    let policy = match policy(&args.policy) {
        Ok(policy) => policy,
        Err((why, code)) => {
            say(&why);
            return code;
        }
    };
    let trace = match File::open(&args.trace) {
        Ok(file) => BufReader::with_capacity(1 << 17, file),
        Err(error) => {
            say(&format!("serin: {}: {error}", args.trace.display()));
            return ExitCode::FAILURE;
        }
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match judge_again(policy, trace, &mut out)
        .map_err(|e| e.to_string())
        .and_then(|()| out.flush().map_err(|e| e.to_string()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("serin: {}: {error}", args.trace.display()));
            ExitCode::FAILURE
        }
    }
}

fn policy(from: &ReplayPolicy) -> Result<Policy, (String, ExitCode)> {
    match from {
        ReplayPolicy::File(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| (format!("serin: {}: {error}", path.display()), ExitCode::FAILURE))?;
            Policy::from_toml(&text).map_err(|error| (format!("serin: {}: {error}", path.display()), ExitCode::FAILURE))
        }
        ReplayPolicy::Rollout { config, rollout, from_stage } => {
            let file = config::load(config).map_err(|faults| (faults.to_string(), ExitCode::FAILURE))?;
            let known = file.rollout(rollout).ok_or_else(|| {
                let names: Vec<&str> = file.rollouts.iter().map(|r| r.name.as_str()).collect();
                let why =
                    format!("serin: {} has no rollout {rollout:?}; it has: {}", config.display(), names.join(", "));
                (why, ExitCode::from(2))
            })?;
            let mut policy = (*known.policy).clone();
            if let Some(plan) = &known.plan {
                let stage = plan.stages.get(*from_stage).ok_or_else(|| {
                    let last = plan.stages.len().saturating_sub(1);
                    (format!("serin: {rollout:?} has stages 0 to {last}, not {from_stage}"), ExitCode::from(2))
                })?;
                policy.min_stage = plan.residence_of(*from_stage);
                policy.min_requests = stage.samples;
            }
            Ok(policy)
        }
    }
}
