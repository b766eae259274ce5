//! Who asks, and whether he may: bearer tokens, log-in cookies, roles, and the names a request may be addressed to.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::context::{Context, Side};
use super::error::Problem;
use super::sessions::{COOKIE, HEADER};
use crate::config::{self, Secret, Token};
use crate::rollout::{Actor, Role, Verb};

/// Roles that may read.
pub const READERS: &[Role] = &[Role::Viewer, Role::Operator, Role::Approver, Role::Owner];
/// Roles that may report feedback.
pub const REPORTERS: &[Role] = &[Role::Reporter, Role::Owner];
/// Roles that may reload the configuration.
pub const RELOADERS: &[Role] = &[Role::Operator, Role::Owner];

/// Somebody who asks, known by token, by cookie, or as "local" where no tokens are configured.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Name and roles.
    pub actor: Actor,
    /// The header token of his browser, where he logged in.
    pub header: Option<Secret>,
}

impl Caller {
    /// Refuses a caller who has none of `roles`.
    ///
    /// # Errors
    /// 403 that names the roles.
    pub fn need(&self, roles: &[Role]) -> Result<(), Problem> {
        if roles.iter().any(|role| self.actor.roles.contains(role)) {
            return Ok(());
        }
        let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        Err(Problem::forbidden(
            format!("{} has not the role that this needs", self.actor.name),
            format!("ask somebody whose token has one of: {}", names.join(", ")),
        ))
    }

    /// Refuses a caller who may not use `verb`.
    ///
    /// # Errors
    /// 403 that names the roles.
    pub fn may(&self, verb: Verb) -> Result<(), Problem> {
        self.need(verb.roles())
    }
}

impl FromRequestParts<Context> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, cx: &Context) -> Result<Self, Problem> {
        identify(cx, &parts.method, &parts.headers)
    }
}

/// Who sends this request.
///
/// # Errors
/// 401 without a known token; 403 for a change by cookie without the page's header token.
pub fn identify(cx: &Context, method: &Method, headers: &HeaderMap) -> Result<Caller, Problem> {
    let snapshot = cx.snapshot();
    let tokens = &snapshot.config.admin.tokens;
    if tokens.is_empty() {
        return Ok(Caller { actor: Actor::new("local", &[Role::Owner]), header: None });
    }
    if let Some(given) = headers.get(header::AUTHORIZATION) {
        let given = given.to_str().unwrap_or_default();
        let secret = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let secret = secret.map_or("", |(_, secret)| secret.trim());
        return match find(tokens, secret) {
            Some(token) => Ok(Caller { actor: actor(token), header: None }),
            None => Err(Problem::unauthorized("the token is not known")),
        };
    }
    let Some(id) = cookie(headers) else { return Err(Problem::unauthorized("a token is needed")) };
    let Some((session, token)) = cx.sessions().find(id, tokens, cx.parts().clock.now()) else {
        return Err(Problem::unauthorized("the log-in has ended"));
    };
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    let given = headers.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if changes && !session.header.matches(given) {
        return Err(Problem::forbidden(
            format!("a change by cookie needs the page's {HEADER} header"),
            "load the dashboard again, or send a bearer token",
        ));
    }
    Ok(Caller { actor: actor(token), header: Some(session.header) })
}

/// The token with this secret. Every token is compared, so the time tells nothing of which one came near.
#[must_use]
pub fn find<'t>(tokens: &'t [Token], secret: &str) -> Option<&'t Token> {
    let mut found = None;
    for token in tokens {
        if token.secret.matches(secret) {
            found = Some(token);
        }
    }
    found.filter(|_| !secret.is_empty())
}

/// The log-in cookie of a request.
#[must_use]
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

fn actor(token: &Token) -> Actor {
    let role = |role: &config::Role| match role {
        config::Role::Viewer => Role::Viewer,
        config::Role::Reporter => Role::Reporter,
        config::Role::Operator => Role::Operator,
        config::Role::Approver => Role::Approver,
        config::Role::Owner => Role::Owner,
    };
    Actor { name: token.name.clone(), roles: token.roles.iter().map(role).collect() }
}

/// Refuses requests that are addressed to a name we do not answer to (DNS rebinding), or that another site's page sent.
pub async fn guard(State(cx): State<Context>, request: Request, next: Next) -> Response {
    // Kubelets ask by whatever name they know; nothing is told here but yes or no.
    if matches!(request.uri().path(), "/livez" | "/readyz") {
        return next.run(request).await;
    }
    match check(&cx, request.headers(), request.uri().authority().map(axum::http::uri::Authority::as_str)) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(cx: &Context, headers: &HeaderMap, authority: Option<&str>) -> Result<(), Problem> {
    let snapshot = cx.snapshot();
    let hosts = &snapshot.config.admin.hosts;
    let remedy = "use the address itself, or add the name to admin.hosts";
    if let Side::Tcp { local, .. } = cx.side {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).or(authority);
        let Some(host) = host else { return Err(Problem::malformed("the request names no Host", remedy)) };
        if !ours(host, local, hosts) {
            return Err(Problem::forbidden(format!("this is not {}", shortened(host)), remedy));
        }
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let name = origin.split_once("://").map_or(origin, |(_, rest)| rest);
        let good = match cx.side {
            Side::Tcp { local, .. } => ours(name, local, hosts),
            Side::Unix => false,
        };
        if !good {
            return Err(Problem::forbidden(format!("pages of {} may not ask here", shortened(origin)), remedy));
        }
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
        && headers.get("sec-fetch-mode").is_none_or(|mode| mode != "navigate")
    {
        return Err(Problem::forbidden("another site's page sent this", "open the dashboard itself"));
    }
    Ok(())
}

/// What we show of a name that somebody sent.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Whether `authority` (with or without a port) is a name of this listener. An address is never the fruit of DNS
/// rebinding, so a listener on all addresses answers to every address.
fn ours(authority: &str, local: SocketAddr, hosts: &[String]) -> bool {
    let name = without_port(authority).to_ascii_lowercase();
    if let Ok(ip) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return ip.to_canonical() == local.ip().to_canonical() || ip.is_loopback() || local.ip().is_unspecified();
    }
    name == "localhost" || hosts.contains(&name)
}

fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| authority.get(..=end).unwrap_or(authority));
    }
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_answered_to() {
        let hosts = vec!["serin.internal".to_owned()];
        let on = |local: &str, host: &str| ours(host, local.parse().unwrap(), &hosts);
        for (local, host, expect) in [
            ("127.0.0.1:8081", "127.0.0.1:8081", true),
            ("127.0.0.1:8081", "localhost:8081", true),
            ("127.0.0.1:8081", "LOCALHOST", true),
            ("127.0.0.1:8081", "[::1]:8081", true),
            ("127.0.0.1:8081", "serin.internal", true),
            ("127.0.0.1:8081", "Serin.Internal:443", true),
            ("127.0.0.1:8081", "evil.example", false),
            ("127.0.0.1:8081", "localhost.evil.example", false),
            ("127.0.0.1:8081", "10.0.0.9:8081", false),
            ("0.0.0.0:8081", "10.0.0.9:8081", true),
            ("0.0.0.0:8081", "evil.example", false),
            ("10.0.0.9:8081", "10.0.0.9", true),
            ("10.0.0.9:8081", "10.0.0.8", false),
            ("127.0.0.1:8081", "", false),
            ("127.0.0.1:8081", "null", false),
        ] {
            assert_eq!(on(local, host), expect, "{host} on {local}");
        }
    }

    #[test]
    fn a_token_is_found_by_its_whole_secret_alone() {
        let token = |name: &str, secret: &str| Token {
            name: name.into(),
            roles: vec![config::Role::Viewer],
            secret: Secret::new(secret),
        };
        let tokens = [token("a", "alpha"), token("b", "beta")];
        assert_eq!(find(&tokens, "beta").map(|t| t.name.as_str()), Some("b"));
        for wrong in ["", "bet", "betaa", "Beta"] {
            assert!(find(&tokens, wrong).is_none(), "{wrong:?}");
        }
    }
}
