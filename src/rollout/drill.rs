//! Whether a rehearsal of the rollback is due, and whether the last one lets a weight rise.

use std::time::Duration;

use crate::names::Wall;
use crate::rollout::state::{Phase, State, Terms};

/// A drill is made this much before it is overdue, or a tenth of its interval if that is less.
const AHEAD: Duration = Duration::from_secs(3_600);
/// After a drill that failed, the next one is tried so much later.
const AGAIN: Duration = Duration::from_secs(600);

/// Whether rehearsals let a weight rise now; else why not. A clock that was set back makes no drill older.
pub(crate) fn may_rise(state: &State, terms: &Terms, now: Wall) -> Result<(), String> {
    let Some(every) = terms.drill_every else { return Ok(()) };
    match &state.drill {
        None => Err("the rollback has never been rehearsed here; serin drill does it".to_owned()),
        Some(drill) => match &drill.failed {
            Some(why) => Err(format!("the last drill failed: {why}; mend it and drill again")),
            None if age(drill.at, now) > every => {
                Err(format!("the last drill was at {}, a new one is overdue; serin drill makes it", drill.at.rfc3339()))
            }
            None => Ok(()),
        },
    }
}

/// Whether one is to be made now. None is made while rolled back: the real thing stands.
pub(crate) fn is_due(state: &State, terms: &Terms, now: Wall) -> bool {
    let Some(every) = terms.drill_every else { return false };
    if state.phase == Phase::RolledBack || state.version.is_none() {
        return false;
    }
    match &state.drill {
        None => true,
        Some(drill) if drill.failed.is_some() => age(drill.at, now) >= AGAIN.min(every),
        Some(drill) => age(drill.at, now) >= every.saturating_sub(AHEAD.min(every / 10)),
    }
}

fn age(at: Wall, now: Wall) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0))
}
