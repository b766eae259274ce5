//! Answers kept for `Idempotency-Key`: a change that is sent twice happens once.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::{PROBLEM_JSON, Problem};

/// Answers that are kept; beyond it the oldest is forgotten.
const ANSWERS_MAX: usize = 1_024;
/// The longest key.
const KEY_MAX: usize = 255;

/// An answer as it was given, so that it can be given again.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// JSON.
    pub body: Bytes,
    /// The rollout's generation, where the body is one.
    pub generation: Option<u64>,
}

impl Reply {
    /// An answer with a JSON body.
    #[must_use]
    pub fn json(status: StatusCode, body: &impl serde::Serialize, generation: Option<u64>) -> Self {
        Self { status, body: serde_json::to_vec(body).unwrap_or_default().into(), generation }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body.into());
        *response.status_mut() = self.status;
        let media = if self.status.is_success() { HeaderValue::from_static("application/json") } else { PROBLEM_JSON };
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        if let Some(etag) = self.generation.and_then(|g| HeaderValue::from_str(&format!("\"{g}\"")).ok()) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}

/// All kept answers.
#[derive(Debug, Default)]
pub struct Answers(Mutex<VecDeque<Entry>>);

#[derive(Debug)]
struct Entry {
    /// Actor, place and key, hashed.
    key: [u8; 32],
    /// The request's body, hashed.
    body: [u8; 32],
    /// `None` while the first one is under way.
    reply: Option<Reply>,
}

/// What is to be done with a request.
pub enum Turn<'a> {
    /// It is the first one: do it, then [`Pending::keep`].
    First(Pending<'a>),
    /// It was done: answer this.
    Again(Reply),
}

/// A first request under way; dropped without an answer, the key is free again.
pub struct Pending<'a> {
    answers: &'a Answers,
    key: Option<[u8; 32]>,
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

impl Answers {
    /// Asks whether this change was made before. Without a key it never was.
    ///
    /// # Errors
    /// 422 when the key came with another body, 409 while the first one is under way.
    pub fn turn(&self, actor: &str, place: &str, key: Option<&str>, body: &[u8]) -> Result<Turn<'_>, Problem> {
        let Some(key) = key else { return Ok(Turn::First(Pending { answers: self, key: None })) };
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(Problem::invalid("Idempotency-Key has 1 to 255 characters", "send a UUID"));
        }
        let key = hash(&[actor.as_bytes(), place.as_bytes(), key.as_bytes()]);
        let body = hash(&[body]);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|entry| entry.key == key) {
            if known.body != body {
                return Err(Problem::invalid("this Idempotency-Key came with another body before", "send a new key"));
            }
            return known.reply.clone().map(Turn::Again).ok_or_else(|| {
                Problem::conflict("the first request with this Idempotency-Key is under way", "wait for its answer")
            });
        }
        if all.len() >= ANSWERS_MAX {
            all.pop_front();
        }
        all.push_back(Entry { key, body, reply: None });
        Ok(Turn::First(Pending { answers: self, key: Some(key) }))
    }
}

impl Pending<'_> {
    /// Keeps the answer, except one that says "try again".
    pub fn keep(mut self, reply: &Reply) {
        let retry = reply.status.is_server_error();
        let Some(key) = self.key.take_if(|_| !retry) else { return };
        let mut all = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = all.iter_mut().find(|entry| entry.key == key) {
            entry.reply = Some(reply.clone());
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.answers.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| entry.key != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16) -> Reply {
        Reply::json(StatusCode::from_u16(status).unwrap(), &serde_json::json!({"n": 1}), Some(4))
    }

    fn first<'a>(answers: &'a Answers, key: &str, body: &[u8]) -> Pending<'a> {
        match answers.turn("alice", "POST /x", Some(key), body) {
            Ok(Turn::First(pending)) => pending,
            _ => panic!("not the first"),
        }
    }

    #[test]
    fn a_change_sent_twice_is_answered_from_memory() {
        let answers = Answers::default();
        first(&answers, "k", b"{}").keep(&reply(200));
        match answers.turn("alice", "POST /x", Some("k"), b"{}") {
            Ok(Turn::Again(again)) => assert_eq!((again.status.as_u16(), again.generation), (200, Some(4))),
            _ => panic!("done twice"),
        }
        let other_body = answers.turn("alice", "POST /x", Some("k"), b"{\"weight\":1}");
        assert_eq!(other_body.err().unwrap().status, StatusCode::UNPROCESSABLE_ENTITY);
        drop(first(&answers, "k2", b"{}"));
        assert!(matches!(answers.turn("bob", "POST /x", Some("k"), b"{}"), Ok(Turn::First(_))), "another person");
        assert!(matches!(answers.turn("alice", "POST /x", None, b"{}"), Ok(Turn::First(_))), "no key");
    }

    #[test]
    fn a_second_one_waits_for_the_first_and_a_failure_may_be_tried_again() {
        let answers = Answers::default();
        let pending = first(&answers, "k", b"{}");
        let second = answers.turn("alice", "POST /x", Some("k"), b"{}");
        assert_eq!(second.err().unwrap().status, StatusCode::CONFLICT);
        pending.keep(&reply(503));
        drop(first(&answers, "k", b"{}"));
        first(&answers, "k", b"{}").keep(&reply(409));
        assert!(matches!(answers.turn("alice", "POST /x", Some("k"), b"{}"), Ok(Turn::Again(_))));
    }

    #[test]
    fn memory_is_bounded() {
        let answers = Answers::default();
        for n in 0..ANSWERS_MAX + 10 {
            first(&answers, &format!("k{n}"), b"{}").keep(&reply(200));
        }
        assert_eq!(answers.0.lock().unwrap().len(), ANSWERS_MAX);
    }
}
