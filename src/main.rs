//! serin: parse, run, exit code.

use std::path::Path;
use std::process::ExitCode;

use serin::{app, clock::Clock, config, signal};

fn main() -> ExitCode {
    let path = std::env::args().nth(3).unwrap_or_default();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run(Path::new(&path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::from(78)
        }
    }
}

fn run(path: &Path) -> Result<(), String> {
    let config = config::load(path).map_err(|f| f.to_string())?;
    let serin = app::start(config, Some(path.to_owned()), &Clock::system()).map_err(|e| e.to_string())?;
    tracing::info!(bound = ?serin.bound, "listening");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let mut signals = signal::Signals::listen().map_err(|e| e.to_string())?;
        loop {
            match signals.next().await {
                signal::Asked::Reload => drop(serin.reload()),
                signal::Asked::End => break,
            }
        }
        Ok::<(), String>(())
    })?;
    serin.stop();
    Ok(())
}
