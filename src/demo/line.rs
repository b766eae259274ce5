//! One TCP connection that can be torn down by a reset, and whose first bytes can be looked at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a request handler holds of the connection under it.
#[derive(Clone, Debug, Default)]
pub struct Cord(Arc<AtomicBool>);

impl Cord {
    /// Makes the connection end by a TCP reset at its next read or write, or when it is dropped.
    pub fn pull(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_pulled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A connection with the bytes that were read ahead of it.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    ahead: Vec<u8>,
    taken: usize,
    cord: Cord,
}

/// HTTP/2's connection preface begins so, and no HTTP/1 method does.
const PREFACE_START: &[u8] = b"PRI";

impl Line {
    /// Reads the first bytes of `stream` and says whether they begin HTTP/2 by prior knowledge.
    ///
    /// # Errors
    /// What reading the socket says.
    pub async fn open(mut stream: TcpStream) -> io::Result<(Self, Cord, bool)> {
        let mut ahead = Vec::with_capacity(512);
        while ahead.len() < PREFACE_START.len() {
            if stream.read_buf(&mut ahead).await? == 0 {
                break;
            }
        }
        let h2 = ahead.starts_with(PREFACE_START);
        let cord = Cord::default();
        Ok((Self { stream, ahead, taken: 0, cord: cord.clone() }, cord, h2))
    }

    fn check(&self) -> io::Result<()> {
        if self.cord.is_pulled() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

/// Makes the close of `stream` send a reset instead of an orderly end.
pub fn reset_on_close(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    if socket.set_linger(Some(Duration::ZERO)).is_err() {
        // The peer is gone already: there is nobody to reset.
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.cord.is_pulled() {
            reset_on_close(&self.stream);
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.taken < self.ahead.len() {
            let n = buf.remaining().min(self.ahead.len() - self.taken);
            buf.put_slice(&self.ahead[self.taken..self.taken + n]);
            self.taken += n;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
