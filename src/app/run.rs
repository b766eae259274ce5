//! `serin run`: logs, signals, the drain, the exit code.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::start::{Serin, start};
use crate::clock::Clock;
use crate::config::{self, Log, LogFormat};
use crate::signal::{Asked, Signals};

/// The exit code of `run` with a bad configuration (sysexits' EX_CONFIG).
const BAD_CONFIG: u8 = 78;
/// How often the drain looks whether it is over.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Serves until a signal ends it.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(faults) => {
            say(&faults.to_string());
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let json = log_to_stderr(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    for sentence in config::waiting(&config) {
        tracing::warn!("{sentence}");
    }
    let clock = Clock::system();
    let serin = match start(config, Some(path.to_owned()), &clock) {
        Ok(serin) => serin,
        Err(error) => {
            say(&format!("{}: {error}", path.display()));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    match serve(serin, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("serin: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Heeds signals until the drain is over.
fn serve(serin: Serin, json: bool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anybody is told that it serves: whoever reads that may send a signal at once.
        let mut signals = Signals::listen()?;
        announce(&serin, json);
        while signals.next().await == Asked::Reload {
            // On this thread, which has nothing else to do; the log says what came of it.
            if serin.reload().is_err() {
                tracing::debug!("the old configuration stays in force");
            }
        }
        tracing::info!("ending: /readyz says no, connections are still accepted for drain.delay");
        serin.announce_end();
        let drain = serin.drain_times();
        let in_order = async {
            tokio::time::sleep(drain.delay).await;
            serin.drain();
            tracing::info!("ending: no new connections; what is in flight may finish within drain.timeout");
            while !serin.is_drained() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        let again = async { while signals.next().await == Asked::Reload {} };
        tokio::select! {
            ended = tokio::time::timeout(drain.delay.saturating_add(drain.timeout), in_order) => {
                if ended.is_err() {
                    tracing::warn!("drain.timeout is over: what is still in flight is cut");
                }
            }
            () = again => tracing::warn!("a second signal: ending now"),
        }
        Ok::<(), io::Error>(())
    })?;
    serin.stop();
    Ok(())
}

/// Prints every bound address once: for people, or as one JSON line when stderr is no terminal.
fn announce(serin: &Serin, json: bool) {
    let bound = &serin.bound;
    if json {
        let mut line = serde_json::to_value(bound).unwrap_or_default();
        if let Some(map) = line.as_object_mut() {
            map.insert("event".to_owned(), "listening".into());
            map.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
            map.insert("pid".to_owned(), std::process::id().into());
        }
        say(&line.to_string());
        return;
    }
    say(&format!("serin {}", env!("CARGO_PKG_VERSION")));
    for (name, address) in &bound.listeners {
        say(&format!("  listeners.{name}  {address}"));
    }
    if let Some(admin) = bound.admin {
        say(&format!("  admin  http://{admin}/"));
    }
    if let Some(socket) = &bound.socket {
        say(&format!("  admin  unix:{}", socket.display()));
    }
    if let Some(probes) = bound.probes {
        say(&format!("  probes  http://{probes}/readyz"));
    }
}

/// Words to stderr; that it is closed is no reason to stop serving.
pub(super) fn say(text: &str) {
    if writeln!(io::stderr().lock(), "{text}").is_err() {
        tracing::debug!("nobody reads stderr");
    }
}

/// Starts the log. Returns whether its lines are JSON. Once a process: a second call changes nothing.
pub fn log_to_stderr(log: &Log) -> bool {
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Human => false,
    };
    let filter = EnvFilter::new(log.level.as_str());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_span_events(FmtSpan::NONE);
    let started = if json {
        builder.json().flatten_event(true).with_target(false).try_init().is_ok()
    } else {
        let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.with_target(false).with_ansi(color).try_init().is_ok()
    };
    if !started {
        tracing::debug!("the log was already started");
    }
    json
}
