//! One request, read from top to bottom.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::asking::Asking;
use super::body::{BodyBounds, BodyError, DownBody, Held, Measured, UpBody, UpState};
use super::caller_body::CallerBody;
use super::claims::Claims;
use super::connection::Connection;
use super::error::{METHODS, ProxyError};
use super::exchange::Exchange;
use super::forward::{self, Answer, Attempt, Failure};
use super::headers::Present;
use super::identity::{self, Caller};
use super::peek::{self, Peeked};
use super::sampling::Sampling;
use super::tag::{self, Ids, Tags};
use super::tunnel::Tunnel;
use super::unchosen::Unchosen;
use super::worker::{Routed, View};
use super::{feedback, head, headers, sampling};
use crate::config::{Fallback, UnitSource};
use crate::measure::Outcome;
use crate::measure::gauges::Limit;
use crate::names::{Arm, Mono};
use crate::split::{Choice, UnitKey, Why};
use crate::wire::Reader;

/// Answers one request.
pub async fn handle(connection: &Rc<Connection>, request: Request<CallerBody>) -> Response<DownBody> {
    let busy = connection.busy();
    let worker = &connection.worker;
    let started = worker.clock.now();
    let view = worker.view();
    connection.bound_requests(view.snapshot().config.limits.requests_per_connection);
    let present = Present::scan(request.headers());
    let mut response = match find(&view, connection, &request, present) {
        Ok(Found::Rollout(routed)) => serve(connection, &routed, request, present, started).await,
        Ok(Found::Health) => health(connection),
        Ok(Found::LastHop) => last_hop(connection, &view, started),
        Err(error) => unrouted(connection, &view, &request, present, &error, started),
    };
    // In place: an answer is large, and every move of it a copy.
    response.body_mut().keep(busy);
    response
}

enum Found {
    Rollout(Routed),
    Health,
    /// OPTIONS that may not be forwarded.
    LastHop,
}

/// Checks the head and finds the rollout that takes it.
fn find(
    view: &Rc<View>,
    connection: &Connection,
    request: &Request<CallerBody>,
    present: Present,
) -> Result<Found, ProxyError> {
    let limits = &view.snapshot().config.limits;
    if request.method() == Method::CONNECT || request.method() == Method::TRACE {
        return Err(ProxyError::Method);
    }
    let uri = request.uri();
    if uri.path_and_query().map_or(0, |p| p.as_str().len()) > limits.uri_bytes {
        connection.worker.gauges.hit(Limit::UriBytes);
        return Err(ProxyError::UriTooLong);
    }
    if request.version() == Version::HTTP_2 && request.headers().len() > limits.headers {
        connection.worker.gauges.hit(Limit::Headers);
        return Err(ProxyError::HeadTooLarge("the request has more header fields than the limit"));
    }
    let host = head::check(request, present)?;
    if connection.listening.config.health.as_deref() == Some(uri.path()) {
        return Ok(Found::Health);
    }
    if request.method() == Method::OPTIONS && headers::hops_left(request.headers()) == Some(0) {
        return Ok(Found::LastHop);
    }
    let at = view.snapshot().routes.find(host, uri.path()).ok_or(ProxyError::NoRoute)?;
    Routed::new(view, at).map(Found::Rollout).ok_or(ProxyError::NoRoute)
}

/// Serin's own answer on a listener's `health` path.
fn health(connection: &Connection) -> Response<DownBody> {
    use std::sync::atomic::Ordering::Relaxed;
    let gauges = &connection.worker.gauges;
    let ready = gauges.serving.load(Relaxed) && !gauges.draining.load(Relaxed);
    let mut response =
        Response::new(DownBody::full(bytes::Bytes::from_static(if ready { b"ok\n" } else { b"not ready\n" })));
    *response.status_mut() = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Serin's own answer to OPTIONS that went as far as it may (RFC 9110 section 7.6.2).
fn last_hop(connection: &Connection, view: &View, started: Mono) -> Response<DownBody> {
    Unchosen::begin(&connection.worker, &view.snapshot().unrouted, started).answered(StatusCode::OK);
    let mut response = Response::new(DownBody::full(bytes::Bytes::new()));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// A request that reached no rollout: answered, and counted under empty labels.
fn unrouted(
    connection: &Connection,
    view: &View,
    request: &Request<CallerBody>,
    present: Present,
    error: &ProxyError,
    started: Mono,
) -> Response<DownBody> {
    let worker = &connection.worker;
    Unchosen::begin(worker, &view.snapshot().unrouted, started).refused(error);
    let ids = Ids::of(request.headers(), present, worker);
    let mut response = error.response(crate::wire::Protocol::for_path(request.uri().path()), Some(&ids.request_id));
    if !matches!(error, ProxyError::NoRoute) && request.version() != Version::HTTP_2 {
        // Whoever sends this may mean something else by what follows.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A request that a rollout takes: identity, choice, forwarding, measuring, tagging.
async fn serve(
    connection: &Rc<Connection>,
    routed: &Routed,
    request: Request<CallerBody>,
    present: Present,
    started: Mono,
) -> Response<DownBody> {
    let worker = &connection.worker;
    let rollout = routed.rollout();
    let (mut parts, mut incoming) = request.into_parts();
    let ids = Ids::of(&parts.headers, present, worker);
    let is_sample = sampling::wanted(routed, ids.request_id.as_bytes());
    let look = Look {
        sample: is_sample && sampling::wants_text(routed) && !incoming.is_end_stream(),
        ..looks_into_body(routed, &incoming)
    };
    let looked = if look == Look::default() {
        Ok(None)
    } else {
        Box::pin(look_into_body(connection, routed, &parts, &mut incoming, look, started)).await
    };
    let peeked = match looked {
        Ok(peeked) => peeked,
        Err(error) => {
            let protocol = rollout.fixed.config.protocol.or_for_path(parts.uri.path());
            return error.response(protocol, Some(&ids.request_id));
        }
    };
    let (choice, unit) = choose(connection, routed, &parts, peeked.as_ref());
    let mut exchange = Exchange::begin(worker, routed, choice, unit, ids.request_id.as_bytes(), started);
    if is_sample {
        exchange.sampling = Sampling::new(routed, peeked.as_ref());
    }
    let protocol = rollout.fixed.config.protocol.or_for_path(parts.uri.path());
    let upgrade = present.has(Present::UPGRADE)
        && incoming.is_end_stream()
        && headers::wants_websocket(&parts.method, parts.version, &parts.headers);
    let head = Head::of(&parts);
    let most = rollout.fixed.config.body_bytes;
    let declared = if present.has(Present::CONTENT_LENGTH) { declared_length(&parts) } else { None };
    let known = declared.max(peeked.as_ref().map(|peeked| peeked.bytes as u64));
    if known.is_some_and(|length| length > most) {
        worker.gauges.hit(Limit::BodyBytes);
        let error = ProxyError::BodyTooLarge;
        exchange.fail(error.outcome(), error.status(), worker.clock.now());
        return tag::stamp_error(routed, choice, &ids, error.response(protocol, None));
    }
    let state = UpState::default();
    let bounds = BodyBounds { bytes: most, progress: routed.config().limits.body_progress };
    let mut body = upward(connection, &parts, incoming, peeked, look, bounds, &state);
    exchange.asking = Asking::of(routed, &parts.method, &mut body);
    let (hop, host) = (&connection.hop, head.host.as_ref());
    if parts.method == Method::OPTIONS {
        headers::count_hop(&mut parts.headers);
    }
    let upward = headers::towards_upstream(&mut parts.headers, present, hop, host, parts.version);
    ids.clean(&mut parts.headers, present);
    let mut request = Some(Request::from_parts(parts, body));
    let attempt = Attempt {
        connection,
        routed,
        state: &state,
        head: &head,
        upward: &upward,
        ids: &ids,
        mapped: Cell::new(false),
        upgrade,
    };
    let (choice, result) = with_fallback(&attempt, choice, &mut request, &mut exchange).await;
    match result {
        Ok(answer) => downward(connection, routed, choice, &ids, &head, answer, exchange, upgrade),
        Err(error) => {
            let now = worker.clock.now();
            exchange.fail(error.outcome(), error.status(), now);
            tag::stamp_error(routed, choice, &ids, error.response(protocol, None))
        }
    }
}

/// What later steps need of a request head after it has gone up.
pub(super) struct Head {
    pub method: Method,
    pub version: Version,
    pub path: http::uri::PathAndQuery,
    pub host: Option<HeaderValue>,
}

impl Head {
    fn of(parts: &Parts) -> Self {
        let host = match (parts.uri.authority(), parts.headers.get(header::HOST)) {
            (Some(authority), _) => HeaderValue::from_str(authority.as_str()).ok(),
            (None, field) => field.cloned(),
        };
        Self {
            method: parts.method.clone(),
            version: parts.version,
            path: parts.uri.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")),
            host,
        }
    }
}

fn declared_length(parts: &Parts) -> Option<u64> {
    parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why a body is looked into before anything of it goes up.
fn looks_into_body(routed: &Routed, incoming: &CallerBody) -> Look {
    let fixed = &routed.rollout().fixed;
    if incoming.is_end_stream() {
        return Look::default();
    }
    Look {
        unit: fixed.config.unit.iter().any(|source| matches!(source, UnitSource::Body(_))),
        replay: fixed.config.fallback == Fallback::BeforeFirstByte,
        rewrite: fixed.targets.iter().any(|target| target.settings.rewrite.is_some())
            && incoming.remaining().is_some_and(|length| length <= routed.config().limits.peek_bytes as u64),
        sample: false,
    }
}

/// What a look into the body is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    /// The unit may be a field of it.
    unit: bool,
    /// It may have to be sent twice.
    replay: bool,
    /// Something is put into it, and it is short: held, its length can be told. A longer one is edited as it passes.
    rewrite: bool,
    /// A scorer is to see it.
    sample: bool,
}

/// Peeks where the unit can only be found in the body, or where it must be held whole.
async fn look_into_body(
    connection: &Connection,
    routed: &Routed,
    parts: &Parts,
    incoming: &mut CallerBody,
    look: Look,
    started: Mono,
) -> Result<Option<Peeked>, ProxyError> {
    let config = &routed.rollout().fixed.config;
    let claims = claims(connection, routed, parts);
    let wanted = look.unit
        && with_caller(connection, parts, claims.as_deref(), None, |caller| {
            identity::needs_body(&config.unit, caller).is_some()
        });
    if !wanted && !look.replay && !look.rewrite && !look.sample {
        return Ok(None);
    }
    let (worker, limits) = (&connection.worker, &routed.config().limits);
    let unchosen = Unchosen::begin(worker, routed.unrouted(), started);
    let peeked = match peek::peek(incoming, limits.peek_bytes, &worker.deadlines, limits.body_progress).await {
        Ok(peeked) => peeked,
        Err(error) => {
            let error = match error {
                BodyError::Stalled => {
                    worker.gauges.hit(Limit::BodyProgress);
                    ProxyError::BodyStalled
                }
                BodyError::Left => ProxyError::CallerLeft,
                _ => ProxyError::BadRequest("the request body broke off"),
            };
            unchosen.refused(&error);
            return Err(error);
        }
    };
    unchosen.chosen();
    if wanted && !peeked.whole {
        connection.worker.gauges.hit(Limit::PeekBytes);
    }
    Ok(Some(peeked))
}

fn claims(connection: &Connection, routed: &Routed, parts: &Parts) -> Option<Rc<Claims>> {
    let jwt = routed.rollout().fixed.config.jwt.as_ref()?;
    let token = identity::bearer(parts)?;
    connection.worker.claims.read(jwt, token, connection.worker.clock.wall())
}

fn with_caller<T>(
    connection: &Connection,
    parts: &Parts,
    claims: Option<&Claims>,
    body_unit: Option<&str>,
    ask: impl FnOnce(&Caller<'_>) -> T,
) -> T {
    let listener = &connection.listening.config;
    let peer = connection.peer.ip();
    if !connection.hop.trusted {
        let ip_text = connection.hop.peer.to_str().unwrap_or_default();
        return ask(&Caller { parts, ip: peer, ip_text, claims, body_unit, unit: None });
    }
    let ip = identity::client_ip(parts, peer, |ip| listener.trusts(ip));
    let ip_text = ip.to_canonical().to_string();
    ask(&Caller { parts, ip, ip_text: &ip_text, claims, body_unit, unit: None })
}

/// The choice, and the key under which the judge knows the unit.
fn choose(connection: &Connection, routed: &Routed, parts: &Parts, peeked: Option<&Peeked>) -> (Choice, UnitKey) {
    let rollout = routed.rollout();
    let config = &rollout.fixed.config;
    let claims = claims(connection, routed, parts);
    let field = peeked.and_then(|peeked| {
        config.unit.iter().find_map(|source| match source {
            UnitSource::Body(pointer) => peeked.field(pointer),
            _ => None,
        })
    });
    with_caller(connection, parts, claims.as_deref(), field.as_deref(), |caller| {
        let unit = identity::unit(&config.unit, caller);
        let caller = Caller { unit, ..*caller };
        let unit = caller.split_unit();
        (rollout.choose(unit, &caller), unit.map(|u| u.key(rollout.fixed.key_seed)).unwrap_or_default())
    })
}

/// The body for upstream: nothing, held whole where it may have to be sent twice, or streamed.
fn upward(
    connection: &Connection,
    parts: &Parts,
    incoming: CallerBody,
    peeked: Option<Peeked>,
    look: Look,
    bounds: BodyBounds,
    state: &UpState,
) -> UpBody {
    let worker = &connection.worker;
    match peeked {
        None if incoming.is_end_stream() => UpBody::Empty,
        None => UpBody::streamed(worker, VecDeque::new(), incoming, bounds, state),
        Some(peeked)
            if peeked.whole && (look.replay || look.rewrite) && !parts.headers.contains_key(header::TRAILER) =>
        {
            UpBody::Whole(Held::new(peeked.joined()))
        }
        Some(peeked) => UpBody::streamed(worker, peeked.chunks, incoming, bounds, state),
    }
}

/// Sends it, and where the canary cannot answer, lets stable do so.
async fn with_fallback(
    attempt: &Attempt<'_>,
    choice: Choice,
    request: &mut Option<Request<UpBody>>,
    exchange: &mut Exchange,
) -> (Choice, Result<Answer, ProxyError>) {
    let fallback = attempt.routed.rollout().fixed.config.fallback;
    let spare = if choice.arm == Arm::Canary && fallback == Fallback::BeforeFirstByte {
        request.as_ref().and_then(forward::again).map(Box::new)
    } else {
        None
    };
    match forward::send(attempt, choice.arm, request).await {
        Ok(answer) => (choice, Ok(answer)),
        Err(Failure::Latched) => {
            exchange.leave_canary(attempt.connection.worker.clock.now());
            let choice = Choice { arm: Arm::Stable, why: Why::Latched, drawn: false, cohort: None };
            let result = Box::pin(forward::send(attempt, Arm::Stable, request)).await;
            (choice, result.map_err(Failure::into_error))
        }
        Err(Failure::Unsent(error)) if choice.arm == Arm::Canary && fallback != Fallback::None => {
            Box::pin(fall_back(attempt, choice, &error, request, exchange)).await
        }
        Err(failure) => match spare {
            Some(spare) if failure.outcome() != Outcome::Refused && failure.is_upstreams() => {
                let error = failure.into_error();
                *request = Some(*spare);
                Box::pin(fall_back(attempt, choice, &error, request, exchange)).await
            }
            _ => (choice, Err(failure.into_error())),
        },
    }
}

async fn fall_back(
    attempt: &Attempt<'_>,
    choice: Choice,
    error: &ProxyError,
    request: &mut Option<Request<UpBody>>,
    exchange: &mut Exchange,
) -> (Choice, Result<Answer, ProxyError>) {
    exchange.fail_over(error.outcome());
    let result = forward::send(attempt, Arm::Stable, request).await;
    (Choice { arm: Arm::Stable, why: Why::Fallback, ..choice }, result.map_err(Failure::into_error))
}

/// The answer for the caller: cleaned, tagged, measured to its end.
#[expect(clippy::too_many_arguments, reason = "the last step of one request: everything it has found out")]
fn downward(
    connection: &Connection,
    routed: &Routed,
    choice: Choice,
    ids: &Ids,
    head: &Head,
    answer: Answer,
    mut exchange: Exchange,
    upgrade: bool,
) -> Response<DownBody> {
    let worker = &connection.worker;
    let now = worker.clock.now();
    let rollout = routed.rollout();
    let target = rollout.target(choice.arm);
    let (mut parts, incoming) = answer.response.into_parts();
    let present = Present::scan(&parts.headers);
    let text = |bit: u32, name: http::HeaderName| {
        if present.has(bit) { parts.headers.get(name).and_then(|v| v.to_str().ok()) } else { None }
    };
    let mut reader = Reader::for_exchange(
        rollout.fixed.config.protocol,
        head.path.path(),
        text(Present::CONTENT_TYPE, header::CONTENT_TYPE),
        text(Present::CONTENT_ENCODING, header::CONTENT_ENCODING),
    );
    if head.method != Method::POST {
        reader.open_ended();
    }
    if let Some(schema) = exchange.asked(head.path.path(), now) {
        reader.expect(schema);
    }
    let transcript = exchange.sampling.as_ref().and_then(|sampling| sampling.transcript());
    reader.screen(rollout.fixed.config.safety.rules.as_ref(), transcript, rollout.fixed.asks.script);
    exchange.head(parts.status, now, reader);
    exchange.look_at(&parts.headers);
    let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    // Who asks for another protocol must name it (RFC 9110 section 15.5.22); HTTP/2 has no word for it.
    let demanding = parts.status == StatusCode::UPGRADE_REQUIRED && head.version == Version::HTTP_11;
    let protocol = if switching || demanding { parts.headers.get(header::UPGRADE).cloned() } else { None };
    headers::towards_downstream(&mut parts.headers, present);
    if demanding && let Some(protocol) = &protocol {
        parts.headers.insert(header::UPGRADE, protocol.clone());
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let tags = Tags {
        routed: routed.clone(),
        choice,
        request_id: ids.request_id.clone(),
        started: exchange.started(),
        sent_at: answer.sent_at,
        answered_at: now,
        version: parts.version,
        reference: feedback::reference(routed, &exchange, now),
    };
    parts.version = Version::HTTP_11;
    if switching && upgrade {
        // Over HTTP/2 there is no 101; `forward::accept` has refused it.
        let Some((upstream, input)) = incoming.into_io() else {
            return ProxyError::Protocol.response(rollout.fixed.config.protocol, None);
        };
        if let Some(protocol) = protocol {
            parts.headers.insert(header::UPGRADE, protocol);
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        let idle = target.cluster.timeouts.first_byte;
        let tunnel = Tunnel { upstream, input, exchange, in_flight: answer.in_flight, admitted: answer.admitted, idle };
        return Response::from_parts(parts, DownBody::tunnel(tunnel, tags));
    }
    let idle = target.cluster.timeouts.idle;
    let body = Measured::new(incoming, exchange, answer.in_flight, answer.admitted, idle);
    Response::from_parts(parts, DownBody::measured(body, tags))
}
