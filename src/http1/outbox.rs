//! A message on its way out: heads and small frames are joined, so that what is ready leaves in one write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, Version};
use tokio::io::AsyncWrite;

/// Frames up to this size are copied behind what waits already: cheaper than one more slice of a vectored write.
const COPIED_MOST: usize = 4 << 10;
/// Nothing more is taken in while so much waits.
const FULL: usize = 16 << 10;

/// How every status line begins.
const VERSION: &[u8] = b"HTTP/1.1 ";

/// How the frames of a body are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing of a body is sent.
    None,
    /// As they are: a length was announced, and so many bytes are still owed.
    Exact(u64),
    /// As they are, until the connection closes.
    UntilClose,
    /// In chunks.
    Chunked,
}

/// More or fewer bytes than announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not as long as announced")]
pub struct WrongLength;

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Heads, chunk lines and small frames.
    text: Vec<u8>,
    written: usize,
    /// A large frame behind the text.
    data: Bytes,
    /// What ends that frame.
    tail: &'static [u8],
    /// The next status line has been begun.
    begun: bool,
}

impl Outbox {
    /// Whether all has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written == self.text.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether it should be written before more is put in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.data.is_empty() || !self.tail.is_empty() || self.text.len() - self.written >= FULL
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.text.len() - self.written + self.data.len() + self.tail.len()
    }

    /// Words of ours.
    pub fn put(&mut self, text: &[u8]) {
        debug_assert!(self.data.is_empty());
        self.text.extend_from_slice(text);
    }

    /// A request line.
    pub fn put_request(&mut self, method: &Method, target: &str) {
        self.text.reserve(1 << 10);
        self.put(method.as_str().as_bytes());
        self.put(if target.starts_with(['/', '*']) { b" " } else { b" /" });
        self.put(target.as_bytes());
        self.put(b" HTTP/1.1\r\n");
    }

    /// The beginning that all status lines have; the next one goes on from there.
    pub fn begin_status(&mut self) {
        self.put(VERSION);
        self.begun = true;
    }

    /// A status line.
    pub fn put_status(&mut self, status: StatusCode) {
        self.text.reserve(512);
        if !std::mem::take(&mut self.begun) {
            self.put(VERSION);
        }
        if status == StatusCode::OK {
            self.put(b"200 OK\r\n");
            return;
        }
        self.put(status.as_str().as_bytes());
        self.put(b" ");
        self.put(status.canonical_reason().unwrap_or_default().as_bytes());
        self.put(b"\r\n");
    }

    /// All fields of a map.
    pub fn put_fields(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            self.put_field(name, value.as_bytes());
        }
    }

    /// One field.
    pub fn put_field(&mut self, name: &HeaderName, value: &[u8]) {
        let name = name.as_str().as_bytes();
        self.text.reserve(name.len() + value.len() + 4);
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }

    /// `Content-Length`.
    pub fn put_length(&mut self, length: u64) {
        let mut digits = [0u8; 20];
        let mut from = digits.len();
        let mut rest = length;
        loop {
            from -= 1;
            digits[from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.put_field(&header::CONTENT_LENGTH, &digits[from..]);
    }

    /// A frame of a body. `last` says that no more data follows, so that the end goes with it.
    ///
    /// # Errors
    /// More bytes than announced.
    pub fn put_data(&mut self, framing: &mut Framing, data: Bytes, last: bool) -> Result<(), WrongLength> {
        debug_assert!(!self.is_full());
        match framing {
            Framing::None => return if data.is_empty() { Ok(()) } else { Err(WrongLength) },
            Framing::Exact(owed) => *owed = owed.checked_sub(data.len() as u64).ok_or(WrongLength)?,
            Framing::UntilClose => {}
            Framing::Chunked => {
                self.put_chunk(data, last);
                return Ok(());
            }
        }
        if data.len() <= COPIED_MOST {
            self.text.extend_from_slice(&data);
        } else {
            self.data = data;
        }
        Ok(())
    }

    fn put_chunk(&mut self, data: Bytes, last: bool) {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        if data.is_empty() {
            // An empty chunk would be the end.
            if last {
                self.put(&END[2..]);
            }
            return;
        }
        self.put_size(data.len());
        let tail = if last { END } else { &END[..2] };
        if data.len() <= COPIED_MOST {
            self.text.extend_from_slice(&data);
            self.text.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
    }

    /// A chunk's size line. By hand: the formatting machinery would cost 600 instructions a streamed event.
    fn put_size(&mut self, size: usize) {
        let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
        for place in (0..digits).rev() {
            self.text.push(b"0123456789abcdef"[(size >> (4 * place)) & 15]);
        }
        self.text.extend_from_slice(b"\r\n");
    }

    /// The end of a body whose last frame was not known to be the last.
    ///
    /// # Errors
    /// Fewer bytes than announced.
    pub fn put_end(&mut self, framing: Framing, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        match (framing, trailers) {
            (Framing::Exact(owed), _) if owed > 0 => return Err(WrongLength),
            (Framing::Chunked, None) => self.put(b"0\r\n\r\n"),
            (Framing::Chunked, Some(trailers)) => {
                self.put(b"0\r\n");
                self.put_fields(trailers);
                self.put(b"\r\n");
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes until nothing is left.
    pub fn poll_write<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let text = &self.text[self.written..];
            let n = if self.data.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, text))?
            } else {
                let slices = [IoSlice::new(text), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n);
        }
        self.text.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, n: usize) {
        let text = n.min(self.text.len() - self.written);
        self.written += text;
        let data = (n - text).min(self.data.len());
        self.data.advance(data);
        self.tail = &self.tail[n - text - data..];
        if self.data.is_empty() {
            // Not kept waiting for the tail: the memory behind a frame is its reader's buffer.
            self.data = Bytes::new();
        }
    }

    /// Gives the memory back when nothing waits.
    pub fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// How the body of an answer goes to a caller who spoke `version`.
#[must_use]
pub fn down_framing(version: Version, bodiless: bool, length: Option<u64>) -> Framing {
    match length {
        _ if bodiless => Framing::None,
        Some(length) => Framing::Exact(length),
        None if version == Version::HTTP_10 => Framing::UntilClose,
        None => Framing::Chunked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Takes so many bytes a write.
    struct Slow(Vec<u8>, usize);

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let n = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..n]);
            Poll::Ready(Ok(n))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
            let n = all.len().min(self.1);
            self.0.extend_from_slice(&all[..n]);
            Poll::Ready(Ok(n))
        }
    }

    fn written(outbox: &mut Outbox, at_once: usize) -> String {
        let mut stream = Slow(Vec::new(), at_once);
        assert!(outbox.poll_write(&mut stream, &mut Context::from_waker(Waker::noop())).is_ready());
        assert!(outbox.is_empty());
        String::from_utf8(stream.0).unwrap()
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_is_taken() {
        let large = Bytes::from("x".repeat(COPIED_MOST + 1));
        let expect = format!("2\r\nok\r\n1001\r\n{}\r\n0\r\n\r\n", "x".repeat(COPIED_MOST + 1));
        for at_once in [1, 2, 3, 5, 4_000, 100_000] {
            let mut outbox = Outbox::default();
            let mut framing = Framing::Chunked;
            outbox.put_data(&mut framing, Bytes::from_static(b"ok"), false).unwrap();
            outbox.put_data(&mut framing, large.clone(), true).unwrap();
            assert!(outbox.is_full(), "a large frame is written before the next is taken");
            assert_eq!(written(&mut outbox, at_once), expect);
        }
    }

    #[test]
    fn a_body_is_as_long_as_announced_or_an_error() {
        let mut outbox = Outbox::default();
        let mut framing = Framing::Exact(3);
        outbox.put_data(&mut framing, Bytes::from_static(b"ab"), false).unwrap();
        assert_eq!(outbox.put_end(framing, None), Err(WrongLength));
        assert_eq!(outbox.put_data(&mut framing, Bytes::from_static(b"cd"), true), Err(WrongLength));
        outbox.put_data(&mut framing, Bytes::from_static(b"c"), true).unwrap();
        assert_eq!(outbox.put_end(framing, None), Ok(()));
        assert_eq!(written(&mut outbox, 9), "abc");
    }

    #[test]
    fn an_empty_frame_does_not_end_a_chunked_body() {
        let mut outbox = Outbox::default();
        let mut framing = Framing::Chunked;
        outbox.put_data(&mut framing, Bytes::new(), false).unwrap();
        outbox.put_data(&mut framing, Bytes::from_static(b"a"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("7"));
        outbox.put_end(framing, Some(&trailers)).unwrap();
        assert_eq!(written(&mut outbox, 9), "1\r\na\r\n0\r\nx-sum: 7\r\n\r\n");
    }

    #[test]
    fn a_status_line_that_was_begun_goes_on() {
        for (status, expect) in
            [(StatusCode::OK, "HTTP/1.1 200 OK\r\n"), (StatusCode::NOT_FOUND, "HTTP/1.1 404 Not Found\r\n")]
        {
            let mut outbox = Outbox::default();
            outbox.begin_status();
            assert_eq!(written(&mut outbox, 99), "HTTP/1.1 ");
            outbox.put_status(status);
            assert_eq!(written(&mut outbox, 99), expect[9..]);
            outbox.put_status(status);
            assert_eq!(written(&mut outbox, 99), expect);
        }
    }

    #[test]
    fn a_length_is_written_in_digits() {
        for (length, expect) in
            [(0, "content-length: 0\r\n"), (18_446_744_073_709_551_615, "content-length: 18446744073709551615\r\n")]
        {
            let mut outbox = Outbox::default();
            outbox.put_length(length);
            assert_eq!(written(&mut outbox, 99), expect);
        }
    }
}
