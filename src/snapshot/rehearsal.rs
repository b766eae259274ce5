//! A phantom for rehearsals: a rollout's own tables in the one cell, to which no route leads and which carries nobody.

use std::sync::Arc;

use super::table::{Latch, Rollout, Runtime, Snapshot};
use crate::names::Arm;
use crate::split::{self, Ask, OpenCohorts, Unit, Weight};

/// The phantom's only unit: nobody.
const NOBODY: &[u8] = b"serin drill";

/// A request that was never made.
struct Unasked;

impl Ask for Unasked {}

impl Snapshot {
    /// The same with a phantom of this rollout at 100 %; `None` when there is no rollout of that name, or a rehearsal
    /// goes on.
    #[must_use]
    pub fn rehearsing(&self, rollout: &str) -> Option<Snapshot> {
        let real = self.rollout(rollout)?;
        if self.rehearsal.is_some() {
            return None;
        }
        let runtime = Runtime { weight: Weight::FULL, latch: None, open: OpenCohorts::None };
        Some(Snapshot { rehearsal: Some(Arc::new(phantom(real, runtime))), ..self.copy() })
    }

    /// The same with the phantom latched; `None` when there is none.
    #[must_use]
    pub fn rehearsed(&self, latch: &Arc<Latch>) -> Option<Snapshot> {
        let standing = self.rehearsal.as_ref()?;
        let runtime = Runtime { latch: Some(Arc::clone(latch)), ..Runtime::default() };
        Some(Snapshot { rehearsal: Some(Arc::new(phantom(standing, runtime))), ..self.copy() })
    }

    /// The same without a phantom; `None` when there is none.
    #[must_use]
    pub fn unrehearsed(&self) -> Option<Snapshot> {
        self.rehearsal.as_ref()?;
        Some(Snapshot { rehearsal: None, ..self.copy() })
    }

    /// Where the phantom's unit would go, by the same decision as every request's; `None` without a phantom.
    #[must_use]
    pub fn rehearsed_arm(&self) -> Option<Arm> {
        let phantom = self.rehearsal.as_ref()?;
        Some(split::choose(&phantom.split, Unit::new(NOBODY), &Unasked).arm)
    }
}

/// A rollout of these tables with no cohorts: whoever is asked for goes by the bucket alone.
fn phantom(real: &Rollout, runtime: Runtime) -> Rollout {
    let mut phantom = real.with(runtime);
    phantom.split.cohorts = Arc::from([]);
    phantom
}
