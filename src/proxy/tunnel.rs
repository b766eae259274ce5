//! A WebSocket: after a 101 that was asked for, bytes pass both ways until one side ends or both are silent for long.

use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::body::DownBody;
use super::exchange::Exchange;
use crate::upstream::{Admitted, InFlight};
use crate::wire::Ending;

/// The caller's wish, kept until upstream agrees.
pub struct Asked(Option<OnUpgrade>);

impl Asked {
    /// Takes the wish out of a request head.
    #[must_use]
    pub fn of(parts: &mut Parts) -> Self {
        Self(parts.extensions.remove::<OnUpgrade>())
    }
}

/// Answers 101 and carries bytes in a task of its own. The exchange ends with the tunnel.
#[must_use]
pub fn open(
    asked: Asked,
    mut response: Response<Incoming>,
    mut exchange: Exchange,
    in_flight: InFlight,
    admitted: Admitted,
    idle: Duration,
) -> Response<DownBody> {
    let upstream = hyper::upgrade::on(&mut response);
    drop(tokio::task::spawn_local(async move {
        let _held = (in_flight, admitted);
        let Some(downstream) = asked.0 else { return };
        let (Ok(downstream), Ok(upstream)) = (downstream.await, upstream.await) else { return };
        let clean = carry(downstream, upstream, idle).await;
        let now = exchange.worker().clock.now();
        exchange.end(if clean { Ending::Clean } else { Ending::Broken }, now);
    }));
    let (parts, _) = response.into_parts();
    debug_assert_eq!(parts.status, StatusCode::SWITCHING_PROTOCOLS);
    Response::from_parts(parts, DownBody::full(bytes::Bytes::new()))
}

/// Carries bytes until both sides have ended. `false`: upstream broke off.
async fn carry(downstream: Upgraded, upstream: Upgraded, idle: Duration) -> bool {
    let (mut down_read, mut down_write) = tokio::io::split(TokioIo::new(downstream));
    let (mut up_read, mut up_write) = tokio::io::split(TokioIo::new(upstream));
    let up = one_way(&mut down_read, &mut up_write, idle);
    let down = one_way(&mut up_read, &mut down_write, idle);
    let (up, down) = (std::pin::pin!(up), std::pin::pin!(down));
    // An end on either side ends the other within a moment: WebSockets close by messages, not by half-open sockets.
    match futures_util::future::select(up, down).await {
        futures_util::future::Either::Left((_, down)) => {
            tokio::time::timeout(Duration::from_secs(5), down).await.is_ok_and(|end| end.is_ok())
        }
        futures_util::future::Either::Right((end, _)) => end.is_ok(),
    }
}

type Half = TokioIo<Upgraded>;

async fn one_way(from: &mut ReadHalf<Half>, to: &mut WriteHalf<Half>, idle: Duration) -> std::io::Result<()> {
    let mut buffer = vec![0u8; 16 << 10];
    loop {
        let n = tokio::time::timeout(idle, from.read(&mut buffer)).await??;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
    }
}
