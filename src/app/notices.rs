//! The way from the evaluator to the receivers, and what notices see of a rollout.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::error::StartError;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::evaluator::{Board, Heartbeat, Mailbox, Notifier, RolloutView, ToLog};
use crate::journal::{Body, Journal};
use crate::judge::{GateReport, GateResult, Margin, On, Rule, Stat};
use crate::notify::{self, Counts, Gate, Handle, Opened, Seen, Tuning, teller};
use crate::rollout::{Notice, Phase};
use crate::snapshot::Live;

/// Records that are looked at for what a crash may have left untold.
const LOOK_BACK: u64 = 500;

/// What the notices' thread is started with.
pub(super) struct Parts<'a> {
    pub config: &'a Config,
    pub live: &'a Live,
    pub board: &'a Board,
    pub heartbeat: &'a Heartbeat,
    pub journal: &'a Journal,
    pub mailbox: &'a Mailbox,
    pub clock: &'a Clock,
    pub seed: u64,
}

/// Tells the log, then the receivers, then the hooks.
struct ToReceivers(Handle, notify::hooks::Handle);

impl Notifier for ToReceivers {
    fn tell(&mut self, notice: &Notice) {
        ToLog.tell(notice);
        self.0.tell(notice);
        self.1.tell(notice);
    }
}

/// A notifier, its counts, and its threads, which end with it.
pub(super) type Started = (Box<dyn Notifier>, Arc<Counts>, Vec<JoinHandle<()>>);

/// Opens the outbox and starts its threads.
pub(super) fn start(parts: &Parts<'_>) -> Result<Started, StartError> {
    let mut opened = match &parts.config.store {
        None => Opened::default(),
        Some(store) => notify::open(&store.path.join("outbox"))
            .map_err(|error| StartError::Store { path: store.path.display().to_string(), why: error.to_string() })?,
    };
    if opened.torn_bytes > 0 || opened.bad_lines > 0 {
        tracing::warn!(
            torn_bytes = opened.torn_bytes,
            bad_lines = opened.bad_lines,
            "the outbox of notices was torn by a crash and has been mended; at most what was being written is missing"
        );
    }
    if let Err(error) = opened.begin(parts.journal.health().last) {
        tracing::warn!(error = %error, "the outbox of notices cannot be written; they are told from memory");
    }
    let counts = Arc::new(Counts::default());
    let missed = missed(parts.journal, &opened);
    let (live, board) = (parts.live.clone(), parts.board.clone());
    let seen = move |name: Option<&str>| {
        let config = Arc::clone(&live.load().config);
        let posted = board.read();
        let views = posted.rollouts.iter().filter(|view| name.is_none_or(|name| view.name == name));
        views.filter_map(|view| config.rollout(&view.name).map(|rollout| see(view, rollout))).collect()
    };
    let (hooks, hooking) = super::hooks::start(parts, &counts)?;
    let (handle, mut threads) = notify::spawn(notify::Parts {
        opened,
        missed,
        clock: parts.clock.clone(),
        config: {
            let live = parts.live.clone();
            Box::new(move || Arc::clone(&live.load().config))
        },
        seen: Box::new(seen),
        heartbeat_age: {
            let (heartbeat, clock) = (parts.heartbeat.clone(), parts.clock.clone());
            Box::new(move || heartbeat.age(clock.now()))
        },
        seed: parts.seed,
        tuning: Tuning::default(),
        counts: Arc::clone(&counts),
    })?;
    threads.push(hooking);
    Ok((Box::new(ToReceivers(handle, hooks)), counts, threads))
}

/// What the journal has and the outbox never heard of: a crash came between.
fn missed(journal: &Journal, opened: &Opened) -> Vec<Notice> {
    let after = journal.health().last.saturating_sub(LOOK_BACK);
    let entries = journal.after(after, usize::try_from(LOOK_BACK).unwrap_or(usize::MAX));
    let records = entries.iter().filter_map(|entry| match &entry.body {
        Body::Record(record) => Some((entry.n, record)),
        // What is told of a latch is told by the record that takes it up.
        Body::Latch(_) | Body::Checkpoint(_) | Body::Signature(_) => None,
    });
    let untold = records.filter(|(n, r)| opened.outbox.missed(&r.rollout, r.generation, *n));
    untold.map(|(_, record)| teller::of_record(record)).collect()
}

/// A rollout as notices tell of it.
fn see(view: &RolloutView, rollout: &config::Rollout) -> Seen {
    let resting = [Phase::Idle, Phase::RolledBack, Phase::Completed].map(Phase::as_str);
    Seen {
        name: view.name.clone(),
        version: view.arms.canary.version.clone(),
        stable: rollout.stable.name.to_string(),
        phase: view.phase.to_owned(),
        why: view.why.clone(),
        weight: view.weight,
        generation: view.generation,
        serves: !resting.contains(&view.phase),
        stage: view.stage.as_ref().map(|s| (s.index, s.of, s.entered_at.clone().unwrap_or_default())),
        gates: view.gates.iter().map(gate).collect(),
        timeline: rollout.plan.as_deref().map(teller::timeline),
        criteria: rollout.policy.rules.iter().filter(|rule| rule.on == On::Rollback).map(criterion).collect(),
        contact: rollout.contact.clone(),
        exposed: (view.exposed.users, view.exposed.requests),
    }
}

fn gate(report: &GateReport) -> Gate {
    let result = match report.result {
        GateResult::Pass => "pass",
        GateResult::Fail => "fail",
        GateResult::Inconclusive => "inconclusive",
        GateResult::Unarmed => "unarmed",
    };
    Gate {
        name: report.name.clone(),
        unit: report.unit.to_owned(),
        result: result.to_owned(),
        stable: report.stable,
        canary: report.canary,
        rollback: report.rollback,
        limit: report.limit,
        // JSON has no word for what is not finite.
        evidence: [report.evidence.rollback, report.evidence.bar].map(|e| if e.is_finite() { e } else { 0.0 }),
        samples: report.samples,
    }
}

/// `error_rate beyond +0.5 pp`.
fn criterion(rule: &Rule) -> String {
    let limit = rule.limit.map_or_else(String::new, |limit| format!(" or at {limit}"));
    let beyond = match (rule.stat, rule.rollback) {
        (Stat::Zero, _) => "any".to_owned(),
        (_, Margin::Relative(ratio)) => format!("beyond {:+.1} %", (ratio - 1.0) * 100.0),
        (Stat::Rate, Margin::Absolute(by)) => format!("beyond {:+.2} pp", by * 100.0),
        (_, Margin::Absolute(by)) => format!("beyond {by:+} {}", rule.metric.unit()),
    };
    format!("{} {beyond}{limit}", rule.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Serin, start};
    use crate::evaluator::Command;
    use crate::names::RolloutName;
    use crate::notify::testing::{Receiver, eventually};
    use crate::rollout::{Actor, Role, Verb};

    fn serin(dir: &std::path::Path, receiver: &Receiver) -> Serin {
        let text = format!(
            r#"
[admin]
listen = "127.0.0.1:0"
[server]
workers = 1
[listeners.e]
listen = "127.0.0.1:0"
[store]
path = "{}"
[notify.ops]
kind = "webhook"
url = "{}"
secret = "correct horse"
[rollouts.chat]
unit = ["ip"]
contact = "release@example.com"
stable = {{ version = "a", endpoints = ["http://127.0.0.1:1"] }}
canary = {{ version = "b", endpoints = ["http://127.0.0.1:2"] }}
plan = {{ preset = "standard" }}
"#,
            dir.display(),
            receiver.url("/")
        );
        let config = config::parse(&text, "t", &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
        start::start(config, None, &Clock::system()).unwrap()
    }

    fn ask(serin: &Serin, verb: Verb) {
        let (rollout, actor) = (RolloutName::new("chat"), Actor::new("alice", &[Role::Owner]));
        let command = Command { rollout, verb, actor, reason: "a test".to_owned(), if_match: None };
        serin.command(command).unwrap();
    }

    #[test]
    fn what_is_done_to_a_rollout_is_told_and_what_a_crash_left_untold_is_told_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let receiver = Receiver::start([]);
        let first = serin(dir.path(), &receiver);
        ask(&first, Verb::Start);
        ask(&first, Verb::Abort);
        let ids = |from: usize| -> Vec<String> {
            receiver.taken()[from..].iter().map(|t| t.header("webhook-id").to_owned()).collect()
        };
        receiver.wait(2);
        assert_eq!(ids(0), ["chat-1-started", "chat-2-aborted"]);
        let facts = receiver.taken()[0].json()["data"]["facts"].clone();
        let fact = |name: &str| {
            let found = facts.as_array().unwrap().iter().find(|f| f["name"] == name);
            found.unwrap_or_else(|| panic!("{name}: {facts}"))["value"].as_str().unwrap().to_owned()
        };
        assert_eq!(fact("First weight"), "1 %");
        assert!(fact("Timeline").starts_with("1 % for 24h, one approval; 5 % for 24h"), "{}", fact("Timeline"));
        assert!(fact("Rolled back by").contains("error_rate beyond +0.50 pp"), "{}", fact("Rolled back by"));
        assert_eq!(fact("Contact"), "release@example.com");
        first.stop();
        // A crash before the abort reached the outbox: the journal alone knows of it.
        let path = dir.path().join("outbox/outbox.log");
        let log = std::fs::read_to_string(&path).unwrap();
        let begun: String = log.lines().filter(|l| !l.contains("chat-2-")).map(|l| format!("{l}\n")).collect();
        std::fs::write(&path, begun).unwrap();
        let second = serin(dir.path(), &receiver);
        receiver.wait(3);
        assert_eq!(ids(2), ["chat-2-aborted"], "the same id, and what was delivered is not told again");
        eventually("its receipt", || std::fs::read_to_string(&path).unwrap().contains("delivered\",\"attempts\":1"));
        second.stop();
        let chat = RolloutName::new("chat");
        let heard = notify::heard::read(&dir.path().join("outbox"), &chat).unwrap();
        let told: Vec<_> = heard.iter().map(|h| (h.generation, h.target.as_str(), h.result.is_some())).collect();
        assert!(told.contains(&(Some(1), "ops", true)) && told.contains(&(Some(2), "ops", true)), "{told:?}");
        let third = serin(dir.path(), &receiver);
        ask(&third, Verb::Clear);
        receiver.wait(4);
        assert_eq!(ids(3), ["chat-3-cleared"]);
        third.stop();
    }

    #[test]
    fn a_crash_before_the_first_word_of_a_rollout_costs_no_word_and_a_new_outbox_tells_no_past() {
        let dir = tempfile::tempdir().unwrap();
        let receiver = Receiver::start([]);
        let ids = |from: usize| -> Vec<String> {
            receiver.taken()[from..].iter().map(|t| t.header("webhook-id").to_owned()).collect()
        };
        let first = serin(dir.path(), &receiver);
        ask(&first, Verb::Start);
        receiver.wait(1);
        first.stop();
        // Killed between the first record and the outbox: it knows of no rollout, only where the journal stood.
        let path = dir.path().join("outbox/outbox.log");
        let log = std::fs::read_to_string(&path).unwrap();
        let begun: String = log.lines().filter(|l| l.contains("\"began\"")).map(|l| format!("{l}\n")).collect();
        std::fs::write(&path, begun).unwrap();
        let second = serin(dir.path(), &receiver);
        receiver.wait(2);
        assert_eq!(ids(1), ["chat-1-started"], "the same id: whoever has it already takes it once");
        second.stop();
        // An outbox that begins with an old journal has nothing to tell of the time before it.
        std::fs::remove_file(&path).unwrap();
        let third = serin(dir.path(), &receiver);
        ask(&third, Verb::Abort);
        receiver.wait(3);
        assert_eq!(ids(2), ["chat-2-aborted"]);
        third.stop();
    }
}
