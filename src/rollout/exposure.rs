//! The exposure budget of a release in the machine: noted once, and where the file says so the canary goes to 0.

use crate::rollout::effect::{Effect, Tidings};
use crate::rollout::moves::{Close, Draft};
use crate::rollout::record::Decision;
use crate::rollout::state::{Phase, State};
use crate::rollout::verbs::stand_at;
use crate::split::weight::Weight;

/// Who decides.
const ACTOR: &str = "exposure";

/// The budget's state at a tick. What is held is held by the verdict; here it is recorded, told, and the canary stopped.
/// A completed release has had its trial: nothing is stopped any more.
pub(crate) fn exposure(mut draft: Draft<'_>, spent: Option<(String, String)>, stops: bool) -> (State, Vec<Effect>) {
    let under_trial = matches!(draft.state.phase, Phase::Running | Phase::Awaiting | Phase::Paused | Phase::Soaking);
    let Some((bound, numbers)) = spent.filter(|_| under_trial) else {
        if draft.state.spent.take().is_none() || !under_trial {
            return draft.quiet();
        }
        let text = format!("{} has room in its exposure budget again", draft.canary());
        return draft.close(Close::new(Decision::Exposure, ACTOR, &text, Tidings::Exposure, text.clone()));
    };
    if stops && draft.state.has_canary_traffic() {
        return stop(draft, bound, &numbers);
    }
    if draft.state.spent.as_ref() == Some(&bound) {
        return draft.quiet();
    }
    draft.state.spent = Some(bound);
    let text = format!("{} rises no further: exposure budget spent, {numbers}", draft.canary());
    draft.close(Close::new(Decision::Exposure, ACTOR, &numbers, Tidings::Exposure, text))
}

/// To 0, not latched: nothing is wrong with the canary. With a plan it stands there paused; a plain split is idle.
fn stop(mut draft: Draft<'_>, bound: String, numbers: &str) -> (State, Vec<Effect>) {
    let canary = draft.canary();
    if draft.state.plan.is_some() {
        stand_at(&mut draft, Weight::ZERO, ACTOR, &format!("exposure budget spent, {numbers}"));
    } else {
        let version = draft.state.version.clone();
        let next = draft.state.next_version.take();
        draft.reset(version);
        draft.state.next_version = next;
    }
    draft.state.spent = Some(bound);
    let text = format!("{canary} is at 0: exposure budget spent, {numbers}");
    draft.close(Close::new(Decision::Exposure, ACTOR, numbers, Tidings::Exposure, text))
}
