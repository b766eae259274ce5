//! A WebSocket: after a 101 that was asked for, bytes pass both ways until one side ends or both are silent for long.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::exchange::Exchange;
use crate::http1::{Input, Io};
use crate::upstream::{Admitted, InFlight};
use crate::wire::Ending;

/// After one side has ended, the other may say its last for so long.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What upstream has agreed to; carried once the 101 is written. Its exchange ends with it.
pub struct Tunnel {
    /// The endpoint's side.
    pub upstream: Io,
    /// What the endpoint sent behind its 101.
    pub input: Input,
    /// The exchange that began it.
    pub exchange: Exchange,
    /// Counts on the endpoint until the end.
    pub in_flight: InFlight,
    /// The version's place.
    pub admitted: Admitted,
    /// Longest silence.
    pub idle: Duration,
}

impl Tunnel {
    /// Carries bytes until both sides have ended. `early` is what the caller sent without waiting for the answer.
    pub async fn carry(mut self, downstream: Io, early: Input) {
        let clean = carry((downstream, early), (self.upstream, self.input), self.idle).await;
        let now = self.exchange.worker().clock.now();
        self.exchange.end(if clean { Ending::Clean } else { Ending::Broken }, now);
        drop((self.in_flight, self.admitted));
    }
}

/// `false`: upstream broke off.
async fn carry(down: (Io, Input), up: (Io, Input), idle: Duration) -> bool {
    let (mut down_read, mut down_write) = tokio::io::split(down.0);
    let (mut up_read, mut up_write) = tokio::io::split(up.0);
    let upwards = one_way(down.1, &mut down_read, &mut up_write, idle);
    let downwards = one_way(up.1, &mut up_read, &mut down_write, idle);
    let (upwards, downwards) = (std::pin::pin!(upwards), std::pin::pin!(downwards));
    // An end on either side ends the other within a moment: WebSockets close by messages, not by half-open sockets.
    match futures_util::future::select(upwards, downwards).await {
        futures_util::future::Either::Left((_, rest)) => {
            tokio::time::timeout(LAST_WORDS, rest).await.is_ok_and(|end| end.is_ok())
        }
        futures_util::future::Either::Right((end, _)) => end.is_ok(),
    }
}

async fn one_way<R, W>(early: Input, from: &mut ReadHalf<R>, to: &mut WriteHalf<W>, idle: Duration) -> io::Result<()>
where
    R: tokio::io::AsyncRead,
    W: tokio::io::AsyncWrite,
{
    if !early.bytes.is_empty() {
        to.write_all(&early.bytes).await?;
        to.flush().await?;
    }
    drop(early);
    let mut buffer = vec![0u8; 16 << 10];
    loop {
        let n = tokio::time::timeout(idle, from.read(&mut buffer)).await??;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
    }
}
