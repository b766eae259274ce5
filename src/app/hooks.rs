//! Whom the hooks of Flagger's names are asked about, and the way of their answers to the evaluator.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::notices::Parts;
use crate::config;
use crate::evaluator::{Ask, Confirmed, Letter, RolloutView};
use crate::names::VersionName;
use crate::notify::Counts;
use crate::notify::hooks::{self, Answered, Asked, Handle};
use crate::rollout::{Hook, Phase};

/// Starts the hooks' thread.
pub(super) fn start(parts: &Parts<'_>, counts: &Arc<Counts>) -> io::Result<(Handle, JoinHandle<()>)> {
    let (live, board, mailbox) = (parts.live.clone(), parts.board.clone(), parts.mailbox.clone());
    let config = {
        let live = live.clone();
        Box::new(move || Arc::clone(&live.load().config))
    };
    let asks = Box::new(move || {
        let config = Arc::clone(&live.load().config);
        let posted = board.peek();
        let with = config.rollouts.iter().filter(|rollout| !rollout.confirm.is_empty());
        let of = |rollout: &Arc<config::Rollout>| {
            let view = posted.rollouts.iter().find(|view| view.name == rollout.name.as_str())?;
            Some(asked(view, rollout))
        };
        with.filter_map(of).flatten().collect()
    });
    let tell = Arc::new(move |answered: Answered| {
        let Answered { asked, gate, answer } = answered;
        let Asked { rollout, version, generation, .. } = asked;
        let ask = Ask::Confirmed(Confirmed { rollout, gate, version, generation, answer });
        if mailbox.post(Letter { ask, answer: Box::new(|_| ()) }).is_err() {
            tracing::debug!("the evaluator did not hear a hook's answer; it is asked again");
        }
    });
    hooks::spawn(hooks::Parts { clock: parts.clock.clone(), config, asks, tell, counts: Arc::clone(counts) })
}

/// What is asked about a rollout now.
fn asked(view: &RolloutView, rollout: &config::Rollout) -> Vec<Asked> {
    let Some(version) = view.arms.canary.version.as_deref().map(VersionName::new) else { return Vec::new() };
    let gate = view.confirm.as_ref().and_then(|c| Hook::ALL.into_iter().find(|hook| hook.as_str() == c.hook));
    let under_trial = [Phase::Running, Phase::Awaiting, Phase::Paused, Phase::Soaking].map(Phase::as_str);
    let rollback = under_trial.contains(&view.phase).then_some(Hook::Rollback);
    let one = |hook: Hook| Asked {
        rollout: rollout.name.clone(),
        version: version.clone(),
        generation: view.generation,
        hook,
        phase: phase(hook, view.phase),
    };
    gate.into_iter().chain(rollback).map(one).collect()
}

/// The phase in Flagger's words.
fn phase(hook: Hook, phase: &str) -> &'static str {
    match hook {
        Hook::ConfirmRollout => "Waiting",
        Hook::ConfirmPromotion => "WaitingPromotion",
        _ if phase == Phase::Soaking.as_str() => "Promoting",
        _ => "Progressing",
    }
}
