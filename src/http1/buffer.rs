//! What has been read and not yet used. The memory is lent by the thread: a connection that waits holds none.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What one read may bring at first: a head with its body, or a stream's event.
const FIRST: usize = 8 << 10;
/// What one read may bring once reads come full: fewer calls for large bodies.
const LARGE: usize = 64 << 10;
/// Buffers that a thread keeps for the next connection.
const KEPT: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that were read ahead of their use.
#[derive(Debug, Default)]
pub struct Input {
    /// The bytes, oldest first.
    pub bytes: BytesMut,
    /// The last read came full.
    full: bool,
}

impl Input {
    /// Bytes that were read by somebody else.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: BytesMut::from(bytes), full: false }
    }

    /// Reads once; 0 is the end of the stream.
    pub fn poll_fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let room = self.bytes.capacity() - self.bytes.len();
        let read: Pin<&mut _> = pin!(stream.read_buf(&mut self.bytes));
        let read = ready!(read.poll(cx))?;
        self.full = read == room;
        Poll::Ready(Ok(read))
    }

    fn make_room(&mut self) {
        let want = if self.full { LARGE } else { FIRST };
        if self.bytes.capacity() - self.bytes.len() >= want / 2 {
            return;
        }
        if self.bytes.capacity() == 0 && !self.full {
            self.bytes = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.bytes.reserve(want);
    }

    /// Gives the memory back when nothing is in it.
    pub fn rest(&mut self) {
        if !self.bytes.is_empty() {
            return;
        }
        self.full = false;
        let buffer = std::mem::take(&mut self.bytes);
        if buffer.capacity() > 0 && buffer.capacity() <= FIRST {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < KEPT {
                    spare.push(buffer);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn fill(input: &mut Input, mut stream: &[u8]) -> usize {
        let Poll::Ready(Ok(n)) = input.poll_fill(&mut stream, &mut Context::from_waker(Waker::noop())) else {
            panic!("a slice is always ready")
        };
        n
    }

    #[test]
    fn a_buffer_that_came_full_is_followed_by_a_large_one() {
        let mut input = Input::default();
        let body = vec![7u8; 1 << 20];
        assert!(fill(&mut input, &body) < LARGE / 2);
        drop(input.bytes.split());
        assert!(fill(&mut input, &body) >= LARGE);
        drop(input.bytes.split());
        fill(&mut input, b"small");
        drop(input.bytes.split());
        input.rest();
        assert!(fill(&mut input, &body) < LARGE / 2, "small again after a rest");
    }

    #[test]
    fn a_connection_at_rest_holds_no_memory_and_the_next_one_uses_it() {
        let mut input = Input::default();
        fill(&mut input, b"GET");
        input.rest();
        assert_eq!(&input.bytes[..], b"GET", "what is not used stays");
        drop(input.bytes.split());
        input.rest();
        assert_eq!(input.bytes.capacity(), 0);
        assert_eq!(SPARE.with_borrow(Vec::len), 1);
        fill(&mut Input::default(), b"x");
        assert_eq!(SPARE.with_borrow(Vec::len), 0);
    }
}
