//! Commands that need no running serin: version, completions, a first configuration, the journal's chain.

use std::io::Write;
use std::path::PathBuf;
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
    /// The hash chain of a journal.
    JournalVerify {
        /// Its directory.
        path: PathBuf,
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
        Local::JournalVerify { path, output } => verify(path, *output, out, err),
    }
}

fn written(out: &mut dyn Write, text: &str) -> ExitCode {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn verify(path: &std::path::Path, output: Output, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    match journal::verify(path) {
        Ok(summary) => {
            let text = match output {
                Output::Json => serde_json::to_string(&summary).unwrap_or_default() + "\n",
                Output::Human | Output::Md | Output::Html if summary.last == 0 => {
                    "good: the journal is empty\n".to_owned()
                }
                Output::Human | Output::Md | Output::Html => {
                    format!("good: entries {} to {}, head {}\n", summary.first, summary.last, summary.hash)
                }
            };
            written(out, &text)
        }
        Err(broken) => {
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
