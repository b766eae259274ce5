//! What may be typed, and what it means.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::local::Local;
use super::remote::{Deed, Remote};
use crate::config::duration::parse_duration;

/// What the process is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Serve.
    Run {
        /// The configuration.
        config: PathBuf,
    },
    /// All faults of a configuration.
    Check {
        /// The configuration.
        config: PathBuf,
        /// For people or machines.
        output: Output,
    },
    /// A whole rollout in one process.
    Demo(DemoArgs),
    /// The judge over a recorded trace.
    Replay(ReplayArgs),
    /// How long stages must last.
    Plan(PlanArgs),
    /// The records of a rollout, from a journal's files.
    Report(ReportArgs),
    /// Something that needs neither a serin nor its parts.
    Local(Local),
    /// Something that a running serin is asked.
    Remote(Remote),
}

/// What every command knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// Where the admin API is.
    pub admin: String,
    /// The token to send.
    pub token: Token,
    /// A PEM authority for `https://`.
    pub ca: Option<PathBuf>,
    /// For people or machines.
    pub output: Output,
    /// Whether colours may be used where the terminal can.
    pub color: bool,
}

/// Where the token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Nowhere.
    None,
    /// From the environment.
    Given(crate::config::Secret),
    /// From a file.
    File(PathBuf),
}

/// For whom the answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// People.
    #[default]
    Human,
    /// Machines.
    Json,
    /// `report` alone: text with tables, which is also what people get.
    Md,
    /// `report` alone: one page that needs nothing else.
    Html,
}

/// What the demo is to show.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// What the canary does
    #[arg(long, default_value = "good",
        value_parser = ["good", "errors", "latency", "quality", "cost", "cut-streams", "safety"])]
    pub scenario: String,
    /// No dashboard, no waiting for a person
    #[arg(long)]
    pub headless: bool,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// One JSON line an event instead of sentences
    #[arg(long)]
    pub json: bool,
}

/// What is replayed under which policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayArgs {
    /// The policy.
    pub policy: ReplayPolicy,
    /// The trace, `.jsonl` or `.jsonl.gz`.
    pub trace: PathBuf,
}

/// Where a replay's policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayPolicy {
    /// A policy file.
    File(PathBuf),
    /// A rollout of a configuration.
    Rollout {
        /// The configuration.
        config: PathBuf,
        /// The rollout.
        rollout: String,
        /// The stage that the trace begins in, from 0.
        from_stage: usize,
    },
}

/// What `plan` computes with.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanArgs {
    /// The configuration.
    pub config: PathBuf,
    /// Requests a second that are expected, of each rollout.
    pub rps: f64,
    /// What stable did, as recorded; without it assumptions stand.
    pub trace: Option<PathBuf>,
    /// Different users a day; a trace says how unequal they are, not how many come.
    pub users: f64,
    /// How much less than independent a user's requests are.
    pub design_effect: Option<f64>,
    /// The share of requests that the heaviest user has, 0 to 1.
    pub heaviest: Option<f64>,
    /// Stable's share of bad events, 0 to 1, by gate.
    pub base: Vec<(String, f64)>,
    /// For people or machines.
    pub output: Output,
}

/// What `report` reads without a running serin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportArgs {
    /// The rollout.
    pub name: String,
    /// The store, its journal's directory, or one segment.
    pub journal: PathBuf,
    /// How it is rendered.
    pub output: Output,
}

/// Releases AI services safely: sticky split, measured on every answer, judged, rolled back.
#[derive(Debug, Parser)]
#[command(name = "serin", version, max_term_width = 100)]
struct Typed {
    #[command(flatten)]
    globals: TypedGlobals,
    #[command(subcommand)]
    command: TypedCommand,
}

#[derive(Debug, Args)]
struct TypedGlobals {
    /// The admin API: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, global = true, env = "SERIN_ADMIN", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    admin: String,
    /// A file that holds the token (or put the token into SERIN_TOKEN)
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[arg(long, global = true, env = "SERIN_TOKEN", hide = true, hide_env_values = true)]
    token: Option<String>,
    /// PEM authorities for https:// instead of the machine's
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For people or machines
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,
    /// No colours (also NO_COLOR)
    #[arg(long, global = true)]
    no_color: bool,
    /// The configuration
    #[arg(short, long, global = true, env = "SERIN_CONFIG", default_value = "serin.toml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum TypedCommand {
    /// Serve
    Run,
    /// Name all faults of a configuration at once
    Check {
        /// The configuration (or -c)
        file: Option<PathBuf>,
    },
    /// Watch a whole rollout on this machine, in about a minute
    Demo(DemoArgs),
    /// All rollouts, a line each
    List,
    /// One rollout in full
    Get {
        name: String,
        /// Again whenever it changes
        #[arg(short, long)]
        watch: bool,
    },
    /// Wait until a rollout ends; the exit code says how (0 good, 3 rolled back, 4 timed out)
    Status {
        name: String,
        /// Wait so long at most, for example 30m
        #[arg(long, value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Enter the first stage
    Start(Verb),
    /// Sign that the stage may be left
    Approve(Verb),
    /// Skip this stage's residence and gates; never an approval
    Promote {
        #[command(flatten)]
        verb: Verb,
        /// To the last stage (owner)
        #[arg(long)]
        full: bool,
    },
    /// Stand at this weight
    Pause(Verb),
    /// Go on
    Resume(Verb),
    /// Back to the stage before, with fresh evidence
    StepBack(Verb),
    /// Watch longer
    Extend {
        #[command(flatten)]
        verb: Verb,
        /// How much longer, for example 24h
        #[arg(long, value_parser = duration)]
        by: Duration,
    },
    /// Set the weight by hand: needs no proof, is recorded as unproven, pauses the plan
    #[command(subcommand)]
    Set(TypedSet),
    /// Weight 0 now, latched; works without the evaluator
    Abort(Verb),
    /// Lift the latch after a review; the reason is the root cause
    Clear {
        name: String,
        /// The root cause
        #[arg(long)]
        reason: String,
    },
    /// Rehearse a rollback without touching users
    Drill(Verb),
    /// Take the file's changed gates into a running rollout (owner); the evidence starts anew
    Gates {
        name: String,
        /// Why the gates change in mid-flight
        #[arg(long)]
        reason: String,
    },
    /// The verdict in words and numbers
    Explain { name: String },
    /// Where one unit goes and why
    Which {
        name: String,
        /// The unit: a user, session or tenant
        #[arg(long)]
        unit: String,
    },
    /// Load the configuration again, all or nothing
    Reload,
    /// How long stages must last to see the configured regression
    Plan {
        /// Requests a second that are expected of each rollout
        #[arg(long, value_parser = positive)]
        rps: f64,
        /// A recorded trace: what stable did there is taken instead of assumptions
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
        /// Different users a day
        #[arg(long, value_parser = positive, default_value = "10000")]
        users: f64,
        /// How much less than independent a user's requests are, 1 at least [default: 1.2, or the trace's]
        #[arg(long, value_parser = positive)]
        design_effect: Option<f64>,
        /// The heaviest user's requests, percent [default: 1, or the trace's]
        #[arg(long, value_parser = percent)]
        heaviest: Option<f64>,
        /// Stable's bad events in percent, for example error_rate=0.5; may be repeated
        #[arg(long, value_name = "GATE=PERCENT", value_parser = base)]
        base: Vec<(String, f64)>,
    },
    /// Judge a recorded trace, offline
    Replay {
        /// A policy file; without it -c and --rollout
        #[arg(long, conflicts_with_all = ["rollout", "from_stage"], required_unless_present = "rollout")]
        policy: Option<PathBuf>,
        /// The rollout of the configuration whose gates judge
        #[arg(long)]
        rollout: Option<String>,
        /// The stage that the trace begins in, from 0
        #[arg(long, default_value_t = 0)]
        from_stage: usize,
        /// .jsonl or .jsonl.gz
        trace: PathBuf,
    },
    /// Write what the configuration says of its versions into the register, or show what is there
    Register {
        /// The rollout; without it all that have an entry
        #[arg(default_value = "")]
        name: String,
        /// Show the register instead of writing
        #[arg(long, requires = "name", conflicts_with = "reason")]
        show: bool,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// The governance records of a rollout: initiation, promotions, incident, completion, exposure
    Report {
        name: String,
        /// Read this store, journal or segment instead of asking a running serin
        #[arg(long, value_name = "PATH")]
        journal: Option<PathBuf>,
    },
    /// Records of what was decided
    #[command(subcommand)]
    Journal(TypedJournal),
    /// Write a first configuration to stdout
    Init {
        /// Where the stable version answers
        #[arg(long, value_name = "URL")]
        stable: String,
        /// Where the canary answers
        #[arg(long, value_name = "URL")]
        canary: String,
    },
    /// Completions for a shell, on stdout
    Completions { shell: clap_complete::Shell },
    /// The version of serin
    Version,
}

#[derive(Debug, Args)]
struct Verb {
    name: String,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, Subcommand)]
enum TypedSet {
    /// The canary's weight
    Weight {
        name: String,
        /// 0 to 100, in steps of 0.001
        #[arg(value_parser = percent)]
        percent: f64,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
enum TypedJournal {
    /// Check the hash chain of a journal's directory, and who signed it
    Verify {
        file: PathBuf,
        /// The public half (PEM) of a key that may have signed; may be repeated. Without it signatures are not looked at
        #[arg(long, value_name = "PEM")]
        key: Vec<PathBuf>,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|why| format!("{why}; write it as 90s, 30m, 24h"))
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("is not above 0".to_owned()) }
}

fn base(text: &str) -> Result<(String, f64), String> {
    let (gate, share) = text.split_once('=').ok_or("is not GATE=PERCENT")?;
    let share = percent(share.trim_end_matches('%').trim())? / 100.0;
    if share > 0.0 && share < 1.0 {
        Ok((gate.trim().to_owned(), share))
    } else {
        Err("its share is not between 0 and 100 %".to_owned())
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&percent) {
        Ok(percent)
    } else {
        Err("a weight is a percentage from 0 to 100".to_owned())
    }
}

/// Reads the process's arguments and environment.
///
/// # Errors
/// The exit code, after usage, help or the version has been printed.
pub fn parse() -> Result<Command, ExitCode> {
    parse_from(std::env::args_os()).map_err(|error| {
        // Nobody is left to be told when stderr is gone.
        drop(error.print());
        ExitCode::from(if error.use_stderr() { 2 } else { 0 })
    })
}

/// Reads these arguments; the first is the program's name.
///
/// # Errors
/// Usage, help or version, as clap says it.
pub fn parse_from(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Command, clap::Error> {
    let Typed { globals: typed, command } = Typed::try_parse_from(args)?;
    let config = typed.config.clone();
    let globals = Globals::from(typed);
    if matches!(globals.output, Output::Md | Output::Html) && !matches!(command, TypedCommand::Report { .. }) {
        let why = "-o md and -o html are forms of a report; other commands take human or json";
        return Err(Typed::command().error(clap::error::ErrorKind::ValueValidation, why));
    }
    let verb = |verb: &'static str, typed: Verb| (typed.name, Deed::verb(verb, typed.reason));
    let (name, deed) = match command {
        TypedCommand::Run => return Ok(Command::Run { config }),
        TypedCommand::Check { file } => {
            return Ok(Command::Check { config: file.unwrap_or(config), output: globals.output });
        }
        TypedCommand::Demo(demo) => return Ok(Command::Demo(demo)),
        TypedCommand::Plan { rps, trace, users, design_effect, heaviest, base } => {
            return Ok(Command::Plan(PlanArgs {
                config,
                rps,
                trace,
                users,
                design_effect,
                heaviest: heaviest.map(|percent| percent / 100.0),
                base,
                output: globals.output,
            }));
        }
        TypedCommand::Replay { policy, rollout, from_stage, trace } => {
            let policy = match (policy, rollout) {
                (Some(file), _) => ReplayPolicy::File(file),
                (None, rollout) => ReplayPolicy::Rollout { config, rollout: rollout.unwrap_or_default(), from_stage },
            };
            return Ok(Command::Replay(ReplayArgs { policy, trace }));
        }
        TypedCommand::Journal(TypedJournal::Verify { file, key }) => {
            return Ok(Command::Local(Local::JournalVerify { path: file, keys: key, output: globals.output }));
        }
        TypedCommand::Init { stable, canary } => return Ok(Command::Local(Local::Init { stable, canary })),
        TypedCommand::Completions { shell } => return Ok(Command::Local(Local::Completions(shell))),
        TypedCommand::Version => return Ok(Command::Local(Local::Version(globals.output))),
        TypedCommand::List => (String::new(), Deed::List),
        TypedCommand::Reload => (String::new(), Deed::Reload),
        TypedCommand::Get { name, watch } => (name, Deed::Get { watch }),
        TypedCommand::Status { name, timeout } => (name, Deed::Status { timeout }),
        TypedCommand::Report { name, journal: Some(journal) } => {
            return Ok(Command::Report(ReportArgs { name, journal, output: globals.output }));
        }
        TypedCommand::Report { name, journal: None } => (name, Deed::Report),
        TypedCommand::Register { name, show: true, .. } => (name, Deed::Registered),
        TypedCommand::Register { name, show: false, reason } => (name, Deed::Register { file: config, reason }),
        TypedCommand::Explain { name } => (name, Deed::Explain),
        TypedCommand::Which { name, unit } => (name, Deed::Which { unit }),
        TypedCommand::Start(typed) => verb("start", typed),
        TypedCommand::Approve(typed) => verb("approve", typed),
        TypedCommand::Pause(typed) => verb("pause", typed),
        TypedCommand::Resume(typed) => verb("resume", typed),
        TypedCommand::StepBack(typed) => verb("step-back", typed),
        TypedCommand::Abort(typed) => verb("abort", typed),
        TypedCommand::Drill(typed) => verb("drill", typed),
        TypedCommand::Clear { name, reason } => (name, Deed::verb("clear", reason)),
        TypedCommand::Gates { name, reason } => (name, Deed::verb("gates", reason)),
        TypedCommand::Promote { verb: typed, full } => {
            (typed.name, Deed::Verb { verb: "promote", reason: typed.reason, full, by: None })
        }
        TypedCommand::Extend { verb: typed, by } => {
            (typed.name, Deed::Verb { verb: "extend", reason: typed.reason, full: false, by: Some(by) })
        }
        TypedCommand::Set(TypedSet::Weight { name, percent, reason }) => (name, Deed::SetWeight { percent, reason }),
    };
    Ok(Command::Remote(Remote { globals, name, deed }))
}

/// The whole command line, for completions.
#[must_use]
pub fn command_line() -> clap::Command {
    Typed::command()
}

impl From<TypedGlobals> for Globals {
    fn from(typed: TypedGlobals) -> Self {
        let token = match (typed.token_file, typed.token) {
            (Some(file), _) => Token::File(file),
            (None, Some(token)) if !token.is_empty() => Token::Given(crate::config::Secret::new(token)),
            _ => Token::None,
        };
        let color = !typed.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { admin: typed.admin, token, ca: typed.ca, output: typed.output, color }
    }
}
