//! One request on a lent connection, and its answer, whichever version of HTTP the connection speaks.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::h1::{H1, H1Fault};
use super::pool::{Lease, Lent, Stream};
use crate::http1::{Input, Io, Outbox};

/// What went wrong before an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The connection ended or failed.
    Reset,
    /// What came is no HTTP.
    Protocol,
    /// The request could not be put on the wire: its own body failed, or it is our fault.
    Request,
}

/// What became of a request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Upstream says that it has not looked at it (RFC 9113 section 8.7): it can be sent again, whatever it asks.
    Refused,
    /// Its connection ended without a byte of an answer: upstream may have acted on it.
    Unanswered,
    /// Upstream has said something to it.
    Heard,
}

/// No answer.
pub struct SendFailed<B> {
    /// The request, where nothing of it was sent.
    pub unsent: Option<Request<B>>,
    /// What became of it, where it was sent.
    pub fate: Fate,
    /// Why.
    pub error: SendError,
}

/// A request on its way, until the answer's head is there.
pub struct Sending<B> {
    state: State<B>,
    endpoint: usize,
}

type H2Answer<B> = Result<Response<Incoming>, TrySendError<Request<B>>>;

enum State<B> {
    H1(Box<H1<B>>),
    H2(Pin<Box<dyn Future<Output = H2Answer<B>>>>, Stream<B>),
    Over,
}

/// The body of an answer; holds the connection that it comes by.
pub struct AnswerBody<B> {
    source: Source<B>,
    endpoint: usize,
}

enum Source<B> {
    H1(Box<H1<B>>),
    H2(Incoming, Stream<B>),
}

/// The answer broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct AnswerFault;

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends one request. Over HTTP/1.1 the target stands for the request's own, and `fields` puts what the map does not
    /// have, Host among it; over HTTP/2 the request is sent as it is.
    pub fn send(self, request: Request<B>, target: &str, fields: impl FnOnce(&mut Outbox)) -> Sending<B> {
        let state = match self.inner {
            Lent::H1(mut connection) => {
                connection.begin(request, target, fields);
                State::H1(connection)
            }
            Lent::H2(stream) => {
                let answer = stream.0.connection.sender.clone().try_send_request(request);
                State::H2(Box::pin(answer), stream)
            }
        };
        Sending { state, endpoint: self.endpoint }
    }

    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        matches!(self.inner, Lent::H2(_))
    }
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    fn poll_h1(
        connection: &mut H1<B>,
        cx: &mut Context<'_>,
        early: &mut dyn FnMut(StatusCode, HeaderMap),
    ) -> Poll<Result<Response<()>, SendFailed<B>>> {
        connection.poll_head(cx, early).map_err(|fault| {
            let error = match fault {
                H1Fault::Unanswered | H1Fault::Cut => SendError::Reset,
                H1Fault::Head(_) | H1Fault::Interim => SendError::Protocol,
                H1Fault::Body => SendError::Request,
            };
            let fate = if matches!(fault, H1Fault::Unanswered) { Fate::Unanswered } else { Fate::Heard };
            SendFailed { unsent: None, fate, error }
        })
    }

    /// Waits for the answer's head. Interim answers (1xx) are shown to `early` as they come; over HTTP/2 the codec keeps
    /// them to itself.
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        early: &mut dyn FnMut(StatusCode, HeaderMap),
    ) -> Poll<Result<Response<AnswerBody<B>>, SendFailed<B>>> {
        let endpoint = self.endpoint;
        match &mut self.state {
            State::H1(connection) => {
                let answer = ready!(Self::poll_h1(connection, cx, early));
                let State::H1(connection) = std::mem::replace(&mut self.state, State::Over) else {
                    return Poll::Pending;
                };
                Poll::Ready(answer.map(|head| head.map(|()| AnswerBody { source: Source::H1(connection), endpoint })))
            }
            State::H2(answer, _) => {
                let answer = ready!(answer.as_mut().poll(cx)).map_err(failed_h2);
                let State::H2(_, stream) = std::mem::replace(&mut self.state, State::Over) else {
                    return Poll::Pending;
                };
                Poll::Ready(answer.map(|response| {
                    response.map(|incoming| AnswerBody { source: Source::H2(incoming, stream), endpoint })
                }))
            }
            State::Over => Poll::Pending,
        }
    }
}

fn failed_h2<B>(mut failed: TrySendError<Request<B>>) -> SendFailed<B> {
    let unsent = failed.take_message();
    let (fate, error) = fate_h2(failed.error());
    SendFailed { unsent, fate, error }
}

/// What the codec's words for a failure mean.
fn fate_h2(error: &hyper::Error) -> (Fate, SendError) {
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    match cause {
        // A farewell ends the streams above its last alone.
        Some(cause) if cause.is_remote() && (cause.is_go_away() || cause.reason() == Some(Reason::REFUSED_STREAM)) => {
            (Fate::Refused, SendError::Reset)
        }
        Some(cause) if cause.is_remote() => (Fate::Heard, SendError::Reset),
        // Its own answer was broken, or the connection was: nobody knows whose.
        Some(cause) if cause.is_library() => (Fate::Heard, SendError::Protocol),
        Some(_) => (Fate::Heard, SendError::Request),
        None if error.is_parse() => (Fate::Heard, SendError::Protocol),
        None if error.is_user() => (Fate::Heard, SendError::Request),
        None => (Fate::Unanswered, SendError::Reset),
    }
}

impl<B> AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        match &mut self.source {
            Source::H1(connection) => connection.poll_frame(cx).map_err(|_| AnswerFault),
            Source::H2(incoming, _) => match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                // The codec shows a stream that was cancelled as one that ended.
                None if !incoming.is_end_stream() => Poll::Ready(Some(Err(AnswerFault))),
                frame => Poll::Ready(frame.map(|frame| frame.map_err(|_| AnswerFault))),
            },
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::H1(connection) => connection.is_end_stream(),
            Source::H2(incoming, _) => incoming.is_end_stream(),
        }
    }

    /// Whether it comes over HTTP/2.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        matches!(self.source, Source::H2(..))
    }

    /// Bytes that are left, where known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match &self.source {
            Source::H1(connection) => connection.remaining(),
            Source::H2(incoming, _) => incoming.size_hint().exact(),
        }
    }

    /// The connection, to be given back after the exact end.
    #[must_use]
    pub fn into_lease(self) -> Lease<B> {
        let inner = match self.source {
            Source::H1(connection) => Lent::H1(connection),
            Source::H2(_, stream) => Lent::H2(stream),
        };
        Lease { inner, endpoint: self.endpoint, reused: true }
    }

    /// The bare stream behind a 101, and what came after the head; `None` over HTTP/2.
    #[must_use]
    pub fn into_io(self) -> Option<(Io, Input)> {
        match self.source {
            Source::H1(connection) => Some(connection.into_io()),
            Source::H2(..) => None,
        }
    }
}
