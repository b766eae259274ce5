//! A worker's thread: one single-threaded runtime, pinned where allowed, that serves what it is handed until it is drained.

use std::io;
use std::rc::Rc;

use tokio::sync::{mpsc, watch};

use super::connection;
use super::deadlines::SWEEP_EVERY;
use super::fence;
use super::listener::{Accepted, Door, Handed};
use super::worker::{Parts, Worker};

/// What the workers are to do about ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Serve.
    Run,
    /// Every answer is the last of its connection.
    Announce,
    /// No connections come any more: end idle ones now, the others after their answers.
    Drain,
    /// End at once.
    Now,
}

/// Sweeps between two looks at connections' bounds.
const CONNECTIONS_EVERY: u32 = 10;

/// Runs a worker to its end on the current thread. The only worker accepts too, at its `door`.
///
/// # Errors
/// The runtime could not be built.
pub fn run(
    parts: Parts,
    handed: mpsc::Receiver<Handed>,
    door: Option<Door>,
    fences: fence::Asked,
    shutdown: watch::Receiver<Shutdown>,
) -> io::Result<()> {
    pin_to_cpu(parts.index, parts.workers);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A request is two polls of its connection's task: look for new readiness every thirty requests.
        .event_interval(61)
        .build_local(Default::default())?;
    runtime.block_on(serve(parts, handed, door, fences, shutdown));
    Ok(())
}

async fn serve(
    parts: Parts,
    mut handed: mpsc::Receiver<Handed>,
    door: Option<Door>,
    mut fences: fence::Asked,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    let worker = Worker::new(parts);
    if let Some(door) = door {
        drop(tokio::task::spawn_local(async move {
            if let Err(error) = door.accept_all().await {
                tracing::error!(error = %error, "accepting has ended");
            }
        }));
    }
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sweeps = 0u32;
    let mut open = true;
    let rest = || worker.gauges.pulses.rest(worker.index);
    loop {
        let state = *shutdown.borrow_and_update();
        match state {
            Shutdown::Run => {}
            Shutdown::Announce => worker.connections.begin_drain(),
            Shutdown::Drain => worker.connections.drain_all(),
            Shutdown::Now => return rest(),
        }
        if state >= Shutdown::Drain && !open && worker.connections.is_empty() {
            return rest();
        }
        tokio::select! {
            biased;
            _ = sweep.tick() => {
                let now = worker.clock.now();
                worker.deadlines.sweep(now);
                worker.gauges.pulses.beat(worker.index, now);
                sweeps = sweeps.wrapping_add(1);
                if sweeps.is_multiple_of(CONNECTIONS_EVERY) {
                    let view = worker.view();
                    worker.connections.sweep(&worker, &view.snapshot().config.limits);
                    worker.pool.trim(worker.deadlines.coarse_now(), worker.workers);
                }
            }
            Some(done) = fences.recv() => drop(tokio::task::spawn_local(fence::go_round(done, Rc::clone(&worker)))),
            next = handed.recv(), if open => match next {
                Some(handed) => take(&worker, handed),
                None => open = false,
            },
            changed = shutdown.changed() => if changed.is_err() { return rest() },
        }
    }
}

fn take(worker: &Rc<Worker>, handed: Handed) {
    let Handed { tcp, peer, listening } = handed;
    let tcp = match tcp {
        Accepted::Here(tcp) => Ok(tcp),
        Accepted::Elsewhere(tcp) => tokio::net::TcpStream::from_std(tcp),
    };
    match tcp {
        Ok(tcp) => drop(tokio::task::spawn_local(connection::serve(Rc::clone(worker), tcp, peer, listening))),
        Err(error) => {
            tracing::warn!(error = %error, "a connection could not be registered with its worker");
            worker.connected();
            worker.disconnected();
        }
    }
}

/// Pins this thread to the CPU of its number among those allowed, when there are as many as workers.
fn pin_to_cpu(index: usize, workers: usize) {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    if workers < 2 || cpus.len() != workers {
        return;
    }
    if let Some(cpu) = cpus.get(index) {
        let mut one = rustix::thread::CpuSet::new();
        one.set(*cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &one) {
            tracing::debug!(error = %error, "a worker could not be pinned");
        }
    }
}
