//! What a caller is told when it does not work: problem+json (RFC 9457) with a remedy.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::evaluator::Refused;

/// A refusal or failure, ready to be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// The status answered.
    pub status: StatusCode,
    /// The last part of `type`.
    pub kind: &'static str,
    /// What happened, in one sentence.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
    /// The verbs that would be allowed, where a phase forbids one.
    pub allowed: Option<Vec<&'static str>>,
}

#[derive(Serialize)]
struct Shape<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    remedy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<&'a [&'static str]>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), remedy: remedy.into(), allowed: None }
    }

    /// 400: cannot be read at all.
    #[must_use]
    pub fn malformed(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail, remedy)
    }

    /// 401: nobody known asks.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        let remedy = "send \"Authorization: Bearer TOKEN\" with the secret of one of [[admin.tokens]]";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, remedy)
    }

    /// 403: known, but not allowed.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail, remedy)
    }

    /// 404: no such rollout or address.
    #[must_use]
    pub fn not_found(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail, remedy)
    }

    /// 404 for a rollout's name.
    #[must_use]
    pub fn no_rollout(name: &str) -> Self {
        Self::not_found(format!("there is no rollout {name:?}"), "GET /api/v1/rollouts lists them")
    }

    /// 409: not now.
    #[must_use]
    pub fn conflict(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail, remedy)
    }

    /// 422: read, but wrong.
    #[must_use]
    pub fn invalid(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail, remedy)
    }

    /// 503: the part that must answer does not.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let remedy = "try again in a moment; abort works without the evaluator";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail, remedy)
    }

    /// Any other status.
    #[must_use]
    pub fn other(status: StatusCode, kind: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(status, kind, detail, remedy)
    }

    /// 412: the rollout has moved on.
    #[must_use]
    pub fn changed(generation: u64) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "changed",
            format!("the rollout is at generation {generation} by now"),
            "read it again, decide anew, and send its generation in If-Match",
        )
    }

    /// The JSON of it.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let shape = Shape {
            r#type: format!("urn:serin:problem:{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            remedy: &self.remedy,
            allowed: self.allowed.as_deref(),
        };
        serde_json::to_vec(&shape).unwrap_or_default()
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound(name) => Self::no_rollout(&name),
            Refused::Forbidden(why) => Self::forbidden(why, "ask somebody whose token has the role"),
            Refused::Conflict { why, allowed } => {
                let remedy = if allowed.is_empty() {
                    "nothing is allowed in this phase; read the rollout's \"why\"".to_owned()
                } else {
                    format!("allowed now: {}", allowed.join(", "))
                };
                Self { allowed: Some(allowed), ..Self::conflict(why, remedy) }
            }
            Refused::Invalid(why) => Self::invalid(why, "correct the request and send it again"),
            Refused::Changed(generation) => Self::changed(generation),
            Refused::Unavailable(why) => Self::unavailable(why),
        }
    }
}

/// The media type of problems.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(())).into_response();
        *response.body_mut() = self.body().into();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.remove(header::CONTENT_LENGTH);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"serin\""));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_verbs_that_would_be_allowed() {
        let refused = Refused::Conflict { why: "a latched rollout takes no weight".into(), allowed: vec!["clear"] };
        let problem = Problem::from(refused);
        let json: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "urn:serin:problem:conflict", "title": "Conflict", "status": 409,
                "detail": "a latched rollout takes no weight", "remedy": "allowed now: clear", "allowed": ["clear"],
            })
        );
    }
}
