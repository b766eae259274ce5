//! Keys that are good by themselves and that, beside others of the same rollout, nobody heeds: said as warnings.

use super::check::Check;
use super::fault::Place;
use super::raw;

impl Check<'_, '_> {
    /// Warns of each such key of a rollout.
    pub(crate) fn unheeded(&mut self, raw: &raw::Rollout) {
        let judged = raw.evaluator.as_ref().and_then(|evaluator| evaluator.enabled.as_ref()).is_none_or(|at| at.value);
        if let Some(exposure) = raw.exposure.as_ref().filter(|_| !judged) {
            self.sink.warn(
                &exposure.place,
                "is not heeded: with evaluator.enabled = false nobody counts what the canary is seen by",
                "take it out, or let the evaluator judge",
            );
        }
        if raw.protocol.as_ref().is_some_and(|at| at.value.0 == "http") {
            self.unread(raw);
        }
    }

    /// What needs the text of answers, which nobody reads where the protocol is plain HTTP.
    fn unread(&mut self, raw: &raw::Rollout) {
        let mut warn = |place: &Place, reason: &str| {
            let reason = format!("{reason}: with protocol = \"http\" no answer is read");
            self.sink.warn(place, reason, "take it out, or write protocol = \"auto\" or that of the model");
        };
        if let Some(rules) = raw.safety.as_ref().and_then(|safety| safety.rules.as_ref()?.0.first()) {
            warn(&rules.place, "is not heeded");
        }
        for (name, _) in raw.gates.iter().flat_map(|gates| &gates.0).filter(|(name, _)| name.value == "drift_language")
        {
            warn(&name.place, "never has data, and holds the rollout");
        }
        if let Some(samples) = &raw.samples
            && samples.text.as_ref().is_none_or(|at| at.value.0 != "none")
        {
            warn(&samples.place, "takes requests without their answers");
        }
    }
}
