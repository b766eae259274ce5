//! A WebSocket: after a 101 that was asked for, bytes pass both ways until one side ends or both are silent for long.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

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
async fn carry<D, U>(down: (D, Input), up: (U, Input), idle: Duration) -> bool
where
    D: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (mut down_read, mut down_write) = tokio::io::split(down.0);
    let (mut up_read, mut up_write) = tokio::io::split(up.0);
    let silence = Silence { bound: idle, reads: Cell::new(0) };
    let upwards = one_way(down.1, &mut down_read, &mut up_write, &silence);
    let downwards = one_way(up.1, &mut up_read, &mut down_write, &silence);
    let (upwards, downwards) = (std::pin::pin!(upwards), std::pin::pin!(downwards));
    // An end on either side ends the other within a moment: WebSockets close by messages, not by half-open sockets.
    match futures_util::future::select(upwards, downwards).await {
        futures_util::future::Either::Left((_, rest)) => {
            tokio::time::timeout(LAST_WORDS, rest).await.is_ok_and(|end| end.is_ok())
        }
        futures_util::future::Either::Right((end, _)) => end.is_ok(),
    }
}

/// How long both sides may be silent, and how often either was not.
struct Silence {
    bound: Duration,
    reads: Cell<u64>,
}

impl Silence {
    /// Reads from one side for as long as either speaks.
    async fn read(&self, from: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let before = self.reads.get();
            match tokio::time::timeout(self.bound, from.read(buffer)).await {
                Ok(read) => {
                    self.reads.set(self.reads.get() + 1);
                    return read;
                }
                Err(silent) if self.reads.get() == before => return Err(silent.into()),
                Err(_) => {}
            }
        }
    }
}

async fn one_way(
    early: Input,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    silence: &Silence,
) -> io::Result<()> {
    if !early.bytes.is_empty() {
        to.write_all(&early.bytes).await?;
        to.flush().await?;
    }
    drop(early);
    let mut buffer = vec![0u8; 16 << 10];
    loop {
        let n = silence.read(from, &mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_side_may_be_silent_for_as_long_as_the_other_speaks() {
        let ((mut caller, down), (mut endpoint, up)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let carried = carry((down, Input::default()), (up, Input::default()), IDLE);
        let pushing = async {
            let mut tick = [0u8; 4];
            for _ in 0..30 {
                tokio::time::sleep(IDLE / 3).await;
                endpoint.write_all(b"tick").await.unwrap();
                caller.read_exact(&mut tick).await.unwrap();
            }
            let spoken = tokio::time::Instant::now();
            // Nobody speaks any more.
            assert_eq!(caller.read(&mut tick).await.unwrap(), 0);
            spoken.elapsed()
        };
        let (_, silent) = tokio::join!(carried, pushing);
        assert!(silent >= IDLE && silent <= 2 * IDLE + LAST_WORDS, "{silent:?}");
    }
}
