//! Serves a caller's HTTP/1.1 connection: one task, one request after the other, each read, answered and written in its turn.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Body;

use super::body::DownBody;
use super::caller_body::CallerBody;
use super::connection::{Connection, Order};
use super::downlink::Downlink;
use super::error::ProxyError;
use super::hangup::Beginning;
use super::unchosen::Unchosen;
use super::{service, tunnel};
use crate::http1::outbox::down_framing;
use crate::http1::{Framing, HeadError, HeadLimits, Input, Io, RequestHead};
use crate::measure::gauges::Limit;
use crate::wire::Protocol;

/// How long a caller who is still sending is listened to behind our last word, so that he reads it before his connection is
/// reset: so long silent, so long and for so many bytes altogether. Many send a whole upload before they read.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_ALL: Duration = Duration::from_secs(10);
const LINGER_BYTES: usize = 256 << 20;

type Link = Rc<RefCell<Downlink>>;

/// Serves the connection to its end; `input` has been read of it already.
pub async fn serve(connection: &Rc<Connection>, stream: Io, input: Input) {
    let (moves, deadlines) = (connection.moves(), Rc::clone(&connection.worker.deadlines));
    let link = Rc::new(RefCell::new(Downlink::new(stream, input, moves, deadlines)));
    drop(connection.link.set(Rc::downgrade(&link)));
    loop {
        let head = match next_head(connection, &link).await {
            Some(Ok(head)) => head,
            Some(Err(error)) => {
                refuse(connection, &link, error).await;
                return;
            }
            None if connection.is_ending() || link.borrow().is_half_closed() => return end(connection, &link).await,
            None => return,
        };
        let asked = Asked::of(&head);
        let request = request(head, &link);
        let Some(response) = answer(connection, &link, service::handle(connection, request)).await else { return };
        match respond(connection, &link, response, asked).await {
            Ok(After::Next) => {}
            Ok(After::Close) => return end(connection, &link).await,
            Ok(After::Linger) => return linger(connection, &link).await,
            Ok(After::Tunnel(tunnel)) => {
                if let Ok(link) = Rc::try_unwrap(link) {
                    let (stream, input) = link.into_inner().into_parts();
                    connection.until_closed(tunnel.carry(stream, input)).await;
                }
                return;
            }
            // Without TLS's farewell: what was sent is not whole.
            Err(_) => return,
        }
    }
}

/// What of a request decides how it is answered.
#[derive(Clone, Copy)]
struct Asked {
    version: Version,
    head_only: bool,
    keep_alive: bool,
    takes_trailers: bool,
}

impl Asked {
    fn of(head: &RequestHead) -> Self {
        Self {
            version: head.version,
            head_only: head.method == Method::HEAD,
            keep_alive: head.keep_alive,
            takes_trailers: head.takes_trailers,
        }
    }
}

/// What follows an answer.
enum After {
    Next,
    Close,
    /// The caller is still sending what nobody wants.
    Linger,
    Tunnel(Box<tunnel::Tunnel>),
}

async fn next_head(connection: &Connection, link: &Link) -> Option<Result<RequestHead, HeadError>> {
    let limits = {
        let view = connection.worker.view();
        let limits = &view.snapshot().config.limits;
        HeadLimits { bytes: limits.header_bytes, fields: limits.headers }
    };
    std::future::poll_fn(|cx| {
        let order = connection.order(cx);
        if order == Order::Close {
            return Poll::Ready(None);
        }
        let mut link = link.borrow_mut();
        let head = link.poll_head(limits, cx);
        if head.is_pending() && order == Order::Drain && link.is_idle() { Poll::Ready(None) } else { head }
    })
    .await
}

fn request(head: RequestHead, link: &Link) -> Request<CallerBody> {
    let body = if head.body.is_done() { CallerBody::Empty } else { CallerBody::H1(Rc::clone(link)) };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    request
}

/// Runs the service, unless the caller leaves or the connection must close first.
async fn answer(
    connection: &Connection,
    link: &Link,
    service: impl Future<Output = Response<DownBody>>,
) -> Option<Response<DownBody>> {
    let mut service = std::pin::pin!(service);
    std::future::poll_fn(|cx| {
        if connection.order(cx) == Order::Close {
            return Poll::Ready(None);
        }
        if let Poll::Ready(response) = service.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        let mut link = link.borrow_mut();
        if link.write_early(cx).is_err() {
            return Poll::Ready(None);
        }
        link.poll_left(cx, Beginning::OfAnAnswer).map(|()| None)
    })
    .await
}

/// Writes the answer to its end.
async fn respond(
    connection: &Connection,
    link: &Link,
    response: Response<DownBody>,
    asked: Asked,
) -> io::Result<After> {
    let (parts, mut body) = response.into_parts();
    let tunnel = body.take_tunnel();
    let (framing, closing) = put_head(connection, link, &parts, &mut body, asked, tunnel.is_some());
    // Looked up only where any could be sent.
    let trailers = framing == Framing::Chunked && (asked.takes_trailers || parts.headers.contains_key(header::TRAILER));
    drop(parts);
    let mut flow = Flow { framing, trailers, over: framing == Framing::None, broken: false };
    std::future::poll_fn(|cx| flow.poll(connection, link, &mut body, cx)).await?;
    Ok(match tunnel {
        Some(tunnel) => After::Tunnel(tunnel),
        None if !link.borrow().body_is_over() => After::Linger,
        None if closing => After::Close,
        None => After::Next,
    })
}

/// Puts the head out; says how the body follows, and whether the connection ends with it.
fn put_head(
    connection: &Connection,
    link: &Link,
    parts: &http::response::Parts,
    body: &mut DownBody,
    asked: Asked,
    tunnel: bool,
) -> (Framing, bool) {
    let status = parts.status;
    let lengthless = status.is_informational() || status == StatusCode::NO_CONTENT;
    let bodiless = asked.head_only || lengthless || status == StatusCode::NOT_MODIFIED;
    let framing = down_framing(asked.version, bodiless, body.size_hint().exact());
    // Nobody holds the request's body any more, and more of it is to come.
    let unread = Rc::strong_count(link) == 1 && !link.borrow().body_is_over();
    let mut closing = !asked.keep_alive || connection.is_ending() || unread || framing == Framing::UntilClose;
    let mut link = link.borrow_mut();
    link.begin_answer();
    let out = &mut link.out;
    out.put_status(status);
    let mut dated = false;
    for (name, value) in &parts.headers {
        if *name == header::CONTENT_LENGTH && (lengthless || framing != Framing::None) {
            continue;
        }
        if *name == header::CONNECTION && !tunnel {
            closing |= value == "close";
            // Beside a 426.
            if value != "upgrade" {
                continue;
            }
        }
        dated |= *name == header::DATE;
        out.put_field(name, value.as_bytes());
    }
    if let Some(tags) = body.take_tags() {
        tags.put(out);
    }
    if !dated {
        out.put_field(&header::DATE, &connection.worker.date());
    }
    match framing {
        Framing::Exact(length) => out.put_length(length),
        Framing::Chunked => out.put(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
    if closing && !tunnel {
        out.put(b"connection: close\r\n");
    } else if asked.version == Version::HTTP_10 {
        out.put(b"connection: keep-alive\r\n");
    }
    out.put(b"\r\n");
    (framing, closing)
}

/// A body on its way down.
struct Flow {
    framing: Framing,
    /// The caller can make use of trailers.
    trailers: bool,
    over: bool,
    broken: bool,
}

impl Flow {
    /// Joins what is ready, writes it, and never keeps it waiting for more.
    fn poll(
        &mut self,
        connection: &Connection,
        link: &Link,
        body: &mut DownBody,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if connection.order(cx) == Order::Close {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        loop {
            let mut starved = self.over;
            while !starved && !link.borrow().out.is_full() {
                starved = !self.take_frame(link, body, cx)? || self.over;
            }
            let mut link = link.borrow_mut();
            ready!(link.poll_write(cx))?;
            if self.broken {
                // The end of the connection says that the body is not whole.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if self.over {
                return Poll::Ready(Ok(()));
            }
            if starved {
                let chunks = self.framing == Framing::Chunked;
                let follows = if chunks { Beginning::OfAChunk } else { Beginning::Nothing };
                return link.poll_left(cx, follows).map(|()| Err(io::ErrorKind::BrokenPipe.into()));
            }
        }
    }

    /// `false`: nothing is ready.
    fn take_frame(&mut self, link: &Link, body: &mut DownBody, cx: &mut Context<'_>) -> io::Result<bool> {
        // Polled before the link is borrowed: what is left of the request's body is read in here.
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return Ok(false) };
        let out = &mut link.borrow_mut().out;
        let put = match frame {
            None => {
                self.over = true;
                out.put_end(self.framing, None)
            }
            Some(Err(_)) => {
                (self.over, self.broken) = (true, true);
                Ok(())
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.over = body.is_end_stream();
                    let put = out.put_data(&mut self.framing, data, self.over);
                    if self.over && self.framing != Framing::Chunked {
                        put.and_then(|()| out.put_end(self.framing, None))
                    } else {
                        put
                    }
                }
                Err(frame) => {
                    self.over = true;
                    let trailers: Option<&HeaderMap> = frame.trailers_ref().filter(|_| self.trailers);
                    out.put_end(self.framing, trailers)
                }
            },
        };
        put.map(|()| true).map_err(io::Error::other)
    }
}

/// Answers what is no request, and counts it under empty labels.
async fn refuse(connection: &Connection, link: &Link, error: HeadError) {
    let worker = &connection.worker;
    let error = match error {
        HeadError::TooLong => {
            worker.gauges.hit(Limit::HeaderBytes);
            ProxyError::HeadTooLarge("the request's head is longer than the limit")
        }
        HeadError::TooManyFields => {
            worker.gauges.hit(Limit::Headers);
            ProxyError::HeadTooLarge("the request's head has more fields than the limit")
        }
        HeadError::Version => ProxyError::Version,
        HeadError::UnknownCoding => ProxyError::UnknownCoding,
        HeadError::Malformed(why) => ProxyError::BadRequest(why),
    };
    let view = worker.view();
    Unchosen::begin(worker, &view.snapshot().unrouted, worker.clock.now()).refused(&error);
    let asked = Asked { version: Version::HTTP_11, head_only: false, keep_alive: false, takes_trailers: false };
    if respond(connection, link, error.response(Protocol::Auto, None), asked).await.is_ok() {
        linger(connection, link).await;
    }
}

/// Ends the connection in good order: TLS says that nothing was cut off (RFC 8446 section 6.1), and a caller who is still
/// sending is listened to (RFC 9112 section 9.6).
async fn end(connection: &Connection, link: &Link) {
    let sending = std::future::poll_fn(|cx| {
        let mut link = link.borrow_mut();
        Poll::Ready(!link.is_idle() || matches!(link.poll_discard(cx), Poll::Ready(Ok(1..))))
    })
    .await;
    if sending {
        return linger(connection, link).await;
    }
    farewell(link).await;
}

/// Ends our side, and listens a little longer: a connection closed over unread bytes is reset, and what we said is lost.
async fn linger(connection: &Connection, link: &Link) {
    let listening = async {
        farewell(link).await;
        let mut left = LINGER_BYTES;
        while left > 0 {
            let more = std::future::poll_fn(|cx| link.borrow_mut().poll_discard(cx));
            let Ok(Ok(read @ 1..)) = tokio::time::timeout(LINGER, more).await else { return };
            left = left.saturating_sub(read);
        }
    };
    let bounded = async { drop(tokio::time::timeout(LINGER_ALL, listening).await) };
    connection.until_closed(bounded).await;
}

/// Says that nothing more follows.
async fn farewell(link: &Link) {
    let saying = std::future::poll_fn(|cx| link.borrow_mut().poll_shutdown(cx));
    drop(tokio::time::timeout(LINGER, saying).await);
}
