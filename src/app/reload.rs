//! A new configuration while serin runs: all or nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config;
use crate::evaluator::{Ask, Letter, Mailbox, Reload};
use crate::measure::Gauges;
use crate::proxy::Listening;
use crate::snapshot::{Builder, Live};
use crate::tls;
use crate::upstream::{Cluster, Registry, health};

/// Longest wait for the evaluator's word.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a reload needs.
pub(super) struct Control {
    pub path: Option<PathBuf>,
    pub builder: Builder,
    pub registry: Arc<Registry>,
    pub live: Live,
    pub mailbox: Mailbox,
    pub gauges: Arc<Gauges>,
    pub clock: Clock,
    pub listening: Vec<Arc<Listening>>,
    pub admin_tls: Option<Arc<ArcSwap<ServerConfig>>>,
    pub clusters: watch::Sender<Vec<Arc<Cluster>>>,
    /// One reload at a time.
    pub turn: Mutex<()>,
}

impl Control {
    /// Reads the file again and takes it, or leaves everything as it was.
    pub fn reload(&self) -> Result<(), String> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.take_file();
        self.gauges.reloaded(result.is_ok(), self.clock.wall());
        match &result {
            Ok(()) => tracing::info!("the configuration was reloaded"),
            Err(why) => tracing::error!(error = %why, "the reload is refused; what was in force stays in force"),
        }
        result
    }

    fn take_file(&self) -> Result<(), String> {
        let path = self.path.as_ref().ok_or("this serin was not started from a file")?;
        let config = Arc::new(config::load(path).map_err(|faults| faults.to_string())?);
        let current = Arc::clone(&self.live.load().config);
        let restarts = config::reload::compare(&current, &config);
        if !restarts.is_empty() {
            let lines: Vec<String> = restarts.iter().map(ToString::to_string).collect();
            return Err(lines.join("\n"));
        }
        let mut certificates = Vec::new();
        for listening in &self.listening {
            let fresh = config.listeners.iter().find(|l| l.name == listening.config.name);
            if let Some(tls) = fresh.and_then(|l| l.tls.as_ref()) {
                let shown =
                    tls::server(tls, true).map_err(|e| format!("listeners.{}.tls: {e}", listening.config.name))?;
                certificates.push((listening, shown));
            }
        }
        let admin_tls = match (&config.admin.tls, &self.admin_tls) {
            (Some(tls), Some(cell)) => Some((cell, tls::server(tls, false).map_err(|e| format!("admin.tls: {e}"))?)),
            _ => None,
        };
        let prepared = Arc::new(self.builder.prepare(Arc::clone(&config)).map_err(|e| e.to_string())?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        std::thread::scope(|scope| {
            // A thread of its own: this one may already be inside a runtime.
            drop(scope.spawn(|| runtime.block_on(health::resolve_all(&self.registry))).join());
        });
        let (answer, answered) = sync_channel(1);
        let claimed = Arc::new(AtomicBool::new(false));
        let ask = Ask::Reload(Reload {
            prepared: Arc::clone(&prepared),
            claimed: Arc::clone(&claimed),
            answer: Box::new(move |result| drop(answer.try_send(result))),
        });
        self.mailbox.post(Letter { ask, answer: Box::new(|_| ()) }).map_err(|e| e.to_string())?;
        let silent = |_| "the evaluator does not answer".to_owned();
        match answered.recv_timeout(PATIENCE) {
            Ok(result) => result?,
            // Refused for good: an evaluator that wakes up later finds it claimed.
            Err(_) if !claimed.swap(true, Ordering::AcqRel) => return Err(silent(RecvError)),
            Err(_) => answered.recv().map_err(silent)??,
        }
        for (listening, shown) in certificates {
            listening.show(Some(shown));
        }
        if let Some((cell, shown)) = admin_tls {
            cell.store(shown);
        }
        self.clusters.send_replace(prepared.clusters());
        Ok(())
    }
}
