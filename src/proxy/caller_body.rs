//! A caller's body, whichever version of HTTP it comes by.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};

use super::body::BodyError;
use super::downlink::Downlink;

/// The body of a request as it comes in.
pub enum CallerBody {
    /// None.
    Empty,
    /// By a connection of ours.
    H1(Rc<RefCell<Downlink>>),
    /// By a stream of hyper's.
    H2(Incoming),
}

impl CallerBody {
    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            CallerBody::Empty => Poll::Ready(None),
            CallerBody::H1(link) => link.borrow_mut().poll_body(cx),
            CallerBody::H2(incoming) => match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Pending => Poll::Pending,
                // The codec shows a stream that was cancelled as one that ended.
                Poll::Ready(None) if !incoming.is_end_stream() => Poll::Ready(Some(Err(BodyError::Left))),
                Poll::Ready(frame) => Poll::Ready(frame.map(|f| f.map_err(|error| fault_of(&error)))),
            },
        }
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        match self {
            CallerBody::Empty => true,
            CallerBody::H1(link) => link.borrow().body_is_over(),
            CallerBody::H2(incoming) => incoming.is_end_stream(),
        }
    }

    /// Bytes that are announced and have not come yet, where the length of the whole is not known.
    #[must_use]
    pub fn owed(&self) -> u64 {
        if let CallerBody::H1(link) = self { link.borrow().body_owed() } else { 0 }
    }

    /// Bytes that are left, where known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self {
            CallerBody::Empty => Some(0),
            CallerBody::H1(link) => link.borrow().body_left(),
            CallerBody::H2(incoming) => incoming.size_hint().exact(),
        }
    }
}

/// Why a stream's body failed: the caller left, or what he sent is none.
fn fault_of(error: &hyper::Error) -> BodyError {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let closed = inner.downcast_ref::<io::Error>().is_some_and(|e| {
            use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            matches!(e.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
        });
        let reset = inner.downcast_ref::<h2::Error>().is_some_and(|e| e.is_remote() || e.is_io());
        if closed || reset {
            return BodyError::Left;
        }
        source = inner.source();
    }
    if error.is_incomplete_message() || error.is_canceled() { BodyError::Left } else { BodyError::Broken }
}
