//! Starts every thread, and hands out the running serin.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::error::StartError;
use super::notices;
use super::reload::Control;
use super::sockets::{Bound, bind_all};
use super::store::{open_store, random, store_secret};
use crate::admin;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::evaluator::{Ask, Board, Command, Heartbeat, Letter, Mailbox, Refused, RolloutView, World, guard};
use crate::evaluator::{threads, tracer};
use crate::measure::sample::samples;
use crate::measure::{Gauges, Recorders, References, SampleStore, SharedMemory, ring};
use crate::names::RolloutName;
use crate::proxy::access::Access;
use crate::proxy::listener::{Door, HANDED, WorkerHandle};
use crate::proxy::{self, Shutdown, fence, worker};
use crate::snapshot::{Builder, Live, Runtime};
use crate::upstream::{Registry, health};

/// Longest wait for the answer to a verb: a rise waits for the disk.
const COMMAND_PATIENCE: Duration = Duration::from_secs(20);

/// A running serin.
pub struct Serin {
    /// Where it is reached.
    pub bound: Bound,
    /// The newest picture of every rollout.
    pub board: Board,
    /// The way to the evaluator.
    pub mailbox: Mailbox,
    /// The cell that requests read.
    pub live: Live,
    /// All counters.
    pub recorders: Arc<Recorders>,
    control: Arc<Control>,
    shutdown: watch::Sender<Shutdown>,
    stop_accepting: watch::Sender<bool>,
    stop_admin: watch::Sender<bool>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    others: Vec<JoinHandle<()>>,
}

/// Starts serin under a configuration. `path` is where a reload reads it again.
///
/// # Errors
/// See [`StartError`]; nothing is left running then.
pub fn start(config: Config, path: Option<PathBuf>, clock: &Clock) -> Result<Serin, StartError> {
    raise_descriptors();
    let config = Arc::new(config);
    let mut sockets = bind_all(&config)?;
    let secret = match &config.store {
        Some(store) => store_secret(&store.path)?,
        None => Vec::new(),
    };
    let (journal, known, evidence) = open_store(&config)?;
    let workers = config.server.workers.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
        std::num::NonZeroUsize::get,
    );
    let registry = Arc::new(Registry::default());
    let recorders = Arc::new(Recorders::new(workers));
    let builder = Builder::new(Arc::clone(&registry), Arc::clone(&recorders), &secret);
    let builder = if secret.is_empty() { builder.sealing(own_references()?) } else { builder };
    let references = builder.references();
    let memory = SharedMemory::new(config.limits.feedback_ids);
    let prepared = Arc::new(builder.prepare(Arc::clone(&config))?);
    let resolver = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    resolver.block_on(health::resolve_all(&registry));
    let live = Live::new(prepared.merge(|_| Runtime::default()));
    let gauges = Arc::new(Gauges::new(workers, clock.now()));
    gauges.reloaded(true, clock.wall());
    let (mailbox, inbox) = crate::evaluator::mailbox::mailbox();
    let (board, heartbeat) = (Board::default(), Heartbeat::default());
    // The judge's silence counts from here: a heart that has never beaten looked as old as the machine, and was told of.
    heartbeat.beat(clock.now(), clock.wall());

    let mut others = Vec::new();
    let (rings, readers): (Vec<_>, Vec<_>) = (0..workers).map(|_| ring::ring(ring::RING_RECORDS)).unzip();
    let (orders, orders_in) = threads::orders();
    let (batches, batches_in) = threads::batches();
    let (fences, asked) = fence::fences(workers);
    let (drills, driller) = super::drill::spawn(live.clone(), fences.clone(), mailbox.clone(), clock.clone())?;
    others.push(driller);
    let (tracing, writer) = tracer::spawn()?;
    others.push(writer);
    let mut seed = [0u8; 8];
    random(&mut seed)?;
    let (notifier, told, threads) = notices::start(&notices::Parts {
        config: &config,
        live: &live,
        board: &board,
        heartbeat: &heartbeat,
        journal: &journal,
        mailbox: &mailbox,
        clock,
        seed: u64::from_le_bytes(seed),
    })?;
    others.extend(threads);
    let world = World {
        live: live.clone(),
        journal: Arc::clone(&journal),
        mailbox: mailbox.clone(),
        notifier,
        guard: orders,
        prepared: Arc::clone(&prepared),
        gauges: Arc::clone(&gauges),
        tracing: Some(tracing),
        drills: Some(drills),
    };
    let evidence = match evidence {
        None => None,
        Some(evidence) => {
            let (sender, handle) = threads::spawn_evidence(evidence)?;
            others.push(handle);
            Some(sender)
        }
    };
    let judge = threads::Parts {
        world,
        evidence,
        board: board.clone(),
        heartbeat: heartbeat.clone(),
        inbox,
        batches: batches_in,
        clock: clock.clone(),
    };
    others.push(threads::spawn_judge(judge, move |name: &RolloutName| known.get(name).cloned())?);
    let guard = guard::Parts {
        rings: readers,
        live: live.clone(),
        journal: Arc::clone(&journal),
        batches,
        mailbox: mailbox.clone(),
        orders: orders_in,
        gauges: Arc::clone(&gauges),
        clock: clock.clone(),
    };
    others.push(threads::spawn_guard(guard, memory.clone())?);

    let (shutdown, shutdown_seen) = watch::channel(Shutdown::Run);
    let (stop_accepting, stop_seen) = watch::channel(false);
    let (stop_admin, admin_seen) = watch::channel(false);
    let mut handles = Vec::new();
    let mut worker_threads = Vec::new();
    let access = match &config.log.access {
        None => None,
        Some(path) => {
            let refuse =
                |source| StartError::File { key: "log.access".to_owned(), path: path.display().to_string(), source };
            let (access, thread) = Access::open(path).map_err(refuse)?;
            others.push(thread);
            Some(access)
        }
    };
    let (sampler, sampled) = samples();
    let listening: Vec<_> = sockets.listeners.iter().map(|(_, l)| Arc::clone(l)).collect();
    let door = |listeners: &mut Vec<_>, handles: &mut Vec<WorkerHandle>| Door {
        sockets: std::mem::take(listeners),
        workers: std::mem::take(handles),
        live: live.clone(),
        gauges: Arc::clone(&gauges),
        stop: stop_seen.clone(),
    };
    for (index, (ring, asked)) in rings.into_iter().zip(asked).enumerate() {
        let (connections, handed) = mpsc::channel(HANDED);
        let load = Arc::default();
        handles.push(WorkerHandle { connections, load: Arc::clone(&load) });
        let parts = worker::Parts {
            index,
            workers,
            clock: clock.clone(),
            live: live.clone(),
            ring,
            gauges: Arc::clone(&gauges),
            load,
            access: access.clone(),
            samples: Some(sampler.clone()),
            seed: xxhash_rust::xxh3::xxh3_64_with_seed(&seed, index as u64),
        };
        // The only worker accepts too: nothing is handed from thread to thread.
        let door = (workers == 1).then(|| door(&mut sockets.listeners, &mut handles));
        let shutdown = shutdown_seen.clone();
        let work = move || proxy::thread::run(parts, handed, door, asked, shutdown);
        worker_threads.push(spawn(&format!("serin-worker-{index}"), work)?);
    }
    drop(access);
    let queries_seen = admin_seen.clone();
    let (clusters, clusters_seen) = watch::channel(prepared.clusters());
    others.push(spawn_local("serin-upstream", {
        let (registry, clock, stop) = (Arc::clone(&registry), clock.clone(), admin_seen.clone());
        move || health::run(registry, clusters_seen, clock, stop)
    })?);

    let control = Arc::new(Control {
        path,
        builder,
        registry,
        live: live.clone(),
        mailbox: mailbox.clone(),
        gauges: Arc::clone(&gauges),
        clock: clock.clone(),
        listening,
        admin_tls: sockets.admin.tls.clone(),
        clusters,
        turn: Mutex::new(()),
    });
    let sample_store = SampleStore::default();
    others.push(spawn_local("serin-samples", {
        let (live, store, stop) = (live.clone(), sample_store.clone(), admin_seen.clone());
        move || admin::samples::run(sampled, live, store, stop)
    })?);
    let parts = admin::Parts {
        live: live.clone(),
        board: board.clone(),
        mailbox: mailbox.clone(),
        heartbeat,
        recorders: Arc::clone(&recorders),
        gauges: Arc::clone(&gauges),
        clock: clock.clone(),
        journal,
        reload: {
            let control = Arc::clone(&control);
            Arc::new(move || control.reload())
        },
        settle: Arc::new(move || {
            let fences = fences.clone();
            Box::pin(async move { drop(fences.pass().await) })
        }),
        told,
        memory,
        references,
        samples: (sample_store, sampler),
    };
    let context = admin::Context::new(parts, admin::Side::Unix);
    let doors = sockets.admin;
    others.push(spawn_local("serin-admin", move || async move {
        // The kill switch must be heard while the workers hold every core.
        threads::raise_priority();
        if let Err(error) = admin::serve(context, doors, admin_seen).await {
            tracing::error!(error = %error, "the admin side has ended");
        }
    })?);
    others.push(spawn_local("serin-queries", {
        let asks = admin::queries::Asks {
            live: live.clone(),
            mailbox: mailbox.clone(),
            gauges: Arc::clone(&gauges),
            clock: clock.clone(),
        };
        let stop = queries_seen;
        move || admin::queries::run(asks, stop)
    })?);
    if workers > 1 {
        let door = door(&mut sockets.listeners, &mut handles);
        others.push(spawn_local("serin-accept", move || async move {
            if let Err(error) = door.accept_all().await {
                tracing::error!(error = %error, "accepting has ended");
            }
        })?);
    }
    gauges.serving.store(true, Ordering::Relaxed);
    Ok(Serin {
        bound: sockets.bound,
        board,
        mailbox,
        live,
        recorders,
        control,
        shutdown,
        stop_accepting,
        stop_admin,
        workers: worker_threads,
        others,
    })
}

impl Serin {
    /// Reads the file again: all or nothing, the old stays in force on any fault.
    ///
    /// # Errors
    /// What is wrong with the file, or what forbids its change now.
    pub fn reload(&self) -> Result<(), String> {
        self.control.reload()
    }

    /// Carries out a verb, waiting for the answer.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn command(&self, command: Command) -> Result<Arc<RolloutView>, Refused> {
        let (answer, answered) = sync_channel(1);
        let letter = Letter { ask: Ask::Command(command), answer: Box::new(move |a| drop(answer.try_send(a))) };
        self.mailbox.post(letter)?;
        answered
            .recv_timeout(COMMAND_PATIENCE)
            .unwrap_or_else(|_| Err(Refused::Unavailable("the evaluator does not answer".to_owned())))
    }

    /// The configuration's drain times.
    #[must_use]
    pub fn drain_times(&self) -> config::Drain {
        self.live.load().config.drain
    }

    /// /readyz says no and every answer is its connection's last; connections are still accepted.
    pub fn announce_end(&self) {
        self.control.gauges.draining.store(true, Ordering::Relaxed);
        self.shutdown.send_replace(Shutdown::Announce);
    }

    /// Accepts no more and ends connections in good order.
    pub fn drain(&self) {
        self.stop_accepting.send_replace(true);
        self.shutdown.send_replace(Shutdown::Drain);
    }

    /// Whether every worker has served its last connection.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }

    /// Ends everything now, and waits for the threads.
    pub fn stop(self) {
        self.control.gauges.draining.store(true, Ordering::Relaxed);
        self.stop_accepting.send_replace(true);
        self.shutdown.send_replace(Shutdown::Now);
        self.stop_admin.send_replace(true);
        if self.mailbox.end().is_err() {
            tracing::debug!("the evaluator has already ended");
        }
        for worker in self.workers {
            if let Ok(Err(error)) = worker.join() {
                tracing::error!(error = %error, "a worker ended badly");
            }
        }
        for thread in self.others {
            drop(thread.join());
        }
    }
}

/// Without a store no secret outlives the process: references for feedback are good until it ends.
fn own_references() -> io::Result<References> {
    let mut secret = [0u8; 32];
    random(&mut secret)?;
    Ok(References::new(&secret))
}

/// Two descriptors a connection and some: the soft limit is raised to the hard one.
fn raise_descriptors() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit) {
        tracing::warn!(error = %error, "the limit of open files stays as it is");
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// A thread with a local runtime of its own.
fn spawn_local<F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()> + 'static,
{
    spawn(name, move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime.block_on(work()),
            Err(error) => tracing::error!(error = %error, "a runtime could not be built"),
        }
    })
}
