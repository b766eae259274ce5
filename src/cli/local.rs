//! Commands that need no running serin: version, completions, a first configuration, the journal's chain.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::args::{Output, command_line};
use crate::journal;

/// What is done here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// The version.
    Version(Output),
    /// Completions.
    Completions(clap_complete::Shell),
    /// A first configuration.
    Init {
        /// Stable's endpoint.
        stable: String,
        /// The canary's endpoint.
        canary: String,
    },
    /// The hash chain of a journal, and its signatures.
    JournalVerify {
        /// Its directory.
        path: PathBuf,
        /// Public keys; none: signatures are not looked at.
        keys: Vec<PathBuf>,
        /// For people or machines.
        output: Output,
    },
}

/// Does it; data to `out`, words to `err`.
pub fn perform(local: &Local, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    match local {
        Local::Version(output) => {
            let version = env!("CARGO_PKG_VERSION");
            let text = match output {
                Output::Human | Output::Md | Output::Html => format!("serin {version}\n"),
                Output::Json => format!("{}\n", json!({ "version": version })),
            };
            written(out, &text)
        }
        Local::Completions(shell) => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut command_line(), "serin", &mut text);
            written(out, &String::from_utf8_lossy(&text))
        }
        Local::Init { stable, canary } => init(stable, canary, out, err),
        Local::JournalVerify { path, keys, output } => verify(path, keys, *output, out, err),
    }
}

fn written(out: &mut dyn Write, text: &str) -> ExitCode {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What a journal was found to be: its JSON, and a sentence.
fn verified(path: &Path, keys: &[PathBuf]) -> Result<(serde_json::Value, String), Verdict> {
    let sentence = |summary: &journal::Summary| match summary.last {
        0 => "good: the journal is empty".to_owned(),
        _ => format!("good: entries {} to {}, head {}", summary.first, summary.last, summary.hash),
    };
    if keys.is_empty() {
        let summary = journal::verify(path).map_err(Verdict::Broken)?;
        return Ok((json!(summary), sentence(&summary)));
    }
    let mut verifiers = Vec::new();
    for key in keys {
        let wrong = |why: String| Verdict::Key(format!("{}: {why}", key.display()));
        let pem = std::fs::read(key).map_err(|error| wrong(error.to_string()))?;
        verifiers.push(journal::Verifier::from_pem(&pem).map_err(|error| wrong(error.to_string()))?);
    }
    let signed = journal::verify_signed(path, &verifiers).map_err(Verdict::Broken)?;
    let by = signed.keys.join(", ");
    let words = format!("{}; signed {} times, by {by}", sentence(&signed.summary), signed.signatures);
    let words = if signed.signatures == 0 { sentence(&signed.summary) } else { words };
    Ok((json!(signed), words))
}

/// Why a journal was not found good.
enum Verdict {
    /// It is not as it was written.
    Broken(journal::Broken),
    /// A key cannot be used.
    Key(String),
}

fn verify(path: &Path, keys: &[PathBuf], output: Output, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    match verified(path, keys) {
        Ok((json, sentence)) => {
            let text = match output {
                Output::Json => format!("{json}\n"),
                Output::Human | Output::Md | Output::Html => format!("{sentence}\n"),
            };
            written(out, &text)
        }
        Err(Verdict::Key(why)) => {
            drop(writeln!(err, "serin: {why}"));
            ExitCode::FAILURE
        }
        Err(Verdict::Broken(broken)) => {
            let text = match output {
                Output::Json => serde_json::to_string(&broken).unwrap_or_default() + "\n",
                Output::Human | Output::Md | Output::Html => String::new(),
            };
            let told = writeln!(err, "serin: {broken}").and_then(|()| out.write_all(text.as_bytes()));
            drop(told);
            ExitCode::FAILURE
        }
    }
}

/// A configuration that `serin check` finds good, with every choice that a first rollout needs.
fn init(stable: &str, canary: &str, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let text = first_config(stable, canary);
    match crate::config::parse(&text, "serin.toml", &|_| None) {
        Ok(_) => written(out, &text),
        Err(faults) => {
            drop(writeln!(err, "{faults}"));
            ExitCode::FAILURE
        }
    }
}

fn first_config(stable: &str, canary: &str) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let (stable, canary) = (quoted(stable), quoted(canary));
    format!(
        r#"# serin: first configuration. `serin check serin.toml`, then `serin run -c serin.toml`.
[admin]
listen = "127.0.0.1:8081"             # API, dashboard, probes, /metrics

[listeners.edge]
listen = "127.0.0.1:8080"             # where callers come

[store]
path = "state"                        # what was decided survives restarts here

[rollouts.main]
match = {{ host = "*", path_prefix = "/" }}
unit = ["header:x-user-id", "ip"]     # who keeps a version: the first that is present

[rollouts.main.stable]
version = "stable"                    # name the version as you know it
endpoints = [{stable}]

[rollouts.main.canary]
version = "canary"
endpoints = [{canary}]

[rollouts.main.plan]
preset = "progressive"                # 1, 10, 50, 100 %, without approvals
"#
    )
}
