//! A bounded look into a request body: as much as identity needs, never more than `peek_bytes`.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::body::BodyError;
use super::caller_body::CallerBody;
use super::deadlines::{Deadlines, within};

/// What was taken off the front of a body. The bytes go up in front of the rest.
#[derive(Debug, Default)]
pub struct Peeked {
    /// Chunks as they came.
    pub chunks: VecDeque<Bytes>,
    /// Bytes in them.
    pub bytes: usize,
    /// The body ended within the bound.
    pub whole: bool,
}

/// Reads until the end or the bound; a body that stands still for `progress` is given up.
///
/// # Errors
/// The caller broke off or stood still.
pub async fn peek(
    body: &mut CallerBody,
    most: usize,
    deadlines: &Rc<Deadlines>,
    progress: Duration,
) -> Result<Peeked, BodyError> {
    let mut seen = Peeked::default();
    while seen.bytes < most {
        let frame = std::future::poll_fn(|cx| body.poll_frame(cx));
        match within(deadlines, progress, frame).await.map_err(|_| BodyError::Stalled)? {
            None => {
                seen.whole = true;
                break;
            }
            Some(Err(error)) => return Err(error),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    seen.bytes += data.len();
                    seen.chunks.push_back(data);
                }
                if body.is_end_stream() {
                    seen.whole = true;
                    break;
                }
            }
        }
    }
    Ok(seen)
}

impl Peeked {
    /// All bytes in one piece: without a copy where they came as one.
    #[must_use]
    pub fn joined(&self) -> Bytes {
        match self.chunks.len() {
            1 => self.chunks.front().cloned().unwrap_or_default(),
            _ => self.chunks.iter().flat_map(|c| c.iter().copied()).collect(),
        }
    }

    /// A text or number at a JSON pointer (RFC 6901) of a body that was read whole.
    #[must_use]
    pub fn field(&self, pointer: &str) -> Option<String> {
        if !self.whole {
            return None;
        }
        let value: serde_json::Value = serde_json::from_slice(&self.joined()).ok()?;
        match value.pointer(pointer)? {
            serde_json::Value::String(text) => Some(text.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_in_a_whole_body_only() {
        let chunks: VecDeque<Bytes> =
            [Bytes::from_static(b"{\"user\":\"u-1\","), Bytes::from_static(b"\"n\":7}")].into();
        let mut seen = Peeked { chunks, bytes: 21, whole: true };
        assert_eq!(seen.field("/user").as_deref(), Some("u-1"));
        assert_eq!(seen.field("/n").as_deref(), Some("7"));
        assert_eq!(seen.field("/x"), None);
        seen.whole = false;
        assert_eq!(seen.field("/user"), None);
    }
}
