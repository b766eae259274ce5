//! Where a body ends, and reading it piece by piece off a byte stream.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::io::AsyncRead;

use super::buffer::Input;
use super::chunked::{Chunked, Malformed, Step};

/// How a body is delimited, and how far it has been read (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// It is over, or there was none.
    Done,
    /// So many bytes are left.
    Exact(u64),
    /// Chunks.
    Chunked(Chunked),
    /// The end of the connection ends it; answers only.
    UntilClose,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The connection ended before the body.
    #[error("the connection ended within the body")]
    Truncated,
    /// What came is not framed as announced.
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

impl Decoder {
    /// Of a known length.
    #[must_use]
    pub const fn exact(length: u64) -> Self {
        if length == 0 { Decoder::Done } else { Decoder::Exact(length) }
    }

    /// Of a request's chunks.
    #[must_use]
    pub fn chunked() -> Self {
        Decoder::Chunked(Chunked::default())
    }

    /// Of an answer's chunks.
    #[must_use]
    pub fn chunked_answer() -> Self {
        Decoder::Chunked(Chunked::of_an_answer())
    }

    /// Bytes of the chunk under way that have not come yet; 0 where the length of the whole is known.
    #[must_use]
    pub fn owed(&self) -> u64 {
        if let Decoder::Chunked(chunked) = self { chunked.owed() } else { 0 }
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Decoder::Done => true,
            Decoder::Chunked(chunked) => chunked.is_done(),
            _ => false,
        }
    }

    /// Bytes that are left, where that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Decoder::Done => Some(0),
            Decoder::Exact(left) => Some(*left),
            Decoder::Chunked(chunked) if chunked.is_done() => Some(0),
            _ => None,
        }
    }

    fn take(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        if input.is_empty() {
            return Ok(None);
        }
        match self {
            Decoder::Done => Ok(None),
            Decoder::Exact(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                if *left == 0 {
                    *self = Decoder::Done;
                }
                Ok(Some(Piece::Data(input.split_to(take).freeze())))
            }
            Decoder::UntilClose => Ok(Some(Piece::Data(input.split().freeze()))),
            Decoder::Chunked(chunked) => match chunked.step(input)? {
                Step::Data(data) => Ok(Some(Piece::Data(data))),
                Step::Trailers(trailers) => Ok(Some(Piece::Trailers(trailers))),
                Step::End | Step::More => Ok(None),
            },
        }
    }

    /// The next frame of the body: from `input`, which is filled from `stream` as needed.
    pub fn poll_frame<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        input: &mut Input,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        loop {
            if self.is_done() {
                return Poll::Ready(None);
            }
            match self.take(&mut input.bytes) {
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(trailers))) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) if self.is_done() => return Poll::Ready(None),
                Ok(None) => {}
            }
            match ready!(input.poll_fill(stream, cx)) {
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
                Ok(0) if *self == Decoder::UntilClose => *self = Decoder::Done,
                Ok(0) => return Poll::Ready(Some(Err(BodyFault::Truncated))),
                Ok(_) => {}
            }
        }
    }
}

enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}
