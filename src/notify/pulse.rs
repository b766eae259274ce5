//! The judge's silence, told once for all rollouts: frozen after ten seconds, somebody woken after ten minutes. Pure.

use std::time::Duration;

use super::message::{Alert, Fact, Kind, Message, Severity};
use crate::names::Wall;

/// After so long a silence somebody is woken.
pub const PAGE_AFTER: Duration = Duration::from_secs(600);

/// What has been told of the heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// When the silence that was told began; its ids are made of it.
    lost: Option<Wall>,
    paged: bool,
}

impl Pulse {
    /// Takes the age of the last sign of life; what is to be told of it.
    pub fn beat(&mut self, age: Duration, freezes_after: Duration, now: Wall) -> Option<Message> {
        let silent = age > freezes_after;
        match (silent, self.lost) {
            (true, None) => {
                let began = Wall(now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(0)));
                *self = Self { lost: Some(began), paged: false };
                Some(lost(began, age, now))
            }
            (true, Some(began)) if !self.paged && age >= PAGE_AFTER => {
                self.paged = true;
                Some(page(began, age, now))
            }
            (false, Some(began)) => {
                *self = Self::default();
                Some(found(began, now))
            }
            _ => None,
        }
    }
}

fn lost(began: Wall, age: Duration, now: Wall) -> Message {
    let text = format!(
        "the judge has been silent for {} s: nothing rises until it is back; traffic keeps its weights, the breaker and abort still work",
        age.as_secs()
    );
    message("lost", began, now, Severity::Warning, "the judge is silent: every rise is frozen", text, Some(false))
}

fn page(began: Wall, age: Duration, now: Wall) -> Message {
    let text = format!(
        "the judge has been silent for {} min: no gate is being judged; abort what must not go on, and restart serin",
        age.as_secs() / 60
    );
    message("page", began, now, Severity::Critical, "the judge has been silent for ten minutes", text, Some(true))
}

fn found(began: Wall, now: Wall) -> Message {
    let for_s = now.0.saturating_sub(began.0) / 1_000;
    let text = format!("the judge is back after {for_s} s; what stood as proof must be proven again");
    message("found", began, now, Severity::Info, "the judge is back", text, None)
}

fn message(
    what: &str,
    began: Wall,
    now: Wall,
    severity: Severity,
    title: &str,
    text: String,
    raises: Option<bool>,
) -> Message {
    let alert = |page| Alert { key: "heartbeat".to_owned(), page };
    Message {
        id: format!("heartbeat-{}-{what}", began.0),
        at: now,
        kind: Kind::Heartbeat,
        severity,
        rollout: None,
        version: None,
        title: title.to_owned(),
        text,
        actor: "serin".to_owned(),
        weight: None,
        generation: None,
        facts: vec![Fact::new("Silent since", began.rfc3339())],
        gates: Vec::new(),
        raises: raises.map(alert),
        clears: if raises.is_none() { vec![alert(false)] } else { Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_at_ten_seconds_and_at_ten_minutes_and_its_end_once() {
        let mut pulse = Pulse::default();
        let freeze = Duration::from_secs(10);
        let mut told = Vec::new();
        for second in 0..700u64 {
            let message = pulse.beat(Duration::from_secs(second), freeze, Wall(second as i64 * 1_000));
            told.extend(message.map(|m| (second, m.severity, m.raises.map(|r| r.page))));
        }
        assert_eq!(told, [(11, Severity::Warning, Some(false)), (600, Severity::Critical, Some(true))]);
        let back = pulse.beat(Duration::ZERO, freeze, Wall(701_000)).unwrap();
        assert_eq!((back.raises, back.clears.len()), (None, 1));
        assert_eq!(pulse.beat(Duration::ZERO, freeze, Wall(702_000)), None);
        let again = pulse.beat(Duration::from_secs(11), freeze, Wall(800_000)).unwrap();
        assert_eq!(again.id, "heartbeat-789000-lost", "another silence is another notice");
    }
}
