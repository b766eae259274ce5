//! Drills: a rollback rehearsed on the real path, with a phantom that carries nobody, and the time to zero measured.
//!
//! The phantom stands in the cell that every request reads, at 100 %. It is latched by the same compare-and-swap as a
//! real rollback; then the fence goes through every worker, and each says, by the same decision as for a request, where
//! its own view of the cell would send the phantom's unit. Zero is reached when the last of them says stable.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::evaluator::{Ask, Drilled, Letter, Mailbox};
use crate::names::{Arm, RolloutName};
use crate::proxy::fence::Fences;
use crate::snapshot::{Latch, Live};

/// Drills that may wait for the one under way.
const WAITING: usize = 64;

/// How often a silent worker is asked again before the phantom is latched.
const PATIENT: usize = 5;
const LATE: &str = "a worker did not answer in time";

/// Starts the thread that carries out drills, one after the other; it ends when nobody can ask for one any more.
///
/// # Errors
/// The system gives no thread.
pub(super) fn spawn(
    live: Live,
    fences: Fences,
    mailbox: Mailbox,
    clock: Clock,
) -> io::Result<(SyncSender<RolloutName>, JoinHandle<()>)> {
    let (ask, asked) = sync_channel::<RolloutName>(WAITING);
    let handle = std::thread::Builder::new().name("serin-drill".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(error = %error, "no drill can be carried out"),
        };
        while let Ok(rollout) = asked.recv() {
            let (took, failed) = match runtime.block_on(rehearse(&live, &fences, &clock, &rollout)) {
                Ok(took) => (took, None),
                Err(why) => (Duration::ZERO, Some(why)),
            };
            live.update(crate::snapshot::Snapshot::unrehearsed);
            let letter = Letter { ask: Ask::Drilled(Drilled { rollout, took, failed }), answer: Box::new(|_| ()) };
            if mailbox.post(letter).is_err() {
                tracing::warn!("the evaluator was not told of a drill's end; it will count as failed");
            }
        }
    })?;
    Ok((ask, handle))
}

async fn rehearse(live: &Live, fences: &Fences, clock: &Clock, rollout: &RolloutName) -> Result<Duration, String> {
    let armed = live.update(|current| current.rehearsing(rollout.as_str()));
    if armed.rehearsed_arm() != Some(Arm::Canary) {
        return Err("no phantom could be set up".to_owned());
    }
    // Right after the start the workers may still be on their way.
    let mut ready = everywhere(fences, Arm::Canary).await;
    for _ in 0..PATIENT {
        if ready != Err(LATE.to_owned()) {
            break;
        }
        ready = everywhere(fences, Arm::Canary).await;
    }
    ready.map_err(|why| format!("before the latch, {why}"))?;
    let latch = Arc::new(Latch { at: clock.wall(), actor: "drill".to_owned(), reason: "a drill".to_owned() });
    let begun = clock.now();
    live.update(|current| current.rehearsed(&latch));
    everywhere(fences, Arm::Stable).await.map_err(|why| format!("after the latch, {why}"))?;
    Ok(clock.now().since(begun))
}

/// Goes through every worker; each must send the phantom's unit to this arm.
async fn everywhere(fences: &Fences, wanted: Arm) -> Result<(), String> {
    let seen = fences.clone().pass().await.ok_or(LATE)?;
    match seen.iter().position(|arm| *arm != Some(wanted)) {
        None if seen.is_empty() => Err("there is no worker".to_owned()),
        None => Ok(()),
        Some(worker) => {
            let saw = seen.get(worker).copied().flatten().map_or("nothing", Arm::as_str);
            Err(format!("worker {worker} would have sent its unit to {saw}, not to {wanted}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Wall;
    use crate::proxy::fence;

    const FILE: &str = "[listeners.e]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[rollouts.chat]\nunit = [\"ip\"]\nweight = 5.0\nstable = { version = \"a\", endpoints = [\"http://127.0.0.1:1\"] }\ncanary = { version = \"b\", endpoints = [\"http://127.0.0.1:2\"] }\n";

    fn live() -> Live {
        let config = Arc::new(crate::config::parse(FILE, "t", &|_| None).unwrap());
        let registry = Arc::new(crate::upstream::Registry::default());
        let recorders = Arc::new(crate::measure::Recorders::new(1));
        let prepared = crate::snapshot::Builder::new(registry, recorders, b"s").prepare(config).unwrap();
        Live::new(prepared.merge(|_| crate::snapshot::Runtime::default()))
    }

    /// A worker that answers each fence from its own view of `live`, or from a picture that never changes.
    async fn worker(live: Live, mut asked: fence::Asked, stuck: bool) {
        let mut cache = live.cache();
        let first = live.load();
        while let Some(done) = asked.recv().await {
            let seen = if stuck { first.rehearsed_arm() } else { cache.load().rehearsed_arm() };
            done.send(seen).unwrap();
        }
    }

    async fn drill(stuck: bool) -> (Result<Duration, String>, Live) {
        let (live, clock) = (live(), Clock::manual(Wall(1)));
        let (fences, asked) = fence::fences(2);
        let rollout = RolloutName::new("chat");
        let local = tokio::task::LocalSet::new();
        for (index, asked) in asked.into_iter().enumerate() {
            local.spawn_local(worker(live.clone(), asked, stuck && index == 1));
        }
        let result = local.run_until(rehearse(&live, &fences, &clock, &rollout)).await;
        (result, live)
    }

    #[tokio::test]
    async fn a_drill_goes_through_the_cell_and_every_worker_and_touches_no_rollout() {
        let (result, live) = drill(false).await;
        assert!(result.is_ok(), "{result:?}");
        let after = live.load();
        let chat = after.rollout("chat").unwrap();
        assert!(chat.runtime.latch.is_none() && !chat.split.latched, "the real rollout was not touched");
        assert_eq!(after.rehearsed_arm(), Some(Arm::Stable));
        assert_eq!(after.unrehearsed().unwrap().rehearsed_arm(), None);
    }

    #[tokio::test]
    async fn a_worker_that_does_not_see_the_cell_fails_the_drill_by_number() {
        let (result, _) = drill(true).await;
        assert_eq!(result.unwrap_err(), "after the latch, worker 1 would have sent its unit to canary, not to stable");
    }

    #[tokio::test]
    async fn one_drill_at_a_time_and_none_without_a_rollout() {
        let (live, clock) = (live(), Clock::manual(Wall(1)));
        let (fences, _asked) = fence::fences(1);
        let none = rehearse(&live, &fences, &clock, &RolloutName::new("nobody")).await;
        assert_eq!(none.unwrap_err(), "no phantom could be set up");
        let first = live.update(|current| current.rehearsing("chat"));
        assert_eq!(first.rehearsed_arm(), Some(Arm::Canary));
        assert!(first.rehearsing("chat").is_none(), "one at a time");
    }
}
