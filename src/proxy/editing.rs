//! A request body that is edited on its way up: frame in, frame out, nothing held but what the editor must hold.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use hyper::body::Frame;

use crate::wire::edit::{Edit, Editor};

/// One body in the making.
pub struct Editing {
    editor: Editor,
    /// What is ready to go: at most two frames (the last bytes, and trailers behind them).
    ready: VecDeque<Frame<Bytes>>,
    /// Nothing more comes from the caller.
    pub over: bool,
}

impl Editing {
    /// With these edits.
    #[must_use]
    pub fn new(edits: &Arc<[Edit]>) -> Self {
        Self { editor: Editor::new(edits), ready: VecDeque::new(), over: false }
    }

    /// The next frame that goes up, if one is ready.
    pub fn ready(&mut self) -> Option<Frame<Bytes>> {
        self.ready.pop_front()
    }

    /// Whether all that came has gone up.
    #[must_use]
    pub fn went(&self) -> bool {
        self.over && self.ready.is_empty()
    }

    /// Takes a frame as it came; `last` says that none follows.
    pub fn take(&mut self, frame: Frame<Bytes>, last: bool) {
        match frame.into_data() {
            Ok(data) => {
                let mut out = Vec::with_capacity(data.len());
                self.editor.push(&data, &mut out);
                self.give(out);
                if last {
                    self.end();
                }
            }
            Err(trailers) => {
                self.end();
                self.ready.push_back(trailers);
            }
        }
    }

    /// The body has ended.
    pub fn end(&mut self) {
        self.over = true;
        let mut out = Vec::new();
        self.editor.finish(&mut out);
        self.give(out);
    }

    /// An empty frame says nothing, and to some codecs it says "the end".
    fn give(&mut self, out: Vec<u8>) {
        if !out.is_empty() {
            self.ready.push_back(Frame::data(Bytes::from(out)));
        }
    }
}

/// Whether a body under this head may be JSON as it stands: not packed, and of no type that is something else. Many a
/// caller names a wrong type, or none.
#[must_use]
pub fn is_editable(headers: &HeaderMap) -> bool {
    let packed =
        headers.get(header::CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let begins = |kinds: &[&str]| {
        kinds.iter().any(|other| kind.get(..other.len()).is_some_and(|start| start.eq_ignore_ascii_case(other)))
    };
    !packed && !begins(&["multipart/", "audio/", "image/", "video/", "application/octet-stream"])
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_edited_body_has_no_empty_frames_and_keeps_its_trailers() {
        let mut editing = Editing::new(&Arc::from([Edit::text(&["model"], "b")]));
        editing.take(Frame::data(Bytes::from_static(b"{\"model\":\"")), false);
        editing.take(Frame::data(Bytes::from_static(b"a long name")), false);
        editing.take(Frame::data(Bytes::from_static(b"\"}")), false);
        editing.take(Frame::trailers(HeaderMap::new()), true);
        let frames: Vec<_> = std::iter::from_fn(|| editing.ready()).collect();
        let data: Vec<&[u8]> = frames.iter().filter_map(Frame::data_ref).map(|data| &data[..]).collect();
        assert_eq!(data, [&b"{\"model\":\"b\""[..], b"}"]);
        assert!(frames.last().is_some_and(Frame::is_trailers) && editing.went());
    }

    #[test]
    fn what_is_packed_or_no_text_is_left_alone() {
        let of = |name, value: &'static str| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        for (headers, expect) in [
            (HeaderMap::new(), true),
            (of(header::CONTENT_TYPE, "application/json; charset=utf-8"), true),
            (of(header::CONTENT_TYPE, "application/x-www-form-urlencoded"), true),
            (of(header::CONTENT_TYPE, "Multipart/form-data; boundary=x"), false),
            (of(header::CONTENT_ENCODING, "gzip"), false),
            (of(header::CONTENT_ENCODING, "identity"), true),
        ] {
            assert_eq!(is_editable(&headers), expect, "{headers:?}");
        }
    }
}
