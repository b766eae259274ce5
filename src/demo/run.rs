//! One scenario from beginning to end: models, proxy, users, a rollout, and whether the expected verdict came.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::model_server::ModelServer;
use super::script::{CANARY, HISTORY, PATIENCE, RATE, ROLLOUT, STABLE, Scenario, Since, USERS};
use super::users::{Feedback, Load, Population, Sight, Tally};
use crate::clock::Clock;
use crate::evaluator::view::RolloutView;

/// What to run and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which scenario.
    pub scenario: Scenario,
    /// All draws of models and users follow from it.
    pub seed: u64,
    /// No dashboard is pointed to, and the users stop as soon as the rollout has ended.
    pub headless: bool,
    /// One JSON object at the end instead of words.
    pub json: bool,
    /// How fast it goes; [`Pace::default`] but in tests.
    pub pace: Pace,
}

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long the users talk before the rollout starts.
    pub history: Duration,
    /// How often the rollout is looked at.
    pub look: Duration,
    /// How long the whole may take.
    pub patience: Duration,
    /// Requests a second.
    pub rate: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { history: HISTORY, look: Duration::from_millis(100), patience: PATIENCE, rate: RATE }
    }
}

/// A proxy that runs the demo's configuration, as `app` hands it in.
pub struct Running {
    /// Where its one listener is bound.
    pub proxy: SocketAddr,
    /// Where its admin API is bound.
    pub admin: SocketAddr,
    /// The newest view of the rollout of that name.
    pub view: View,
    /// Carries out a verb on the rollout of that name, as the local owner would.
    pub command: Command,
    /// Ends the proxy. Without `headless` this may first wait until the person has seen enough: users and models are still
    /// at work while it runs.
    pub stop: Box<dyn FnOnce()>,
}

/// Reads a rollout by name.
pub type View = Box<dyn Fn(&str) -> Option<Arc<RolloutView>>>;
/// Carries out a verb (second) on a rollout (first).
pub type Command = Box<dyn Fn(&str, &str) -> Result<(), String>>;

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("proxy", &self.proxy).field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The seed that repeats it.
    pub seed: u64,
    /// Whether the expected verdict came.
    pub as_expected: bool,
    /// The verdict that was expected.
    pub expected: String,
    /// The phase at the end.
    pub phase: String,
    /// Why, in the judge's words.
    pub reason: String,
    /// Seconds from the first request to the end.
    pub seconds: f64,
    /// Seconds from the beginning of the canary's deed to weight 0, where it was rolled back.
    pub seconds_to_zero: Option<f64>,
    /// Canary answers that were bad, as users saw them.
    pub harmed: u64,
    /// What the users saw.
    pub users: Tally,
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Sockets, threads, or the output.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The proxy did not start.
    #[error("the proxy did not start: {0}")]
    Proxy(String),
    /// The rollout refused to start.
    #[error("the rollout did not start: {0}")]
    Start(String),
}

/// Runs one scenario: starts the models, has `start_proxy` run the configuration given to it, lets users talk, starts the
/// rollout, changes the canary when its time comes, and waits for the end. Progress goes to `out`.
///
/// # Errors
/// When it could not be run at all. A wrong verdict is no error: see [`Outcome::as_expected`].
pub fn run(
    options: &Options,
    clock: &Clock,
    out: &mut dyn Write,
    start_proxy: impl FnOnce(&str) -> Result<Running, String>,
) -> Result<Outcome, DemoError> {
    let scenario = options.scenario;
    let stable = ModelServer::start(Scenario::faultless(STABLE), options.seed, clock.clone())?;
    let canary = ModelServer::start(Scenario::faultless(CANARY), options.seed.wrapping_add(1), clock.clone())?;
    let config = scenario.config(&stable.url(), &canary.url(), options.seed);
    if !options.json {
        writeln!(out, "{config}")?;
    }
    let proxy = start_proxy(&config).map_err(DemoError::Proxy)?;
    if !options.json {
        writeln!(out, "users → http://{} → {STABLE} {} · {CANARY} {}", proxy.proxy, stable.url(), canary.url())?;
        if !options.headless {
            writeln!(out, "dashboard: http://{}/", proxy.admin)?;
        }
    }
    let load = Load {
        users: USERS,
        zipf: 0.5,
        rate: options.pace.rate,
        feedback: scenario.is_scored().then_some(Feedback { admin: proxy.admin, rollout: ROLLOUT }),
        seed: options.seed.wrapping_add(2),
        ..Load::on(proxy.proxy)
    };
    let population = Population::start(load)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let watched = runtime.block_on(watch(options, clock, out, &proxy, &canary));
    let watched = match watched {
        Ok(watched) => watched,
        Err(error) => {
            (proxy.stop)();
            return Err(error);
        }
    };
    let tally = population.tally();
    let mut outcome = Outcome {
        scenario: scenario.name,
        seed: options.seed,
        as_expected: scenario.expected.is_met(&watched.phase, &watched.reason),
        expected: scenario.expected.to_string(),
        harmed: 0,
        phase: watched.phase,
        reason: watched.reason,
        seconds: watched.seconds,
        seconds_to_zero: watched.seconds_to_zero,
        users: tally,
    };
    if options.headless {
        outcome.users = population.stop();
        outcome.harmed = harmed(&outcome.users);
        report(options, &outcome, out)?;
        (proxy.stop)();
    } else {
        outcome.harmed = harmed(&outcome.users);
        report(options, &outcome, out)?;
        (proxy.stop)();
        drop(population);
    }
    Ok(outcome)
}

struct Watched {
    phase: String,
    reason: String,
    seconds: f64,
    seconds_to_zero: Option<f64>,
}

/// Starts the rollout, looks at it until it has ended, says each change.
async fn watch(
    options: &Options,
    clock: &Clock,
    out: &mut dyn Write,
    proxy: &Running,
    canary: &ModelServer,
) -> Result<Watched, DemoError> {
    let begun = clock.now();
    let mut say = |line: String| if options.json { Ok(()) } else { writeln!(out, "{line}").and_then(|()| out.flush()) };
    let mut deed_at = None;
    if options.scenario.since == Since::Start {
        canary.set(options.scenario.canary());
    }
    say(format!("{:>6.1} s  users talk to {STABLE}", 0.0))?;
    tokio::time::sleep(options.pace.history).await;
    (proxy.command)(ROLLOUT, "start").map_err(DemoError::Start)?;
    if options.scenario.since == Since::Start {
        deed_at = Some(clock.now());
    }
    let mut ticks = tokio::time::interval(options.pace.look);
    let mut last = (String::new(), String::new());
    let mut last_reason = String::new();
    loop {
        ticks.tick().await;
        let seconds = clock.now().since(begun).as_secs_f64();
        let Some(view) = (proxy.view)(ROLLOUT) else { continue };
        let shown = (view.phase.to_owned(), format!("{:.1}", view.weight));
        if shown != last {
            say(format!("{seconds:>6.1} s  {:<11} {:>5.1} %  {}", view.phase, view.weight, view.why))?;
            last = shown;
        }
        if let Since::Weight(weight) = options.scenario.since
            && deed_at.is_none()
            && view.weight >= weight
        {
            canary.set(options.scenario.canary());
            deed_at = Some(clock.now());
            say(format!("{seconds:>6.1} s  the canary changes: {}", options.scenario.about))?;
        }
        last_reason = reason_of(&view).unwrap_or(last_reason);
        let stuck = seconds > options.pace.patience.as_secs_f64();
        if stuck || matches!(view.phase, "completed" | "rolled_back") {
            let zero = (view.phase == "rolled_back").then_some(deed_at).flatten();
            return Ok(Watched {
                phase: if stuck { format!("{} (stuck)", view.phase) } else { view.phase.to_owned() },
                reason: if view.phase == "rolled_back" { last_reason } else { view.why.clone() },
                seconds,
                seconds_to_zero: zero.map(|at| clock.now().since(at).as_secs_f64()),
            });
        }
    }
}

/// The latch's words, or else the names of the gates that fail.
fn reason_of(view: &RolloutView) -> Option<String> {
    if let Some(latch) = &view.latch {
        return Some(format!("{}: {}", latch.actor, latch.reason));
    }
    (view.verdict == "rollback").then(|| view.verdict_reason.clone())
}

fn harmed(tally: &Tally) -> u64 {
    tally.versions.get(CANARY).map_or(0, |canary| canary.answers() - canary.saw(Sight::Good))
}

fn report(options: &Options, outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    if options.json {
        let text = serde_json::to_string(outcome).map_err(io::Error::other)?;
        return writeln!(out, "{text}");
    }
    writeln!(out, "\n{} · {}", outcome.phase, outcome.reason)?;
    if let Some(seconds) = outcome.seconds_to_zero {
        writeln!(out, "weight 0 after {seconds:.1} s of it; {} bad answers reached users of {CANARY}", outcome.harmed)?;
    }
    for (version, seen) in &outcome.users.versions {
        let sights: BTreeMap<String, u64> = seen.sights.iter().map(|(sight, n)| (format!("{sight:?}"), *n)).collect();
        let mean_ms = seen.total_ms / seen.answers().max(1) as f64;
        writeln!(out, "  {version:<8} {:>7} answers  mean {mean_ms:>6.1} ms  {sights:?}", seen.answers())?;
    }
    for (way, count) in &outcome.users.moves {
        writeln!(out, "  {count} users moved {way}")?;
    }
    let word = if outcome.as_expected { "as expected" } else { "NOT as expected" };
    writeln!(out, "{word}: {} (seed {}, {:.1} s)", outcome.expected, outcome.seed, outcome.seconds)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::super::script::Expected;
    use super::*;
    use crate::evaluator::view::{Arms, Exposed, LatchView};

    fn view(phase: &'static str, weight: f64, latch: Option<&str>) -> Arc<RolloutView> {
        Arc::new(RolloutView {
            name: ROLLOUT.to_owned(),
            phase,
            why: format!("{phase} for a test"),
            verdict: "hold",
            verdict_reason: String::new(),
            generation: 1,
            weight,
            weight_actual: None,
            stages: vec![10.0, 50.0, 100.0],
            stage: None,
            started_by: None,
            paused: None,
            soak_ends_at: None,
            next_version: None,
            latch: latch.map(|reason| LatchView {
                at: String::new(),
                actor: "judge".to_owned(),
                reason: reason.to_owned(),
            }),
            arms: Arms::default(),
            gates: Vec::new(),
            exposed: Exposed::default(),
            drill: None,
            confirm: None,
            register: None,
            heartbeat_age_s: 0.0,
            allowed: Vec::new(),
        })
    }

    /// Runs a scenario against a stand-in for the proxy that sends everybody to the model at `which` and shows `views` in order.
    fn play(name: &str, views: Vec<Arc<RolloutView>>, json: bool) -> (Outcome, String, Vec<String>) {
        let options = Options {
            scenario: Scenario::find(name).unwrap(),
            seed: 9,
            headless: true,
            json,
            pace: Pace {
                history: Duration::from_millis(5),
                look: Duration::from_millis(2),
                patience: Duration::from_millis(400),
                rate: 2_000.0,
            },
        };
        let verbs = Rc::new(RefCell::new(Vec::new()));
        let mut out = Vec::new();
        let heard = verbs.clone();
        let outcome = run(&options, &Clock::system(), &mut out, |config| {
            let table: toml::Table = config.parse().unwrap();
            let endpoint = table["rollouts"][ROLLOUT]["canary"]["endpoints"][0].as_str().unwrap();
            let addr: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
            let next = Cell::new(0);
            let stopped = heard.clone();
            Ok(Running {
                proxy: addr,
                admin: addr,
                view: Box::new(move |_| {
                    let index = next.replace(next.get() + 1).min(views.len() - 1);
                    Some(views[index].clone())
                }),
                command: Box::new(move |rollout, verb| {
                    heard.borrow_mut().push(format!("{verb} {rollout}"));
                    Ok(())
                }),
                stop: Box::new(move || stopped.borrow_mut().push("stop".to_owned())),
            })
        });
        let verbs = verbs.borrow().clone();
        (outcome.unwrap(), String::from_utf8(out).unwrap(), verbs)
    }

    #[test]
    fn a_rollout_that_completes_is_expected_of_the_good_canary_only() {
        let views = || vec![view("running", 10.0, None), view("running", 50.0, None), view("completed", 100.0, None)];
        let (good, text, verbs) = play("good", views(), false);
        assert!(good.as_expected && text.contains("\nas expected: completed"), "{text}");
        assert_eq!(verbs, ["start demo", "stop"]);
        let (bad, text, _) = play("errors", views(), false);
        assert!(!bad.as_expected && text.contains("NOT as expected: rolled back by error_rate or breaker"), "{text}");
    }

    #[test]
    fn the_policy_is_printed_first_and_each_change_once() {
        let views = vec![view("running", 10.0, None), view("running", 10.0, None), view("completed", 100.0, None)];
        let (_, text, _) = play("good", views, false);
        assert!(text.starts_with("# serin demo --scenario good --seed 9\n"), "{text}");
        assert_eq!((text.matches("running for a test").count(), text.matches("soak = ").count()), (1, 1), "{text}");
    }

    #[test]
    fn the_canary_changes_when_its_weight_is_reached() {
        let rolled = || view("rolled_back", 0.0, Some("error_rate/hard: 9 of 12"));
        let (early, ..) = play("errors", vec![view("running", 10.0, None), rolled()], false);
        assert_eq!(early.seconds_to_zero, None, "it never reached its weight");
        let mut views = vec![view("running", 50.0, None); 30];
        views.push(rolled());
        let (late, text, _) = play("errors", views, false);
        assert!(late.as_expected && late.seconds_to_zero.is_some_and(|s| s > 0.0), "{late:?}");
        assert!(text.contains("the canary changes") && late.harmed > 0, "{text}");
    }

    #[test]
    fn a_rollback_for_another_reason_is_not_the_expected_one() {
        let views = vec![view("running", 10.0, None), view("rolled_back", 0.0, Some("error_rate: 3 of 9"))];
        let (outcome, ..) = play("latency", views, false);
        assert!(!outcome.as_expected, "{outcome:?}");
    }

    #[test]
    fn a_rollout_that_stands_still_is_given_up_and_never_expected() {
        for scenario in super::super::script::SCENARIOS {
            if scenario.expected == Expected::Completed {
                let (outcome, ..) = play(scenario.name, vec![view("running", 10.0, None)], false);
                assert!(!outcome.as_expected && outcome.phase.contains("stuck"), "{outcome:?}");
            }
        }
    }

    #[test]
    fn json_is_one_object_and_nothing_else() {
        let (outcome, text, _) = play("good", vec![view("completed", 100.0, None)], true);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["scenario"], &value["as_expected"]), (&"good".into(), &true.into()));
        assert_eq!(value["users"]["sent"], outcome.users.sent);
    }
}
