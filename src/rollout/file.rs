//! What a change of the configuration file does to a rollout: a new version, none any more, or the canary made stable.

use crate::names::VersionName;
use crate::rollout::effect::{Effect, RefusalKind, Tidings};
use crate::rollout::machine::{Outcome, refuse};
use crate::rollout::moves::{Close, Draft};
use crate::rollout::plan::SecondVersion;
use crate::rollout::record::Decision;
use crate::rollout::state::{Phase, State, starts_itself};

const CONFIG: &str = "config";

/// A new canary version. When idle it is taken; else `second_version` decides. None clears a latch.
pub(crate) fn new_version(mut draft: Draft<'_>, version: VersionName) -> Outcome {
    if draft.state.version.as_ref() == Some(&version) {
        if draft.state.next_version.take().is_none() {
            return Ok(draft.quiet());
        }
        let text = format!("no version waits any more; {version} goes on");
        return Ok(draft.close(Close::new(Decision::Queue, CONFIG, &text, Tidings::Version, text.clone())));
    }
    if draft.state.phase == Phase::Idle {
        return Ok(adopt(draft, version, false));
    }
    let plan = draft.state.plan.as_ref().or(draft.terms.plan.as_ref());
    match plan.map(|p| p.second_version).unwrap_or_default() {
        SecondVersion::Reject => {
            let remedy = if draft.state.phase == Phase::RolledBack { "clear it" } else { "complete or abort it" };
            let why = format!(
                "{} is {}; {remedy} before {version} takes its place (second_version = \"reject\")",
                draft.canary(),
                draft.state.phase.as_str()
            );
            Err(refuse(&draft, RefusalKind::Conflict, why))
        }
        SecondVersion::Supersede if draft.state.phase != Phase::RolledBack => Ok(adopt(draft, version, true)),
        SecondVersion::Queue | SecondVersion::Supersede => {
            let text = format!("{version} waits until {} is done", draft.canary());
            draft.state.next_version = Some(version);
            Ok(draft.close(Close::new(Decision::Queue, CONFIG, &text, Tidings::Version, text.clone())))
        }
    }
}

/// Takes a version at weight 0; the next tick starts it where it is to start by itself.
fn adopt(mut draft: Draft<'_>, version: VersionName, start: bool) -> (State, Vec<Effect>) {
    let text = match &draft.state.version {
        Some(old) if draft.state.phase != Phase::Idle => format!("{version} takes the place of {old}, from 0"),
        _ => format!("{version} is the canary now, at 0"),
    };
    draft.reset(Some(version.clone()));
    draft.state.auto_start = start || starts_itself(draft.terms);
    let close = Close::new(Decision::Adopt, CONFIG, &text, Tidings::Version, text.clone());
    draft.close(close.with(Effect::Adopt(version)))
}

/// The file names no canary: an abort where there is traffic.
pub(crate) fn canary_removed(mut draft: Draft<'_>) -> (State, Vec<Effect>) {
    let waited = draft.state.next_version.take().is_some();
    match draft.state.phase {
        Phase::Idle if draft.state.version.is_none() => draft.quiet(),
        Phase::Idle => {
            draft.reset(None);
            let text = "the configuration names no canary any more";
            draft.close(Close::new(Decision::Remove, CONFIG, text, Tidings::Version, text.to_owned()))
        }
        Phase::RolledBack if !waited => draft.quiet(),
        Phase::RolledBack => {
            let text = "no version waits any more";
            draft.close(Close::new(Decision::Queue, CONFIG, text, Tidings::Version, text.to_owned()))
        }
        _ => draft.roll_back(Decision::Abort, CONFIG, "the configuration names no canary any more"),
    }
}

/// The file makes the canary the stable version: one swap when completed, refused before.
pub(crate) fn promoted(mut draft: Draft<'_>) -> Outcome {
    let canary = draft.canary();
    if draft.state.phase != Phase::Completed {
        let why = format!(
            "{canary} is {}, not completed: it cannot be made the stable version yet",
            draft.state.phase.as_str()
        );
        return Err(refuse(&draft, RefusalKind::Conflict, why));
    }
    let next = draft.state.next_version.take().or_else(|| draft.terms.canary.clone());
    draft.reset(next.filter(|v| *v != draft.terms.stable));
    draft.state.auto_start = draft.state.version.is_some() && starts_itself(draft.terms);
    let text = format!("{canary} is the stable version now");
    Ok(draft.close(Close::new(Decision::Swap, CONFIG, &text, Tidings::Version, text.clone()).with(Effect::Swap)))
}
