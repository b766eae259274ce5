//! Puts other values into a JSON body as it passes: one value replaced by another, every other byte as it was.
//!
//! Nothing is held but the key at hand: the body may be as long as it likes. Every value at one of the paths is replaced,
//! also where a key stands twice (whichever its reader takes, it takes ours). What is not JSON passes unchanged from where it
//! stops being that. How long the result is, is known only at its end: a body whose length must be told first is edited whole
//! ([`whole`]), any other goes up in chunks.

use super::scan;

/// Longest key that is compared, in bytes as they stand in the body; no path may ask for a longer one.
const KEY_BYTES_MAX: usize = 256;
/// Deepest nesting that is followed; below it nothing is edited, and the body passes.
const DEPTH_MAX: usize = 512;

/// A value to be put in: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Keys from the outermost object inwards.
    path: Vec<String>,
    /// The new value, as JSON.
    value: Box<[u8]>,
}

impl Edit {
    /// Replaces what stands at `path` (keys from the outermost object inwards) by this text, as a JSON string.
    #[must_use]
    pub fn text(path: &[&str], value: &str) -> Edit {
        let value = serde_json::Value::String(value.to_owned()).to_string().into_bytes().into_boxed_slice();
        Edit { path: path.iter().map(|key| (*key).to_owned()).collect(), value }
    }
}

/// What the next byte may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A value, or the end of an array.
    Value,
    /// A key, or the end of an object.
    Key,
    /// Inside a key; `true` behind a backslash.
    InKey(bool),
    Colon,
    /// Inside a string value; `true` behind a backslash.
    InText(bool),
    /// Inside a number or a word.
    InWord,
    /// A comma or an end.
    After,
    /// Not JSON, or too deep: everything passes.
    Passing,
}

/// An open object or array.
#[derive(Clone, Copy, Debug)]
struct Level {
    object: bool,
    /// It stands where at least one path leads through, or is the outermost.
    followed: bool,
}

/// The editor of one body.
#[derive(Debug)]
pub struct Editor<'e> {
    edits: &'e [Edit],
    at: At,
    levels: Vec<Level>,
    /// The keys that lead to the value at hand, of the followed objects.
    path: Vec<String>,
    /// The key at hand, raw.
    key: Vec<u8>,
    /// How many levels were open where the value began that is being left out.
    dropping: Option<usize>,
    replaced: usize,
}

impl<'e> Editor<'e> {
    /// An editor that makes these edits.
    #[must_use]
    pub fn new(edits: &'e [Edit]) -> Editor<'e> {
        Editor {
            edits,
            at: At::Value,
            levels: Vec::new(),
            path: Vec::new(),
            key: Vec::new(),
            dropping: None,
            replaced: 0,
        }
    }

    /// How many values were replaced so far.
    #[must_use]
    pub const fn replaced(&self) -> usize {
        self.replaced
    }

    /// Takes the next bytes in and appends what goes on to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        // What stands before `from` has gone on, or is left out.
        let (mut from, mut index) = (0, 0);
        while let Some(&byte) = bytes.get(index) {
            let dropping = self.dropping.is_some();
            if !dropping
                && self.at == At::Value
                && begins_value(byte)
                && let Some(edit) = self.edit_here()
            {
                out.extend_from_slice(bytes.get(from..index).unwrap_or_default());
                out.extend_from_slice(&edit.value);
                self.replaced += 1;
                self.dropping = Some(self.levels.len());
                from = index;
            }
            let taken = self.step(byte);
            if self.at == At::Passing {
                // Not JSON: what was left out of it stays out, the rest passes.
                from = if dropping { index } else { from };
                self.dropping = None;
                break;
            }
            index += usize::from(taken);
            if dropping && self.dropping.is_none() {
                from = index;
            }
            index = self.skip_text(bytes, index);
        }
        if self.dropping.is_none() {
            out.extend_from_slice(bytes.get(from..).unwrap_or_default());
        }
    }

    /// Inside a long string nothing is decided: to its next quote or backslash.
    fn skip_text(&self, bytes: &[u8], index: usize) -> usize {
        if self.at != At::InText(false) {
            return index;
        }
        let rest = bytes.get(index..).unwrap_or_default();
        index + memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())
    }

    /// The edit of the value that begins here.
    fn edit_here(&self) -> Option<&'e Edit> {
        let inside = self.levels.last().is_some_and(|level| level.object && level.followed);
        inside.then(|| self.edits.iter().find(|edit| edit.path == self.path)).flatten()
    }

    /// Takes one byte; `false` where it ends a number or word and is to be looked at again.
    fn step(&mut self, byte: u8) -> bool {
        let space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match (self.at, byte) {
            (At::InText(true), _) => self.at = At::InText(false),
            (At::InText(false), b'\\') => self.at = At::InText(true),
            (At::InText(false), b'"') => self.ended(),
            (At::InText(false), _) => (),
            (At::InKey(escaped), _) => self.in_key(escaped, byte),
            (At::InWord, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') => (),
            (At::InWord, _) => {
                self.ended();
                return false;
            }
            (At::Value | At::Key | At::Colon | At::After, _) if space => (),
            (At::Value, b'"') => self.at = At::InText(false),
            (At::Value, b'{') => self.open(true),
            (At::Value, b'[') => self.open(false),
            (At::Value, b']') => self.close(false),
            (At::Value, b'0'..=b'9' | b'-' | b't' | b'f' | b'n') => self.at = At::InWord,
            (At::Key, b'"') => {
                self.key.clear();
                self.at = At::InKey(false);
            }
            (At::Key, b'}') => self.close(true),
            (At::Colon, b':') => self.at = At::Value,
            (At::After, b',') => {
                let in_object = self.levels.last().is_some_and(|level| level.object);
                self.at = if in_object { At::Key } else { At::Value };
            }
            (At::After, b'}') => self.close(true),
            (At::After, b']') => self.close(false),
            _ => self.at = At::Passing,
        }
        true
    }

    fn in_key(&mut self, escaped: bool, byte: u8) {
        if !escaped && byte == b'"' {
            self.at = At::Colon;
            if self.levels.last().is_some_and(|level| level.followed) {
                self.path.pop();
                self.path.push(self.key_text());
            }
            return;
        }
        if self.key.len() <= KEY_BYTES_MAX {
            self.key.push(byte);
        }
        self.at = At::InKey(!escaped && byte == b'\\');
    }

    /// The key at hand without its escapes; empty where it is too long to be one of ours.
    fn key_text(&self) -> String {
        if self.key.len() > KEY_BYTES_MAX {
            return String::new();
        }
        serde_json::from_slice(&[b"\"", self.key.as_slice(), b"\""].concat()).unwrap_or_default()
    }

    fn open(&mut self, object: bool) {
        if self.levels.len() == DEPTH_MAX {
            self.at = At::Passing;
            return;
        }
        let outermost = self.levels.is_empty();
        let parent = self.levels.last().is_some_and(|level| level.object && level.followed);
        let leads = parent
            && self.dropping.is_none()
            && self.edits.iter().any(|edit| edit.path.len() > self.path.len() && edit.path.starts_with(&self.path));
        let followed = object && (outermost || leads);
        self.levels.push(Level { object, followed });
        if followed {
            self.path.push(String::new()); // the place of its keys
        }
        self.at = if object { At::Key } else { At::Value };
    }

    fn close(&mut self, object: bool) {
        match self.levels.pop() {
            Some(level) if level.object == object => {
                if level.followed {
                    self.path.pop();
                }
                self.ended();
            }
            _ => self.at = At::Passing,
        }
    }

    /// A value has ended.
    fn ended(&mut self) {
        self.at = At::After;
        if self.dropping == Some(self.levels.len()) {
            self.dropping = None;
        }
    }
}

const fn begins_value(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}

/// A whole body with its edits; `None` where nothing was to be replaced, or it is no JSON object.
#[must_use]
pub fn whole(body: &[u8], edits: &[Edit]) -> Option<Vec<u8>> {
    if !body.trim_ascii_start().starts_with(b"{") || !scan::is_json(body) {
        return None;
    }
    let more: usize = edits.iter().map(|edit| edit.value.len()).sum();
    let mut out = Vec::with_capacity(body.len() + more);
    let mut editor = Editor::new(edits);
    editor.push(body, &mut out);
    (editor.replaced() > 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn run(chunks: &[&[u8]], edits: &[Edit]) -> String {
        let mut out = Vec::new();
        let mut editor = Editor::new(edits);
        for chunk in chunks {
            editor.push(chunk, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn check(body: &str, expect: &str) {
        let edits = [Edit::text(&["model"], "b\"2"), Edit::text(&["prompt", "version"], "7")];
        assert_eq!(run(&[body.as_bytes()], &edits), expect);
        let single: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        assert_eq!(run(&single, &edits), expect, "byte by byte");
        for at in 0..body.len() {
            let (one, two) = body.as_bytes().split_at(at);
            assert_eq!(run(&[one, two], &edits), expect, "cut at {at}");
        }
    }

    #[test]
    fn one_value_is_replaced_and_every_other_byte_stays() {
        check(
            r#"{ "model" : "a", "messages":[{"model":"x"}], "n":1.50 }"#,
            r#"{ "model" : "b\"2", "messages":[{"model":"x"}], "n":1.50 }"#,
        );
        check(
            r#"{"messages":["\"model\":\"q\""],"model":"a\\"}"#,
            r#"{"messages":["\"model\":\"q\""],"model":"b\"2"}"#,
        );
        check(r#"{"model":17,"x":{"model":1}}"#, r#"{"model":"b\"2","x":{"model":1}}"#);
        check(r#"{"model":17}"#, r#"{"model":"b\"2"}"#);
        check(r#"{"model":null ,"a":[]}"#, r#"{"model":"b\"2" ,"a":[]}"#);
        check(r#"{"model":{"model":["]}"]},"a":{}}"#, r#"{"model":"b\"2","a":{}}"#);
        check(r#"{"mod\u0065l":"a"}"#, r#"{"mod\u0065l":"b\"2"}"#);
        check(r#"{"model":"a","model":"c"}"#, r#"{"model":"b\"2","model":"b\"2"}"#);
        check(
            r#"{"prompt":{"id":"p","version":"3","v":{"version":"1"}},"version":"3"}"#,
            r#"{"prompt":{"id":"p","version":"7","v":{"version":"1"}},"version":"3"}"#,
        );
        check(
            r#"{"prompt":[{"version":"3"}],"x":[{"prompt":{"version":"3"}}]}"#,
            r#"{"prompt":[{"version":"3"}],"x":[{"prompt":{"version":"3"}}]}"#,
        );
        check(r#"[{"model":"a"}]"#, r#"[{"model":"a"}]"#);
        check(r#"{"model"}"#, r#"{"model"}"#);
        check("model", "model");
        check("", "");
    }

    #[test]
    fn what_is_no_json_passes() {
        for body in [
            "{\"a\":1]",
            "{\"a\" 1,\"model\":\"x\"}",
            "<html>\"model\":\"x\"",
            "{\"model\":\"x\"",
            "{}{\"model\":\"x\"}",
        ] {
            let edits = [Edit::text(&["model"], "b")];
            let out = run(&[body.as_bytes()], &edits);
            assert!(out == body || out == "{\"model\":\"b\"", "{body} became {out}");
            assert_eq!(whole(body.as_bytes(), &edits), None);
        }
        let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
        assert_eq!(run(&[deep.as_bytes()], &[Edit::text(&["model"], "b")]), deep);
    }

    #[test]
    fn nothing_is_held_of_a_long_body() {
        let edits = [Edit::text(&["model"], "b")];
        let (mut editor, mut out, mut sent) = (Editor::new(&edits), Vec::new(), 0);
        editor.push(b"{\"messages\":[\"", &mut out);
        for _ in 0..1_000 {
            out.clear();
            editor.push(&[b'x'; 4_096], &mut out);
            sent += out.len();
        }
        assert_eq!(sent, 4_096_000);
        out.clear();
        editor.push(b"\"],\"model\":\"a\"}", &mut out);
        assert_eq!((out.as_slice(), editor.replaced()), (&b"\"],\"model\":\"b\"}"[..], 1));
        assert!(editor.key.capacity() <= 512 && editor.path.len() <= 1);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("model".to_owned()),
            Just("prompt".to_owned()),
            Just("version".to_owned()),
            any::<String>()
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(9), ..ProptestConfig::default() })]

        #[test]
        fn what_comes_out_is_what_serde_json_would_have_changed(value in any_json(), pretty in any::<bool>(), size in 1..40usize) {
            let body = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let edits = [Edit::text(&["model"], "é\"\n"), Edit::text(&["prompt", "version"], "7")];
            let chunks: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            let out = run(&chunks, &edits);
            let mut expect = value.clone();
            if let Some(object) = expect.as_object_mut() {
                if let Some(model) = object.get_mut("model") {
                    *model = "é\"\n".into();
                }
                if let Some(version) = object.get_mut("prompt").and_then(Value::as_object_mut).and_then(|p| p.get_mut("version")) {
                    *version = "7".into();
                }
            }
            prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), serde_json::from_str::<Value>(&expect.to_string()).unwrap());
            if expect == value {
                prop_assert_eq!(out, body);
            }
        }
    }
}
