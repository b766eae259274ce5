//! Whether a caller who has ended his sending side is still there: many scripts do so behind their request and wait for the
//! answer, and a closed connection looks the same.
//!
//! He is asked by the first bytes of what he is owed in any case (RFC 9293 section 3.6.1: a host that has closed altogether
//! answers data with a reset), and the reset is waited for.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;

use tokio::io::Interest;
use tokio::net::TcpStream;

/// Done when the connection has failed.
pub type Reset = Pin<Box<dyn Future<Output = ()>>>;

/// What can be said now and is a part of the answer whatever the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// The version, of an answer that has not begun.
    OfAnAnswer,
    /// A zero in front of the size of a chunk.
    OfAChunk,
    /// Nothing.
    Nothing,
}

/// Waits for a reset. The stream itself tells of none behind its end (its reads are ready from then on), so a twin of its
/// descriptor does.
///
/// # Errors
/// There is no descriptor left.
pub fn watch(stream: &TcpStream) -> io::Result<Reset> {
    let twin = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
    let twin = TcpStream::from_std(twin)?;
    Ok(Box::pin(async move { drop(twin.ready(Interest::ERROR).await) }))
}
