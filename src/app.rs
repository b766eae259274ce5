//! The composition root: the one file that knows every part. Binds, starts threads, reloads, drains.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::evaluator::threads;
use crate::evaluator::turn::Known;
use crate::evaluator::{Ask, Board, Command, Heartbeat, Letter, Mailbox, Refused, RolloutView, ToLog, World, guard};
use crate::journal::{self, Evidence, Journal};
use crate::measure::{Gauges, Recorders, ring};
use crate::names::RolloutName;
use crate::proxy::listener::{self, HANDED, Listening, WorkerHandle};
use crate::proxy::{self, Shutdown, worker};
use crate::snapshot::{Builder, Live, Runtime};
use crate::tls;
use crate::upstream::{Cluster, Registry, health};

/// Longest wait for the evaluator's word on a reload.
const RELOAD_PATIENCE: Duration = Duration::from_secs(20);

/// Why serin could not start. Each text says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file is wrong.
    #[error("{0}")]
    Config(String),
    /// An address cannot be bound.
    #[error("{key} = \"{address}\": cannot listen there: {source}{}", remedy(.source))]
    Bind {
        /// The key of the configuration.
        key: String,
        /// The address or path.
        address: String,
        /// The system's word.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("{key}: {source}\n  give a PEM certificate chain and its PEM private key, readable by this user")]
    Tls {
        /// The key of the configuration.
        key: String,
        /// Why not.
        source: tls::TlsError,
    },
    /// A rollout's endpoints cannot be set up.
    #[error("{0}")]
    Build(#[from] crate::snapshot::BuildError),
    /// The store cannot be used.
    #[error("store.path = \"{path}\": {why}\n  serin needs a directory of its own that it can write to")]
    Store {
        /// The directory.
        path: String,
        /// Why not.
        why: String,
    },
    /// The system refuses threads or sockets.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "\n  another process listens there: stop it, or choose another port (0 lets the system choose)"
        }
        io::ErrorKind::PermissionDenied => {
            "\n  ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one or grant it"
        }
        io::ErrorKind::AddrNotAvailable => {
            "\n  this machine has no such address: use 127.0.0.1, 0.0.0.0 or one of its own"
        }
        _ => "",
    }
}

/// Where a running serin is reached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Bound {
    /// Listeners by name.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// The admin API.
    pub admin: Option<SocketAddr>,
    /// The admin API's socket.
    pub socket: Option<PathBuf>,
    /// The probes' address.
    pub probes: Option<SocketAddr>,
}

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

/// What a reload needs.
struct Control {
    path: Option<PathBuf>,
    builder: Builder,
    registry: Arc<Registry>,
    live: Live,
    mailbox: Mailbox,
    gauges: Arc<Gauges>,
    clock: Clock,
    listening: Vec<Arc<Listening>>,
    admin_tls: Option<Arc<ArcSwap<ServerConfig>>>,
    clusters: watch::Sender<Vec<Arc<Cluster>>>,
    /// One reload at a time.
    turn: Mutex<()>,
}

/// Starts serin under a configuration. `path` is where a reload reads it again.
///
/// # Errors
/// See [`StartError`]; nothing is left running then.
pub fn start(config: Config, path: Option<PathBuf>, clock: &Clock) -> Result<Serin, StartError> {
    raise_descriptors();
    let config = Arc::new(config);
    let sockets = bind_all(&config)?;
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
    let prepared = Arc::new(builder.prepare(Arc::clone(&config))?);
    let resolver = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    resolver.block_on(health::resolve_all(&registry));
    let live = Live::new(prepared.merge(|_| Runtime::default()));
    let gauges = Arc::new(Gauges::default());
    gauges.reloaded(true, clock.wall());
    let (mailbox, inbox) = crate::evaluator::mailbox::mailbox();
    let (board, heartbeat) = (Board::default(), Heartbeat::default());

    let mut others = Vec::new();
    let (rings, readers): (Vec<_>, Vec<_>) = (0..workers).map(|_| ring::ring(ring::RING_RECORDS)).unzip();
    let (orders, orders_in) = threads::orders();
    let (batches, batches_in) = threads::batches();
    let world = World {
        live: live.clone(),
        journal,
        mailbox: mailbox.clone(),
        notifier: Box::new(ToLog),
        guard: orders,
        prepared: Arc::clone(&prepared),
        gauges: Arc::clone(&gauges),
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
    others.push(threads::spawn_guard(guard::Parts {
        rings: readers,
        live: live.clone(),
        batches,
        mailbox: mailbox.clone(),
        orders: orders_in,
        gauges: Arc::clone(&gauges),
        clock: clock.clone(),
    })?);

    let (shutdown, shutdown_seen) = watch::channel(Shutdown::Run);
    let (stop_accepting, stop_seen) = watch::channel(false);
    let (stop_admin, admin_seen) = watch::channel(false);
    let mut handles = Vec::new();
    let mut worker_threads = Vec::new();
    let mut seed = [0u8; 8];
    random(&mut seed)?;
    for (index, ring) in rings.into_iter().enumerate() {
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
            seed: xxhash_rust::xxh3::xxh3_64_with_seed(&seed, index as u64),
        };
        let shutdown = shutdown_seen.clone();
        worker_threads
            .push(spawn(&format!("serin-worker-{index}"), move || proxy::thread::run(parts, handed, shutdown))?);
    }
    let (clusters, clusters_seen) = watch::channel(prepared.clusters());
    others.push(spawn_local("serin-upstream", {
        let (registry, clock, stop) = (Arc::clone(&registry), clock.clone(), admin_seen.clone());
        move || health::run(registry, clusters_seen, clock, stop)
    })?);

    let listening: Vec<_> = sockets.listeners.iter().map(|(_, l)| Arc::clone(l)).collect();
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
    let parts = admin::Parts {
        live: live.clone(),
        board: board.clone(),
        mailbox: mailbox.clone(),
        heartbeat,
        recorders: Arc::clone(&recorders),
        gauges: Arc::clone(&gauges),
        clock: clock.clone(),
        reload: {
            let control = Arc::clone(&control);
            Arc::new(move || control.reload())
        },
        exchanges: Arc::new(admin::NoExchanges),
    };
    let context = admin::Context::new(parts, admin::Side::Unix);
    let doors = sockets.admin;
    others.push(spawn_local("serin-admin", move || async move {
        if let Err(error) = admin::serve(context, doors, admin_seen).await {
            tracing::error!(error = %error, "the admin side has ended");
        }
    })?);
    others.push(spawn_local("serin-accept", {
        let (live, gauges) = (live.clone(), Arc::clone(&gauges));
        let listeners = sockets.listeners;
        move || async move {
            if let Err(error) = listener::accept_all(listeners, handles, live, gauges, stop_seen).await {
                tracing::error!(error = %error, "accepting has ended");
            }
        }
    })?);
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
            .recv_timeout(RELOAD_PATIENCE)
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
        if self.mailbox.post(Letter { ask: Ask::End, answer: Box::new(|_| ()) }).is_err() {
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

impl Control {
    fn reload(&self) -> Result<(), String> {
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
        let ask = Ask::Reload(Arc::clone(&prepared), Box::new(move |result| drop(answer.try_send(result))));
        self.mailbox.post(Letter { ask, answer: Box::new(|_| ()) }).map_err(|e| e.to_string())?;
        answered.recv_timeout(RELOAD_PATIENCE).map_err(|_| "the evaluator does not answer".to_owned())??;
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

struct Sockets {
    listeners: Vec<(std::net::TcpListener, Arc<Listening>)>,
    admin: admin::Doors,
    bound: Bound,
}

fn bind_all(config: &Config) -> Result<Sockets, StartError> {
    let bind = |key: &str, address: SocketAddr| {
        listener::bind(address).map_err(|source| StartError::Bind {
            key: key.to_owned(),
            address: address.to_string(),
            source,
        })
    };
    let mut bound = Bound { listeners: BTreeMap::new(), admin: None, socket: None, probes: None };
    let mut listeners = Vec::new();
    for one in &config.listeners {
        let key = format!("listeners.{}", one.name);
        let shown = match &one.tls {
            None => None,
            Some(files) => {
                Some(tls::server(files, true).map_err(|source| StartError::Tls { key: format!("{key}.tls"), source })?)
            }
        };
        let socket = bind(&format!("{key}.listen"), one.listen)?;
        bound.listeners.insert(one.name.clone(), socket.local_addr()?);
        listeners.push((socket, Arc::new(Listening::new(one.clone(), shown))));
    }
    let mut doors = admin::Doors::default();
    if let Some(address) = config.admin.listen {
        let socket = bind("admin.listen", address)?;
        bound.admin = Some(socket.local_addr()?);
        doors.api = Some(socket);
    }
    if let Some(files) = &config.admin.tls {
        let shown =
            tls::server(files, false).map_err(|source| StartError::Tls { key: "admin.tls".to_owned(), source })?;
        doors.tls = Some(Arc::new(ArcSwap::new(shown)));
    }
    if let Some(path) = &config.admin.socket {
        doors.socket = Some(bind_unix(path)?);
        bound.socket = Some(path.clone());
    }
    if let Some(address) = config.admin.probes {
        let socket = bind("admin.probes", address)?;
        bound.probes = Some(socket.local_addr()?);
        doors.probes = Some(socket);
    }
    Ok(Sockets { listeners, admin: doors, bound })
}

fn bind_unix(path: &Path) -> Result<std::os::unix::net::UnixListener, StartError> {
    let refuse =
        |source| StartError::Bind { key: "admin.socket".to_owned(), address: path.display().to_string(), source };
    // A socket that nobody answers on is left over from a process that ended.
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(refuse)?;
    }
    let socket = std::os::unix::net::UnixListener::bind(path).map_err(refuse)?;
    socket.set_nonblocking(true).map_err(refuse)?;
    Ok(socket)
}

type Store = (Arc<Journal>, BTreeMap<RolloutName, Known>, Option<Evidence>);

/// Opens the journal and the evidence beside it, or their stand-ins in memory.
fn open_store(config: &Config) -> Result<Store, StartError> {
    let Some(store) = &config.store else {
        tracing::warn!(
            "no [store]: stages, latches and the journal live in memory only and are lost with this process"
        );
        return Ok((Arc::new(Journal::memory()?), BTreeMap::new(), None));
    };
    let refuse = |why: String| StartError::Store { path: store.path.display().to_string(), why };
    let options = journal::Options { retention: store.retention, ..journal::Options::default() };
    let (journal, recovered) =
        Journal::open_with(&store.path.join("journal"), options).map_err(|e| refuse(e.to_string()))?;
    if let Some(torn) = &recovered.torn {
        tracing::warn!(path = %torn.path.display(), entry = torn.n, bytes = torn.bytes, "the journal's tail was torn by a crash and has been cut off; no acknowledged change was in it");
    }
    let evidence = Evidence::open(&store.path.join("evidence")).map_err(|e| refuse(e.to_string()))?;
    let known = recovered
        .states
        .into_iter()
        .map(|(name, state)| {
            let kept = evidence.load(&name);
            (name, Known { state, kept })
        })
        .collect();
    Ok((Arc::new(journal), known, Some(evidence)))
}

/// The installation's secret: made at the first start, kept beside the journal, readable by this user alone.
fn store_secret(store: &Path) -> Result<Vec<u8>, StartError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let refuse = |error: io::Error| StartError::Store { path: store.display().to_string(), why: error.to_string() };
    std::fs::create_dir_all(store).map_err(refuse)?;
    let path = store.join("secret");
    match std::fs::read(&path) {
        Ok(secret) if secret.len() == 32 => return Ok(secret),
        Ok(_) => {
            let why = "the file \"secret\" in it is not 32 bytes long; restore it, for it decides every user's arm";
            return Err(StartError::Store { path: store.display().to_string(), why: why.to_owned() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refuse(error)),
    }
    let mut secret = vec![0u8; 32];
    random(&mut secret)?;
    let fresh = store.join("secret.new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(refuse)?;
    file.write_all(&secret).and_then(|()| file.sync_all()).map_err(refuse)?;
    std::fs::rename(&fresh, &path).map_err(refuse)?;
    Ok(secret)
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(bytes)
        .map_err(|_| io::Error::other("no random bytes are to be had"))
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
