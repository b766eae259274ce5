//! Commands that a running serin is asked: reads, verbs, and the waiting of `status` and `get --watch`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::{Globals, Output};
use super::client::{Client, Failure, encoded};
use super::register;
use super::screen::{self, Paint};
use super::seen::Rollout;
use crate::config::duration::show_duration;

/// How often `status` and `--watch` look.
const LOOK: Duration = Duration::from_millis(500);
/// How long `status` bears a serin that does not answer (a restart).
const SILENCE: Duration = Duration::from_secs(30);

/// A command for a running serin.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    /// Where, who, and for whom.
    pub globals: Globals,
    /// The rollout; empty where none is meant.
    pub name: String,
    /// What.
    pub deed: Deed,
}

/// What a running serin is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// All rollouts.
    List,
    /// One rollout.
    Get {
        /// Again whenever it changes.
        watch: bool,
    },
    /// Wait until it ends.
    Status {
        /// So long at most.
        timeout: Option<Duration>,
    },
    /// The verdict in words.
    Explain,
    /// The records of what was decided.
    Report,
    /// What the register holds of a rollout.
    Registered,
    /// Write a file's entries into it.
    Register {
        /// The configuration.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Where a unit goes.
    Which {
        /// The unit.
        unit: String,
    },
    /// A verb.
    Verb {
        /// Its name.
        verb: &'static str,
        /// Why.
        reason: String,
        /// `promote --full`.
        full: bool,
        /// `extend --by`.
        by: Option<Duration>,
    },
    /// A weight by hand.
    SetWeight {
        /// Percent.
        percent: f64,
        /// Why.
        reason: String,
    },
    /// Load the configuration again.
    Reload,
}

impl Deed {
    /// A verb with a reason alone.
    #[must_use]
    pub fn verb(verb: &'static str, reason: String) -> Self {
        Self::Verb { verb, reason, full: false, by: None }
    }
}

/// Where a command writes.
pub struct Streams<'a> {
    /// Data.
    pub out: &'a mut dyn Write,
    /// Words.
    pub err: &'a mut dyn Write,
    /// Whether `out` is a terminal that is redrawn and coloured.
    pub terminal: bool,
}

/// Asks, shows the answer, and says how it went.
pub async fn ask(remote: &Remote, streams: &mut Streams<'_>) -> ExitCode {
    let asking = Asking { remote, paint: Paint(remote.globals.color && streams.terminal) };
    match asking.go(streams).await {
        Ok(code) => ExitCode::from(code),
        Err(Trouble::Failure(failure)) => {
            drop(writeln!(streams.err, "serin: {failure}"));
            ExitCode::from(failure.exit_code())
        }
        // The reader has gone: a closed pipe is no failure of ours.
        Err(Trouble::Pipe) => ExitCode::SUCCESS,
    }
}

enum Trouble {
    Failure(Failure),
    Pipe,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(_: std::io::Error) -> Self {
        Self::Pipe
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Items {
    items: Vec<Rollout>,
}

struct Asking<'a> {
    remote: &'a Remote,
    paint: Paint,
}

impl Asking<'_> {
    async fn go(&self, streams: &mut Streams<'_>) -> Result<u8, Trouble> {
        let client = Client::new(&self.remote.globals)?;
        let path = self.path();
        match &self.remote.deed {
            Deed::List => {
                let json = client.get("/api/v1/rollouts").await?;
                let items = read::<Items>(&json)?.items;
                self.show(streams, &json, || screen::list(&items, self.paint))?;
            }
            Deed::Get { watch: false } => {
                let json = client.get(&path).await?;
                let rollout = read(&json)?;
                self.show(streams, &json, || screen::one(&rollout, self.paint))?;
            }
            Deed::Get { watch: true } => return self.watch(&client, streams).await,
            Deed::Status { timeout } => return self.status(&client, *timeout, streams).await,
            Deed::Explain => {
                let json = client.get(&path).await?;
                let rollout = read(&json)?;
                self.show(streams, &json, || screen::explain(&rollout, self.paint))?;
            }
            Deed::Report => {
                let format = match self.remote.globals.output {
                    Output::Json => "json",
                    Output::Html => "html",
                    Output::Human | Output::Md => "md",
                };
                let text = client.text(&format!("{path}/report?format={format}")).await?;
                streams.out.write_all(&text)?;
                streams.out.flush()?;
            }
            Deed::Registered => {
                let json = client.get(&format!("{path}/register")).await?;
                let text = register::screen(&json).ok_or_else(|| misread("its shape is another"))?;
                self.show(streams, &json, || text)?;
            }
            Deed::Register { file, reason } => return self.register(&client, file, reason, streams).await,
            Deed::Which { unit } => {
                let json = client.get(&format!("{path}/which?unit={}", encoded(unit))).await?;
                self.show(streams, &json, || {
                    let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
                    format!("{} ({}): {}\n", text("arm"), text("version"), text("explanation"))
                })?;
            }
            Deed::Reload => {
                let json = client.send(Method::POST, "/api/v1/reload", None).await?;
                self.show(streams, &json, || "the configuration is loaded anew\n".to_owned())?;
            }
            Deed::Verb { verb, reason, full, by } => {
                let mut body = json!({ "reason": reason });
                if *full {
                    body["full"] = json!(true);
                }
                if let Some(by) = by {
                    body["by"] = json!(show_duration(*by));
                }
                let json = client.send(Method::POST, &format!("{path}/{verb}"), Some(&body)).await?;
                if *verb == "drill" {
                    return self.drilled(streams, &json);
                }
                self.done(streams, &json)?;
            }
            Deed::SetWeight { percent, reason } => {
                let body = json!({ "weight": percent, "reason": reason });
                let json = client.send(Method::PUT, &format!("{path}/weight"), Some(&body)).await?;
                self.done(streams, &json)?;
            }
        }
        Ok(0)
    }

    fn path(&self) -> String {
        format!("/api/v1/rollouts/{}", encoded(&self.remote.name))
    }

    fn show(&self, streams: &mut Streams<'_>, json: &Value, human: impl FnOnce() -> String) -> Result<(), Trouble> {
        let text = match self.remote.globals.output {
            Output::Json => format!("{json}\n"),
            Output::Human | Output::Md | Output::Html => human(),
        };
        streams.out.write_all(text.as_bytes())?;
        streams.out.flush()?;
        Ok(())
    }

    fn done(&self, streams: &mut Streams<'_>, json: &Value) -> Result<(), Trouble> {
        let rollout = read(json)?;
        self.show(streams, json, || screen::transition(&rollout, self.paint))
    }

    /// Writes every entry of a file, one rollout after the other; the first refusal ends it.
    async fn register(
        &self,
        client: &Client,
        file: &Path,
        reason: &str,
        streams: &mut Streams<'_>,
    ) -> Result<u8, Trouble> {
        let entries = match register::entries(file, &self.remote.name) {
            Ok(entries) => entries,
            Err(why) => {
                writeln!(streams.err, "serin: {why}")?;
                return Ok(1);
            }
        };
        for (name, entry) in entries {
            let body = json!({ "reason": reason, "entry": entry });
            let path = format!("/api/v1/rollouts/{}/register", encoded(&name));
            let json = client.send(Method::PUT, &path, Some(&body)).await?;
            self.show(streams, &json, || format!("{name} registered {}\n", register::line(&entry)))?;
        }
        Ok(0)
    }

    /// How a drill went; one that failed is no success.
    fn drilled(&self, streams: &mut Streams<'_>, json: &Value) -> Result<u8, Trouble> {
        let rollout: Rollout = read(json)?;
        self.show(streams, json, || screen::drilled(&rollout))?;
        Ok(u8::from(rollout.drill.is_none_or(|drill| drill.failed.is_some())))
    }

    /// Draws the rollout again whenever it changes, until the person leaves.
    async fn watch(&self, client: &Client, streams: &mut Streams<'_>) -> Result<u8, Trouble> {
        let human = self.remote.globals.output == Output::Human;
        let mut last = String::new();
        loop {
            let json = client.get(&self.path()).await?;
            let rollout: Rollout = read(&json)?;
            let screen = if human { screen::one(&rollout, self.paint) } else { key(&rollout) };
            if screen != last {
                if human && streams.terminal {
                    streams.out.write_all(b"\x1b[H\x1b[2J")?;
                } else if human && !last.is_empty() {
                    streams.out.write_all(b"\n")?;
                }
                self.show(streams, &json, || screen.clone())?;
                last = screen;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the rollout ends; a line a transition.
    async fn status(
        &self,
        client: &Client,
        timeout: Option<Duration>,
        streams: &mut Streams<'_>,
    ) -> Result<u8, Trouble> {
        let begun = tokio::time::Instant::now();
        let mut heard = begun;
        let mut last: Option<Rollout> = None;
        loop {
            match client.get(&self.path()).await {
                Ok(json) => {
                    heard = tokio::time::Instant::now();
                    let rollout: Rollout = read(&json)?;
                    if last.as_ref().map(key) != Some(key(&rollout)) {
                        self.show(streams, &json, || screen::transition(&rollout, self.paint))?;
                    }
                    if let Some(code) = ended(last.as_ref(), &rollout) {
                        return Ok(code);
                    }
                    last = Some(rollout);
                }
                Err(Failure::Unreachable { .. }) if last.is_some() && heard.elapsed() < SILENCE => {}
                Err(failure) => return Err(failure.into()),
            }
            if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
                let phase = last.map_or_else(String::new, |rollout| rollout.phase);
                writeln!(streams.err, "serin: timed out; {} is {phase}", self.remote.name)?;
                return Ok(4);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What of a rollout is a transition when it changes.
fn key(rollout: &Rollout) -> String {
    let stage = rollout.stage.as_ref().map(|stage| stage.index);
    let latched = rollout.latch.is_some();
    let held: Vec<&str> =
        rollout.confirm.iter().flat_map(|confirm| &confirm.holds).map(|held| held.gate.as_str()).collect();
    format!("{} {} {stage:?} {latched} {:?} {held:?}", rollout.phase, rollout.weight, rollout.paused)
}

/// The exit code of a rollout that has ended: 0 all on the canary (or nothing runs), 3 rolled back or aborted.
fn ended(before: Option<&Rollout>, now: &Rollout) -> Option<u8> {
    match now.phase.as_str() {
        "completed" => Some(0),
        "rolled_back" => Some(3),
        // Idle after completed: the configuration took the canary as stable. Idle after anything else: it was taken out.
        "idle" => match before.map(|rollout| rollout.phase.as_str()) {
            None | Some("completed" | "soaking" | "idle") => Some(0),
            Some(_) => Some(3),
        },
        _ => None,
    }
}

fn read<T: for<'de> Deserialize<'de>>(json: &Value) -> Result<T, Trouble> {
    T::deserialize(json).map_err(|error| misread(&error.to_string()))
}

fn misread(why: &str) -> Trouble {
    let why = format!("its answer is not what was expected: {why}");
    Trouble::Failure(Failure::Unreachable { place: "the admin API".to_owned(), why })
}

/// Runs [`ask`] on a small runtime of its own, with the process's streams.
///
/// # Errors
/// The machine gives no runtime.
pub fn ask_blocking(remote: &Remote) -> std::io::Result<ExitCode> {
    use std::io::IsTerminal;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let terminal = out.is_terminal();
    let mut streams = Streams { out: &mut out, err: &mut err, terminal };
    Ok(runtime.block_on(ask(remote, &mut streams)))
}
