//! serin: parse, do, exit code.

use std::process::ExitCode;

use serin::app;
use serin::cli::{self, Command};

fn main() -> ExitCode {
    let command = match cli::parse() {
        Ok(command) => command,
        Err(code) => return code,
    };
    match command {
        Command::Run { config } => app::run::run(&config),
        Command::Check { config, output } => app::offline::check(&config, output),
        Command::Demo(args) => app::demo::run(&args),
        Command::Replay(args) => app::offline::replay(&args),
        Command::Plan(args) => app::plan::plan(&args),
        Command::Report(args) => app::offline::report(&args),
        Command::Local(local) => cli::perform(&local, &mut std::io::stdout(), &mut std::io::stderr()),
        Command::Remote(remote) => cli::ask_blocking(&remote).unwrap_or(ExitCode::FAILURE),
    }
}
