//! `serin demo`: models, users, the real proxy and the real evaluator in one process.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use super::run::{log_to_stderr, say};
use super::start::{Serin, start};
use crate::cli::DemoArgs;
use crate::clock::Clock;
use crate::config::{self, Log, LogFormat, LogLevel};
use crate::demo::{self, Options, Pace, Running, Scenario};
use crate::evaluator::Command;
use crate::names::RolloutName;
use crate::rollout::{Actor, Role, Verb, VerbArgs};
use crate::signal::Signals;

/// Runs one scenario; good only when the expected verdict came.
#[must_use]
pub fn run(args: &DemoArgs) -> ExitCode {
    log_to_stderr(&Log { level: LogLevel::Error, format: LogFormat::Auto, access: None });
    let Some(scenario) = Scenario::find(&args.scenario) else {
        say(&format!("serin: there is no scenario {:?}", args.scenario));
        return ExitCode::from(2);
    };
    let options =
        Options { scenario, seed: args.seed, headless: args.headless, json: args.json, pace: Pace::default() };
    let clock = Clock::system();
    let mut out = io::stdout();
    let ended = demo::run(&options, &clock, &mut out, |text| begin(text, &clock, args.headless));
    match ended.map(|outcome| (outcome.as_expected, out.flush())) {
        Ok((true, Ok(()))) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("serin: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Starts the proxy under the demo's configuration and hands out what the demo may touch.
fn begin(text: &str, clock: &Clock, headless: bool) -> Result<Running, String> {
    let config = config::parse(text, "demo", &|_| None).map_err(|faults| faults.to_string())?;
    let serin = Arc::new(start(config, None, clock).map_err(|error| error.to_string())?);
    let proxy = serin.bound.listeners.values().next().copied().ok_or("the demo has no listener")?;
    let admin = serin.bound.admin.ok_or("the demo has no admin address")?;
    let board = serin.board.clone();
    let asked = Arc::clone(&serin);
    Ok(Running {
        proxy,
        admin,
        view: Box::new(move |name| board.rollout(name)),
        command: Box::new(move |rollout, verb| command(&asked, rollout, verb)),
        stop: Box::new(move || {
            if !headless {
                wait_for_person(admin);
            }
            if let Some(serin) = Arc::into_inner(serin) {
                serin.stop();
            }
        }),
    })
}

fn command(serin: &Serin, rollout: &str, verb: &str) -> Result<(), String> {
    let command = Command {
        rollout: RolloutName::new(rollout),
        verb: Verb::parse(verb, VerbArgs::default())?,
        actor: Actor::new("demo", &[Role::Owner]),
        reason: "the demo".to_owned(),
        if_match: None,
    };
    serin.command(command).map(drop).map_err(|refused| refused.to_string())
}

/// Users and models go on until the person has seen enough.
fn wait_for_person(admin: std::net::SocketAddr) {
    say(&format!("the users go on talking; see http://{admin}/ and end with Ctrl-C"));
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        if let Ok(mut signals) = Signals::listen() {
            while signals.next().await == crate::signal::Asked::Reload {}
        }
    });
}
