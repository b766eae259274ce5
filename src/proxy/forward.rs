//! Towards a version: an endpoint, a connection, one request sent once.

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body, Incoming};

use super::body::{BodyError, UpBody, UpState};
use super::connection::Connection;
use super::deadlines::within;
use super::error::{ProxyError, Side};
use super::head;
use super::headers::{SERIN_ARM, SERIN_VERSION};
use super::service::Head;
use super::worker::Routed;
use crate::config::HostMode;
use crate::measure::Outcome;
use crate::measure::gauges::Limit;
use crate::names::{Arm, Mono};
use crate::snapshot::Target;
use crate::upstream::{Admitted, Endpoint, InFlight, Lease};

/// Connections that may turn out to be dead before one must be fresh.
const STALE_MOST: u32 = 8;
/// Endpoints that are tried when connecting fails.
const ENDPOINTS_MOST: u32 = 3;

/// What one request's attempts share.
pub(super) struct Attempt<'a> {
    pub connection: &'a Connection,
    pub routed: &'a Routed,
    pub state: &'a UpState,
    pub head: &'a Head,
    /// The caller asked for a WebSocket.
    pub upgrade: bool,
}

/// A version's answer, as far as its head.
pub(super) struct Answer {
    pub response: Response<Incoming>,
    pub lease: Lease<UpBody>,
    pub in_flight: InFlight,
    pub admitted: Admitted,
    /// When the request went up.
    pub sent_at: Mono,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// Nothing was sent: the request is still in its slot and can go elsewhere.
    Unsent(ProxyError),
    /// The rollout was latched since the choice: nothing was sent to the canary.
    Latched,
    /// It may have been received.
    Sent(ProxyError),
}

impl Failure {
    pub fn into_error(self) -> ProxyError {
        match self {
            Failure::Unsent(error) | Failure::Sent(error) => error,
            Failure::Latched => ProxyError::Local,
        }
    }

    pub fn outcome(&self) -> Outcome {
        match self {
            Failure::Unsent(error) | Failure::Sent(error) => error.outcome(),
            Failure::Latched => Outcome::Local,
        }
    }

    pub fn is_upstreams(&self) -> bool {
        matches!(self, Failure::Unsent(error) | Failure::Sent(error) if error.side() == Side::Upstream)
    }
}

/// The same request again, where its body would not be lost.
pub(super) fn again(request: &Request<UpBody>) -> Option<Request<UpBody>> {
    let body = request.body().again()?;
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Sends a request to the version of `arm`. Another endpoint of the same version is tried when connecting fails;
/// another connection when a kept one was dead before it took the request. A request that may have been received is
/// sent again only when its method is safe and it has no body.
///
/// The request is taken out of its slot when it goes up, and is back in it (or was never out) when nothing was sent: a
/// slot, because every layer of `async` that owned the request would have room for it of its own.
pub(super) async fn send(
    attempt: &Attempt<'_>,
    arm: Arm,
    slot: &mut Option<Request<UpBody>>,
) -> Result<Answer, Failure> {
    let worker = &attempt.connection.worker;
    let target = attempt.routed.rollout().target(arm);
    let cluster = &target.cluster;
    let Some(admitted) = cluster.admit() else {
        worker.gauges.hit(Limit::Concurrency);
        return Err(Failure::Unsent(ProxyError::Overloaded));
    };
    if let Some(request) = slot {
        prepare(request, target);
    }
    let (mut tried, mut connects, mut stale) = (None, 0, 0);
    loop {
        let Some(endpoint) = cluster.pick(worker.clock.now(), worker.random(), tried) else {
            return Err(Failure::Unsent(ProxyError::Overloaded));
        };
        let in_flight = endpoint.begin();
        // Connecting is rare and its future large (TLS, handshakes): a box keeps it out of every request's.
        let kept = if stale < STALE_MOST { worker.pool.reuse(cluster, endpoint) } else { None };
        let lent = match kept {
            Some(lease) => Ok(lease),
            None => Box::pin(worker.pool.lend(cluster, endpoint)).await,
        };
        let mut lease = match lent {
            Ok(lease) => lease,
            Err(error) => {
                endpoint.failed(&cluster.ejection, worker.clock.now());
                connects += 1;
                if connects >= ENDPOINTS_MOST || cluster.endpoints.len() < 2 {
                    return Err(Failure::Unsent(ProxyError::Connect(error)));
                }
                tried = Some(endpoint.id);
                continue;
            }
        };
        // The kill race: an acknowledged kill means that no later head goes to the canary.
        if arm == Arm::Canary && worker.latched_since(attempt.routed) {
            worker.pool.give_back(lease, worker.clock.now());
            return Err(Failure::Latched);
        }
        let Some(mut request) = slot.take() else { return Err(Failure::Sent(ProxyError::Local)) };
        address(&mut request, attempt, target, endpoint, lease.is_h2());
        let replay = (lease.reused && request.method().is_safe() && request.body().is_end_stream())
            .then(|| again(&request))
            .flatten()
            .map(Box::new);
        let sent_at = worker.clock.now();
        let sending = lease.send(request);
        match within(&worker.deadlines, cluster.timeouts.first_byte, sending).await {
            Ok(Ok(response)) => {
                return accept(attempt, target, endpoint, Answer { response, lease, in_flight, admitted, sent_at });
            }
            Ok(Err(mut failed)) => {
                *slot = failed.take_message().or(replay.map(|request| *request));
                if slot.is_some() && stale <= STALE_MOST {
                    stale += 1;
                    continue;
                }
                let error = classify(attempt, failed.error());
                if error.side() == Side::Upstream {
                    endpoint.failed(&cluster.ejection, worker.clock.now());
                }
                return Err(Failure::Sent(error));
            }
            Err(_) => {
                endpoint.failed(&cluster.ejection, worker.clock.now());
                return Err(Failure::Sent(ProxyError::FirstByte));
            }
        }
    }
}

fn accept(attempt: &Attempt<'_>, target: &Target, endpoint: &Endpoint, answer: Answer) -> Result<Answer, Failure> {
    let status = answer.response.status();
    let agreed = || {
        let protocol = answer.response.headers().get(header::UPGRADE);
        attempt.upgrade && protocol.is_some_and(|p| p.as_bytes().eq_ignore_ascii_case(b"websocket"))
    };
    let unasked = status == StatusCode::SWITCHING_PROTOCOLS && !agreed();
    let ambiguous = unasked || !head::is_framed_once(answer.response.headers());
    if ambiguous || status.is_server_error() {
        endpoint.failed(&target.cluster.ejection, attempt.connection.worker.clock.now());
    } else {
        endpoint.succeeded();
    }
    // Dropping the answer closes its connection.
    if ambiguous { Err(Failure::Sent(ProxyError::Protocol)) } else { Ok(answer) }
}

/// What does not depend on the endpoint: rewrites of the version, and its name for the upstream.
fn prepare(request: &mut Request<UpBody>, target: &Target) {
    let settings = &target.settings;
    if let UpBody::Whole(held) = request.body_mut() {
        held.rename(settings.model.as_deref());
    }
    for name in &settings.headers_remove {
        request.headers_mut().remove(name);
    }
    for (name, value) in &settings.headers_set {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    let headers = request.headers_mut();
    headers.insert(SERIN_VERSION.clone(), target.version_header.clone());
    headers.insert(SERIN_ARM.clone(), HeaderValue::from_static(target.arm.as_str()));
    frame(request);
}

/// Serin writes the framing fields itself: a known length as such, everything else chunked.
fn frame(request: &mut Request<UpBody>) {
    let exact = request.body().size_hint().exact();
    let ended = request.body().is_end_stream();
    let held = matches!(request.body(), UpBody::Whole(_));
    let method_has_body = !matches!(*request.method(), http::Method::GET | http::Method::HEAD);
    let headers = request.headers_mut();
    match exact {
        Some(0) if ended && !method_has_body => {
            headers.remove(header::CONTENT_LENGTH);
        }
        Some(length) => {
            if !headers.contains_key(header::CONTENT_LENGTH) || ended || held {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        None => {
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

/// Target and Host for this endpoint, in the form of its protocol.
fn address(request: &mut Request<UpBody>, attempt: &Attempt<'_>, target: &Target, endpoint: &Endpoint, h2: bool) {
    let settings = &target.settings;
    let path = path_for(target, &attempt.head.path);
    let host = match &settings.host {
        HostMode::Upstream => target.cluster.host_of(endpoint).cloned(),
        HostMode::Pass => attempt.head.host.clone(),
        HostMode::Name(name) => HeaderValue::from_str(name).ok(),
    };
    let host = host.unwrap_or_else(|| HeaderValue::from_static(""));
    if h2 {
        let scheme = match endpoint.address.scheme {
            crate::config::Scheme::Https => Scheme::HTTPS,
            crate::config::Scheme::Http => Scheme::HTTP,
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme);
        parts.authority = Authority::try_from(host.as_bytes()).ok();
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::TRANSFER_ENCODING);
        *request.version_mut() = Version::HTTP_2;
    } else {
        if request.uri().authority().is_some() || request.uri().path_and_query() != Some(&path) {
            *request.uri_mut() = Uri::from(path);
        }
        request.headers_mut().insert(header::HOST, host);
        *request.version_mut() = Version::HTTP_11;
    }
    if attempt.upgrade {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// The path with the version's prefix taken off or put on; unchanged it costs a reference count.
fn path_for(target: &Target, path: &PathAndQuery) -> PathAndQuery {
    let settings = &target.settings;
    if settings.strip_prefix.is_none() && settings.add_prefix.is_none() {
        return path.clone();
    }
    let text = path.as_str();
    let stripped = match &settings.strip_prefix {
        Some(prefix) => match text.strip_prefix(prefix.trim_end_matches('/')) {
            Some(rest) if rest.is_empty() || rest.starts_with(['/', '?']) => rest,
            _ => text,
        },
        None => text,
    };
    let added = settings.add_prefix.as_deref().unwrap_or_default().trim_end_matches('/');
    let slash = if stripped.starts_with('/') { "" } else { "/" };
    PathAndQuery::try_from(format!("{added}{slash}{stripped}")).unwrap_or_else(|_| path.clone())
}

fn classify(attempt: &Attempt<'_>, error: &hyper::Error) -> ProxyError {
    match attempt.state.failure() {
        Some(BodyError::TooLarge) => {
            attempt.connection.worker.gauges.hit(Limit::BodyBytes);
            return ProxyError::BodyTooLarge;
        }
        Some(BodyError::Stalled) => {
            attempt.connection.worker.gauges.hit(Limit::BodyProgress);
            return ProxyError::BodyStalled;
        }
        Some(BodyError::Left) => return ProxyError::CallerLeft,
        Some(BodyError::Broken) => return ProxyError::BadRequest("the request body broke off"),
        None => {}
    }
    if error.is_parse() {
        ProxyError::Protocol
    } else if error.is_user() {
        ProxyError::Local
    } else {
        ProxyError::Reset
    }
}
