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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::measure::gauges::{Gauges, Limit};
use crate::snapshot::Live;

/// Connections that may wait in a listening socket's queue.
const BACKLOG: i32 = 4_096;
/// A caller that vanished without a word is noticed within two minutes.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
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

/// An accepted socket.
pub enum Accepted {
    /// By the worker itself: registered with its runtime.
    Here(TcpStream),
    /// By another thread: registered with no runtime.
    Elsewhere(std::net::TcpStream),
}

/// A connection on its way to a worker.
pub struct Handed {
    /// The socket.
    pub tcp: Accepted,
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

/// Binds a listening socket: address reuse, a deep queue, both families on `[::]`. Accepted sockets inherit its TCP options
/// (Linux), which saves four system calls for each.
///
/// # Errors
/// The address is in use or not ours.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What accepting needs.
pub struct Door {
    /// The listening sockets.
    pub sockets: Vec<(std::net::TcpListener, Arc<Listening>)>,
    /// Who serves. The only one accepts as well.
    pub workers: Vec<WorkerHandle>,
    /// The snapshot in force.
    pub live: Live,
    /// Counts of the data plane.
    pub gauges: Arc<Gauges>,
    /// Says when to end.
    pub stop: watch::Receiver<bool>,
}

impl Door {
    /// Accepts until `stop` says so, then takes what already waits and closes the sockets. Runs on a thread of its own, or
    /// on the only worker's: there nothing is handed from one thread to another.
    ///
    /// # Errors
    /// A socket could not be registered with the runtime.
    pub async fn accept_all(self) -> io::Result<()> {
        let Self { sockets, workers, live, gauges, stop } = self;
        let workers = Rc::new(workers);
        let mut tasks = Vec::new();
        for (socket, listening) in sockets {
            let socket = TcpListener::from_std(socket)?;
            let (workers, live, gauges, stop) = (Rc::clone(&workers), live.clone(), Arc::clone(&gauges), stop.clone());
            tasks.push(tokio::task::spawn_local(async move {
                accept(socket, listening, &workers, &live, &gauges, stop).await;
            }));
        }
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(error = %error, "a listener's task ended badly");
            }
        }
        Ok(())
    }
}

async fn accept(
    socket: TcpListener,
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
    tcp: TcpStream,
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
    let tcp = match workers.len() {
        1 => Accepted::Here(tcp),
        _ => match tcp.into_std() {
            Ok(tcp) => Accepted::Elsewhere(tcp),
            Err(_) => return,
        },
    };
    worker.load.fetch_add(1, Ordering::Relaxed);
    let handed = Handed { tcp, peer, listening: Arc::clone(listening) };
    if worker.connections.send(handed).await.is_err() {
        worker.load.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_has_the_listeners_options() {
        let socket = TcpListener::from_std(bind("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
        let _caller = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = socket.accept().await.unwrap();
        let options = socket2::SockRef::from(&tcp);
        assert!(options.tcp_nodelay().unwrap() && options.keepalive().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
    }
}
