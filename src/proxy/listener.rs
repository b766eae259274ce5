//! Accepting: one thread takes connections from every listening socket and hands each to the least loaded worker.
//!
//! SO_REUSEPORT would share connections out by hash, not by load, and closing one of its sockets resets what waits in
//! that socket's queue.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::measure::gauges::{Gauges, Limit};
use crate::snapshot::Live;

/// Connections that may wait in a listening socket's queue.
const BACKLOG: i32 = 4_096;
/// Connections on their way to a worker.
pub const HANDED: usize = 1_024;

/// A listener in force: its configuration and the certificate it shows, which a reload replaces.
#[derive(Debug)]
pub struct Listening {
    /// Its configuration at start.
    pub config: config::Listener,
    tls: ArcSwapOption<ServerConfig>,
}

impl Listening {
    /// A listener that shows this certificate.
    #[must_use]
    pub fn new(config: config::Listener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self { config, tls: ArcSwapOption::new(tls) }
    }

    /// What new connections are shown.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }

    /// New connections are shown this from now on.
    pub fn show(&self, tls: Option<Arc<ServerConfig>>) {
        self.tls.store(tls);
    }
}

/// A connection on its way to a worker.
pub struct Handed {
    /// The socket, not yet registered with any runtime.
    pub tcp: std::net::TcpStream,
    /// The other side.
    pub peer: SocketAddr,
    /// The listener it came in by.
    pub listening: Arc<Listening>,
}

/// The way to one worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// Connections go in here.
    pub connections: mpsc::Sender<Handed>,
    /// Connections it holds or is about to.
    pub load: Arc<AtomicUsize>,
}

/// Binds a listening socket: address reuse, a deep queue, both families on `[::]`.
///
/// # Errors
/// The address is in use or not ours.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until `stop` says so, then takes what already waits and closes the sockets. Runs on a thread of its own.
pub async fn accept_all(
    sockets: Vec<(std::net::TcpListener, Arc<Listening>)>,
    workers: Vec<WorkerHandle>,
    live: Live,
    gauges: Arc<Gauges>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let workers = Rc::new(workers);
    let mut tasks = Vec::new();
    for (socket, listening) in sockets {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let (workers, live, gauges, stop) = (Rc::clone(&workers), live.clone(), Arc::clone(&gauges), stop.clone());
        tasks.push(tokio::task::spawn_local(
            async move { accept(socket, listening, &workers, &live, &gauges, stop).await },
        ));
    }
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(error = %error, "a listener's task ended badly");
        }
    }
    Ok(())
}

async fn accept(
    socket: tokio::net::TcpListener,
    listening: Arc<Listening>,
    workers: &[WorkerHandle],
    live: &Live,
    gauges: &Gauges,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            accepted = socket.accept() => match accepted {
                Ok((tcp, peer)) => hand_over(tcp, peer, &listening, workers, live, gauges).await,
                Err(error) => back_off(&error).await,
            },
            _ = stop.changed() => break,
        }
    }
    // What the kernel has already accepted for us is served, not reset.
    while let Ok(Ok((tcp, peer))) = tokio::time::timeout(Duration::ZERO, socket.accept()).await {
        hand_over(tcp, peer, &listening, workers, live, gauges).await;
    }
}

async fn back_off(error: &io::Error) {
    let per_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if !per_connection {
        // Out of descriptors or memory: streams under way live on, new ones wait.
        tracing::warn!(error = %error, "accepting connections failed; trying again in 100 ms");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn hand_over(
    tcp: tokio::net::TcpStream,
    peer: SocketAddr,
    listening: &Arc<Listening>,
    workers: &[WorkerHandle],
    live: &Live,
    gauges: &Gauges,
) {
    let most = live.load().config.limits.connections;
    let total: usize = workers.iter().map(|w| w.load.load(Ordering::Relaxed)).sum();
    if total >= most {
        gauges.hit(Limit::Connections);
        return;
    }
    let Some(worker) = workers.iter().min_by_key(|w| w.load.load(Ordering::Relaxed)) else { return };
    let Ok(tcp) = prepare(tcp) else { return };
    worker.load.fetch_add(1, Ordering::Relaxed);
    let handed = Handed { tcp, peer, listening: Arc::clone(listening) };
    if worker.connections.send(handed).await.is_err() {
        worker.load.fetch_sub(1, Ordering::Relaxed);
    }
}

fn prepare(tcp: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
    tcp.set_nodelay(true)?;
    let tcp = tcp.into_std()?;
    // A caller that vanished without a word is noticed within two minutes.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}
