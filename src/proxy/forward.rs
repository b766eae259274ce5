//! Towards a version: an endpoint, a connection, one request sent once.

use std::cell::Cell;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Body;

use super::body::{BodyError, UpBody, UpState};
use super::connection::Connection;
use super::deadlines::within;
use super::editing;
use super::error::{ProxyError, Side};
use super::head;
use super::headers::{Fields, SERIN_ARM, SERIN_VERSION, Upward};
use super::service::Head;
use super::tag::{self, Ids};
use super::worker::Routed;
use crate::config::{HostMode, Version};
use crate::measure::Outcome;
use crate::measure::gauges::Limit;
use crate::names::{Arm, Mono};
use crate::snapshot::Target;
use crate::upstream::{Admitted, AnswerBody, Endpoint, Fate, InFlight, SendError};
use crate::wire::edit::Edit;

/// Connections that may turn out to be dead before one must be fresh.
const STALE_MOST: u32 = 8;
/// How often a request is sent again that upstream refuses to look at.
const REFUSED_MOST: u32 = 2;
/// Endpoints that are tried when connecting fails.
const ENDPOINTS_MOST: u32 = 3;

/// What one request's attempts share.
pub(super) struct Attempt<'a> {
    pub connection: &'a Connection,
    pub routed: &'a Routed,
    pub state: &'a UpState,
    pub head: &'a Head,
    /// What the request gets on its way up.
    pub upward: &'a Upward<'a>,
    /// The request's names.
    pub ids: &'a Ids,
    /// Those fields are in the request's map already.
    pub mapped: Cell<bool>,
    /// The caller asked for a WebSocket.
    pub upgrade: bool,
}

impl Attempt<'_> {
    /// What this version puts into the request's body, where that is one that can be edited.
    fn edits<'s>(&self, settings: &'s Version, headers: &HeaderMap) -> Option<&'s Arc<[Edit]>> {
        let rewrite = settings.rewrite.as_ref()?;
        let protocol = self.routed.rollout().fixed.config.protocol;
        rewrite.edits(protocol, self.head.path.path()).filter(|_| editing::is_editable(headers))
    }
}

/// A version's answer, as far as its head.
pub(super) struct Answer {
    pub response: Response<AnswerBody<UpBody>>,
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
/// sent again only when its method is safe and it has no body; one that upstream says it has not looked at, whenever its
/// body can be.
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
    let settings = &target.settings;
    // Where the version's settings change fields, serin's own must be in the map for them to be found.
    let in_map = !settings.headers_set.is_empty() || !settings.headers_remove.is_empty();
    if let Some(request) = slot {
        prepare(attempt, request, target, in_map);
    }
    let (mut tried, mut connects, mut stale, mut refused) = (None, 0, 0, 0);
    loop {
        let mut sent_at = worker.clock.now();
        let Some(endpoint) = cluster.pick(sent_at, worker.random(), tried) else {
            return Err(Failure::Unsent(ProxyError::Overloaded));
        };
        let in_flight = endpoint.begin();
        // Connecting is rare and its future large (TLS, handshakes): a box keeps it out of every request's.
        let fresh = stale >= STALE_MOST;
        let kept = if fresh { None } else { worker.pool.reuse(cluster, endpoint) };
        let lent = match kept {
            Some(lease) => Ok(lease),
            None => {
                let lent = Box::pin(worker.pool.lend(cluster, endpoint, fresh)).await;
                sent_at = worker.clock.now();
                lent
            }
        };
        let lease = match lent {
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
        let line = Line::of(attempt, target, endpoint);
        if lease.is_h2() {
            put_in_map(attempt, target, request.headers_mut());
            line.address_h2(&mut request, endpoint);
        }
        let harmless = lease.reused && request.method().is_safe() && request.body().is_end_stream();
        let replay = (harmless || lease.is_h2()).then(|| again(&request)).flatten().map(Box::new);
        let mut sending = lease.send(request, line.path.as_str(), |out| {
            out.put_field(&header::HOST, line.host.as_bytes());
            if !in_map {
                put_added(attempt, target, out);
            }
            if attempt.upward.takes_trailers {
                out.put(b"connection: te\r\n");
            }
            if attempt.upgrade {
                out.put(b"connection: upgrade\r\nupgrade: websocket\r\n");
            }
        });
        // One deadline for all of it: interim answers do not begin it anew.
        let answering = std::future::poll_fn(|cx| {
            sending.poll_answer(cx, &mut |status, fields| attempt.connection.tell_early(status, fields))
        });
        match within(&worker.deadlines, cluster.timeouts.first_byte, answering).await {
            Ok(Ok(response)) => {
                return accept(attempt, target, endpoint, Answer { response, in_flight, admitted, sent_at });
            }
            Ok(Err(failed)) => {
                let is_again = match failed.fate {
                    Fate::Refused => {
                        refused += 1;
                        refused <= REFUSED_MOST
                    }
                    Fate::Unanswered => harmless,
                    Fate::Heard => false,
                };
                let replay = if is_again { replay.map(|request| *request) } else { None };
                *slot = failed.unsent.or(replay);
                if slot.is_some() && stale <= STALE_MOST {
                    stale += 1;
                    continue;
                }
                let error = classify(attempt, failed.error);
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
    let unasked = status == StatusCode::SWITCHING_PROTOCOLS && (!agreed() || answer.response.body().is_h2());
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
fn prepare(attempt: &Attempt<'_>, request: &mut Request<UpBody>, target: &Target, in_map: bool) {
    let settings = &target.settings;
    let edits = attempt.edits(settings, request.headers());
    request.body_mut().rewrite(edits);
    if in_map {
        put_in_map(attempt, target, request.headers_mut());
        for name in &settings.headers_remove {
            request.headers_mut().remove(name);
        }
        for (name, value) in &settings.headers_set {
            request.headers_mut().insert(name.clone(), value.clone());
        }
    }
}

/// What serin says to the upstream.
fn put_added(attempt: &Attempt<'_>, target: &Target, out: &mut impl Fields) {
    attempt.upward.put(out);
    attempt.ids.put(out);
    out.set(&SERIN_VERSION, &target.version_header);
    out.set(&SERIN_ARM, tag::arm(target.arm));
}

/// The same in the map, where the first attempt may have put it already for another arm.
fn put_in_map(attempt: &Attempt<'_>, target: &Target, headers: &mut HeaderMap) {
    if attempt.mapped.replace(true) {
        headers.set(&SERIN_VERSION, &target.version_header);
        headers.set(&SERIN_ARM, tag::arm(target.arm));
    } else {
        put_added(attempt, target, headers);
    }
}

/// Target and host for one endpoint.
struct Line {
    path: PathAndQuery,
    host: HeaderValue,
}

impl Line {
    fn of(attempt: &Attempt<'_>, target: &Target, endpoint: &Endpoint) -> Self {
        let host = match &target.settings.host {
            HostMode::Upstream => target.cluster.host_of(endpoint).cloned(),
            HostMode::Pass => attempt.head.host.clone(),
            HostMode::Name(name) => HeaderValue::from_str(name).ok(),
        };
        let host = host.unwrap_or_else(|| HeaderValue::from_static(""));
        Self { path: path_for(target, &attempt.head.path), host }
    }

    /// HTTP/2 has them in pseudo fields, and frames bodies itself.
    fn address_h2(&self, request: &mut Request<UpBody>, endpoint: &Endpoint) {
        let scheme = match endpoint.address.scheme {
            crate::config::Scheme::Https => Scheme::HTTPS,
            crate::config::Scheme::Http => Scheme::HTTP,
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme);
        // A caller of HTTP/1.0 may name no host.
        let named = Authority::try_from(self.host.as_bytes()).or_else(|_| endpoint.address.authority().parse());
        parts.authority = named.ok();
        parts.path_and_query = Some(self.path.clone());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        let exact = request.body().size_hint().exact();
        let bodiless = request.body().is_end_stream() && request.method().is_safe();
        let headers = request.headers_mut();
        headers.remove(header::HOST);
        match exact {
            Some(length) if !bodiless => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
            _ => drop(headers.remove(header::CONTENT_LENGTH)),
        }
        *request.version_mut() = http::Version::HTTP_2;
    }
}

/// The path with the version's prefix taken off or put on; unchanged it costs a reference count.
fn path_for(target: &Target, path: &PathAndQuery) -> PathAndQuery {
    let settings = &target.settings;
    if settings.strip_prefix.is_none() && settings.add_prefix.is_none() {
        return path.clone();
    }
    let text = path.as_str();
    if text == "*" {
        return path.clone();
    }
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

fn classify(attempt: &Attempt<'_>, error: SendError) -> ProxyError {
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
    match error {
        SendError::Protocol => ProxyError::Protocol,
        SendError::Request => ProxyError::Local,
        SendError::Reset => ProxyError::Reset,
    }
}
