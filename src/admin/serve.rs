//! The admin side's doors: TCP, TLS, a Unix socket, and the probes' own address, on one small runtime.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::context::{Context, Side};
use super::{events, router};

/// Connections of people and scrapers at once, over all doors; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 512;
/// Longest wait for a request's head, or for a TLS handshake.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// Most bytes of a head.
const HEAD_BYTES: usize = 64 << 10;
/// How long answers under way may take once the process ends.
const END_WAIT: Duration = Duration::from_secs(2);
/// Wait after a failed accept: the process is out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the admin side is reached. Listeners are handed in bound and not blocking.
#[derive(Default)]
pub struct Doors {
    /// `admin.listen`.
    pub api: Option<std::net::TcpListener>,
    /// TLS of `api`; replaced by a reload.
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    /// `admin.socket`.
    pub socket: Option<std::os::unix::net::UnixListener>,
    /// `admin.probes`.
    pub probes: Option<std::net::TcpListener>,
}

/// Serves all doors until `stop` is true. To be run on the admin thread's runtime.
///
/// # Errors
/// A listener that the runtime cannot take.
pub async fn serve(cx: Context, doors: Doors, stop: watch::Receiver<bool>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    tasks.spawn(events::run(cx.clone(), stop.clone()));
    if let Some(listener) = doors.api {
        let local = listener.local_addr()?;
        let side = Side::Tcp { local, tls: doors.tls.is_some() };
        let door = Door { router: router(cx.on(side)), tls: doors.tls, places: Arc::clone(&places) };
        tasks.spawn(door.tcp(TcpListener::from_std(listener)?, stop.clone()));
    }
    if let Some(listener) = doors.socket {
        let door = Door { router: router(cx.on(Side::Unix)), tls: None, places: Arc::clone(&places) };
        tasks.spawn(door.unix(UnixListener::from_std(listener)?, stop.clone()));
    }
    if let Some(listener) = doors.probes {
        let door = Door { router: super::probes_router(cx), tls: None, places };
        tasks.spawn(door.tcp(TcpListener::from_std(listener)?, stop));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// One listener's way in.
struct Door {
    router: Router,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    places: Arc<Semaphore>,
}

impl Door {
    async fn tcp(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let (graceful, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
        while let Some(place) = self.place(&mut stop, &mut tasks).await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => break,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "admin: TCP_NODELAY refused");
            }
            match &self.tls {
                None => drop(tasks.spawn(converse(stream, self.router.clone(), graceful.watcher(), place))),
                Some(tls) => {
                    let acceptor = TlsAcceptor::from(tls.load_full());
                    let (router, watcher) = (self.router.clone(), graceful.watcher());
                    drop(tasks.spawn(async move {
                        if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_WAIT, acceptor.accept(stream)).await {
                            converse(stream, router, watcher, place).await;
                        }
                    }));
                }
            }
        }
        finish(graceful, tasks).await;
    }

    async fn unix(self, listener: UnixListener, mut stop: watch::Receiver<bool>) {
        let (graceful, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
        while let Some(place) = self.place(&mut stop, &mut tasks).await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => break,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            drop(tasks.spawn(converse(stream, self.router.clone(), graceful.watcher(), place)));
        }
        finish(graceful, tasks).await;
    }

    /// Waits for a free place; `None` once the process ends. Finished conversations are forgotten on the way.
    async fn place(&self, stop: &mut watch::Receiver<bool>, tasks: &mut JoinSet<()>) -> Option<OwnedSemaphorePermit> {
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            place = Arc::clone(&self.places).acquire_owned() => place.ok(),
            () = stopped(stop) => None,
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error is the end of the sender: the process ends as well.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn finish(graceful: GracefulShutdown, mut tasks: JoinSet<()>) {
    if tokio::time::timeout(END_WAIT, graceful.shutdown()).await.is_err() {
        tracing::debug!("admin: answers under way were cut at the end");
    }
    tasks.shutdown().await;
}

async fn converse<S>(
    stream: S,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
    place: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "admin: connection ended");
    }
    drop(place);
}
