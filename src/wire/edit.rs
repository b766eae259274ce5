//! Puts other values into a JSON body as it passes; every other byte as it was.
//!
//! A value is replaced where it stands (every time, also where a key stands twice: whichever its reader takes, it takes ours),
//! is set (replaced, or else added at the end of the object that its path leads to), or leads a list: a system prompt in front
//! of messages, in the place of one that is there. Nothing is held but the key at hand, and of a list's first element what
//! comes before its role: the body may be as long as it likes. What is not JSON passes unchanged from where it stops being
//! that. How long the result is, is known only at its end: a body whose length must be told first is edited whole ([`whole`]),
//! any other goes up in chunks.

use std::sync::Arc;

use super::scan;

/// Longest key that is compared, in bytes as they stand in the body; no path may ask for a longer one.
const KEY_BYTES_MAX: usize = 256;
/// Deepest nesting that is followed; below it nothing is edited, and the body passes.
const DEPTH_MAX: usize = 512;
/// Most bytes of a list's first element that are held until its role is known; beyond them it is no system prompt.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// A value to be put in: where, what, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Keys from the outermost object inwards.
    path: Vec<String>,
    /// The new value, as JSON.
    value: Box<[u8]>,
    how: How,
}

/// How a value is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// In the place of the one that is there.
    Replace,
    /// The same, or added where there is none.
    Set,
    /// As the first element of the list that is there, in the place of a system prompt.
    Lead,
}

impl Edit {
    fn new(path: &[&str], value: &serde_json::Value, how: How) -> Edit {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        Edit { path, value: value.to_string().into_bytes().into_boxed_slice(), how }
    }

    /// Replaces what stands at `path` (keys from the outermost object inwards) by this text, as a JSON string.
    #[must_use]
    pub fn text(path: &[&str], value: &str) -> Edit {
        Edit::new(path, &value.into(), How::Replace)
    }

    /// Replaces what stands at `path` by this value, or adds it to the object there; where that object is not, nothing is added.
    #[must_use]
    pub fn set(path: &[&str], value: &serde_json::Value) -> Edit {
        Edit::new(path, value, How::Set)
    }

    /// Puts this element in front of the list at `path`; an element of the role `system` or `developer` that leads it goes.
    #[must_use]
    pub fn lead(path: &[&str], element: &serde_json::Value) -> Edit {
        Edit::new(path, element, How::Lead)
    }

    /// As a member of an object.
    fn member(&self, first: bool, out: &mut Vec<u8>) {
        let key = serde_json::Value::from(self.path.last().map_or("", String::as_str)).to_string();
        out.extend_from_slice(if first { b"" } else { b"," });
        out.extend_from_slice(key.as_bytes());
        out.push(b':');
        out.extend_from_slice(&self.value);
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

/// The first element of a list, until it is known whether it stays.
#[derive(Clone, Copy, Debug)]
enum Leading {
    /// The list has just begun; its edit.
    Begun(usize),
    /// The element is held; its edit, and how many levels were open where it began.
    Held(usize, usize),
}

/// The editor of one body.
#[derive(Debug)]
pub struct Editor {
    edits: Arc<[Edit]>,
    at: At,
    levels: Vec<Level>,
    /// The keys that lead to the value at hand, of the followed objects.
    path: Vec<String>,
    /// The key at hand, raw.
    key: Vec<u8>,
    /// Which edits have met their key in the object at hand.
    met: Vec<bool>,
    /// How many levels were open where the value began that is being left out.
    dropping: Option<usize>,
    leading: Option<Leading>,
    /// What is held of a list's first element.
    held: Vec<u8>,
    changed: usize,
}

impl Editor {
    /// An editor that makes these edits.
    #[must_use]
    pub fn new(edits: &Arc<[Edit]>) -> Editor {
        Editor {
            edits: Arc::clone(edits),
            at: At::Value,
            levels: Vec::new(),
            path: Vec::new(),
            key: Vec::new(),
            met: vec![false; edits.len()],
            dropping: None,
            leading: None,
            held: Vec::new(),
            changed: 0,
        }
    }

    /// How many values were put in so far.
    #[must_use]
    pub const fn changed(&self) -> usize {
        self.changed
    }

    /// Takes the next bytes in and appends what goes on to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        // What stands before `from` has gone on, is held, or is left out.
        let (mut from, mut index) = (0, 0);
        while let Some(&byte) = bytes.get(index) {
            let dropping = self.dropping.is_some();
            if !dropping && self.puts_in(byte) {
                let edits = Arc::clone(&self.edits);
                out.extend_from_slice(bytes.get(from..index).unwrap_or_default());
                from = index;
                self.put_in(&edits, byte, out);
            }
            let dropping = self.dropping.is_some();
            let taken = self.step(byte);
            if self.at == At::Passing {
                // Not JSON: what was left out of it stays out, the rest passes.
                from = if dropping { index } else { from };
                self.dropping = None;
                self.leading = None;
                out.append(&mut self.held);
                break;
            }
            index += usize::from(taken);
            if dropping && self.dropping.is_none() {
                from = index;
            }
            if let Some(Leading::Held(edit, level)) = self.leading
                && !dropping
                && self.at == At::After
                && self.levels.len() <= level + 1
            {
                self.held.extend_from_slice(bytes.get(from..index).unwrap_or_default());
                from = index;
                self.decide(edit, level, out);
            }
            index = self.skip_text(bytes, index);
        }
        let rest = bytes.get(from..).unwrap_or_default();
        match self.leading {
            _ if self.dropping.is_some() => (),
            Some(Leading::Held(edit, _)) => {
                self.held.extend_from_slice(rest);
                if self.held.len() > HELD_BYTES_MAX {
                    self.keep(edit, out);
                }
            }
            _ => out.extend_from_slice(rest),
        }
    }

    /// The body has ended: appends what was still held of it.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.leading = None;
        out.append(&mut self.held);
    }

    /// Inside a long string nothing is decided: to its next quote or backslash.
    fn skip_text(&self, bytes: &[u8], index: usize) -> usize {
        if self.at != At::InText(false) {
            return index;
        }
        let rest = bytes.get(index..).unwrap_or_default();
        index + memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())
    }

    /// Whether this byte may be where something is put in: cheap, asked at every byte.
    fn puts_in(&self, byte: u8) -> bool {
        match self.at {
            At::Value if begins_value(byte) => {
                matches!(self.leading, Some(Leading::Begun(_)))
                    || self.levels.last().is_some_and(|level| level.object && level.followed)
            }
            At::Value => byte == b']' && matches!(self.leading, Some(Leading::Begun(_))),
            At::Key | At::After => byte == b'}' && self.levels.last().is_some_and(|l| l.object && l.followed),
            _ => false,
        }
    }

    fn put_in(&mut self, edits: &[Edit], byte: u8, out: &mut Vec<u8>) {
        if self.at != At::Value {
            return self.add_members(edits, out);
        }
        if let Some(Leading::Begun(at)) = self.leading {
            self.leading = None;
            let element: &[u8] = edits.get(at).map_or(b"", |edit| &edit.value);
            match byte {
                b'{' => self.leading = Some(Leading::Held(at, self.levels.len())),
                _ => {
                    out.extend_from_slice(element);
                    out.extend_from_slice(if byte == b']' { b"" } else { b"," });
                    self.changed += 1;
                }
            }
            return;
        }
        let here = |edit: &&Edit| edit.how != How::Lead && edit.path == self.path;
        if let Some(edit) = edits.iter().find(here) {
            out.extend_from_slice(&edit.value);
            self.changed += 1;
            self.dropping = Some(self.levels.len());
        }
    }

    /// The object at hand ends: what is to be set in it and was not there is added.
    fn add_members(&mut self, edits: &[Edit], out: &mut Vec<u8>) {
        let Some((_, parents)) = self.path.split_last() else { return };
        let mut first = self.at == At::Key;
        for (edit, met) in edits.iter().zip(&mut self.met) {
            let within = edit.path.split_last().is_some_and(|(_, above)| above == parents);
            if edit.how == How::Set && within && !*met {
                edit.member(first, out);
                (first, *met) = (false, true);
                self.changed += 1;
            }
        }
    }

    /// A member of the held element has ended, or the element itself: does it say what its role is?
    fn decide(&mut self, edit: usize, level: usize, out: &mut Vec<u8>) {
        let open: &[u8] = if self.levels.len() > level { b"}" } else { b"" };
        let element = [self.held.as_slice(), open].concat();
        let role = scan::fields(&element, &["role"]).map_or(None, |[role]| role);
        if matches!(scan::text(role), Some("system" | "developer")) {
            self.leading = None;
            self.held = Vec::new();
            out.extend_from_slice(self.edits.get(edit).map_or(b"", |edit| &edit.value));
            self.changed += 1;
            if self.levels.len() > level {
                self.dropping = Some(level);
            }
        } else if role.is_some() || self.levels.len() <= level {
            self.keep(edit, out);
        }
    }

    /// The first element stays, behind ours.
    fn keep(&mut self, edit: usize, out: &mut Vec<u8>) {
        self.leading = None;
        out.extend_from_slice(self.edits.get(edit).map_or(b"", |edit| &edit.value));
        out.push(b',');
        out.append(&mut self.held);
        self.held = Vec::new();
        self.changed += 1;
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
                for (edit, met) in self.edits.iter().zip(&mut self.met) {
                    *met |= edit.path == self.path;
                }
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
        let parent = self.levels.last().is_some_and(|level| level.object && level.followed) && self.dropping.is_none();
        let within = |edit: &Edit| edit.path.len() > self.path.len() && edit.path.starts_with(&self.path);
        let leads = parent && self.edits.iter().any(within);
        let followed = object && (outermost || leads);
        if followed {
            for (edit, met) in self.edits.iter().zip(&mut self.met) {
                *met &= !(edit.path.len() == self.path.len() + 1 && edit.path.starts_with(&self.path));
            }
        }
        if parent && !object {
            let list = |edit: &Edit| edit.how == How::Lead && edit.path == self.path;
            self.leading = self.edits.iter().position(list).map(Leading::Begun);
        }
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
                self.leading = self.leading.filter(|leading| !matches!(leading, Leading::Begun(_)));
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

/// A whole body with its edits; `None` where nothing was to be changed, or it is no JSON object.
#[must_use]
pub fn whole(body: &[u8], edits: &Arc<[Edit]>) -> Option<Vec<u8>> {
    if !body.trim_ascii_start().starts_with(b"{") || !scan::is_json(body) {
        return None;
    }
    let more: usize = edits.iter().map(|edit| edit.value.len() + edit.path.last().map_or(0, String::len) + 4).sum();
    let mut out = Vec::with_capacity(body.len() + more);
    let mut editor = Editor::new(edits);
    editor.push(body, &mut out);
    editor.finish(&mut out);
    (editor.changed() > 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn run(chunks: &[&[u8]], edits: &Arc<[Edit]>) -> String {
        let mut out = Vec::new();
        let mut editor = Editor::new(edits);
        for chunk in chunks {
            editor.push(chunk, &mut out);
        }
        editor.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn check(body: &str, expect: &str) {
        check_with(&[Edit::text(&["model"], "b\"2"), Edit::text(&["prompt", "version"], "7")], body, expect);
    }

    #[track_caller]
    fn check_with(edits: &[Edit], body: &str, expect: &str) {
        let edits: Arc<[Edit]> = edits.into();
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
    fn what_is_set_replaces_or_is_added_to_the_object_it_belongs_to() {
        let edits = [
            Edit::set(&["t"], &0.5.into()),
            Edit::set(&["prompt", "version"], &"7".into()),
            Edit::set(&["é"], &1.into()),
        ];
        check_with(&edits, "{}", r#"{"t":0.5,"é":1}"#);
        check_with(&edits, "{ }", r#"{ "t":0.5,"é":1}"#);
        check_with(&edits, r#"{"a":[1,2] }"#, r#"{"a":[1,2] ,"t":0.5,"é":1}"#);
        check_with(&edits, r#"{"t":{"t":[]},"\u00e9":null}"#, r#"{"t":0.5,"\u00e9":1}"#);
        check_with(
            &edits,
            r#"{"é":2,"prompt":{"id":"p"},"t":1}"#,
            r#"{"é":1,"prompt":{"id":"p","version":"7"},"t":0.5}"#,
        );
        check_with(
            &edits,
            r#"{"prompt":{"version":1},"prompt":{},"é":0,"t":0}"#,
            r#"{"prompt":{"version":"7"},"prompt":{"version":"7"},"é":1,"t":0.5}"#,
        );
        check_with(&edits, r#"{"prompt":"p","t":1,"é":0}"#, r#"{"prompt":"p","t":0.5,"é":1}"#);
        check_with(&edits, "[{}]", "[{}]");
        check_with(&edits, r#"{"a":{"#, r#"{"a":{"#);
    }

    #[test]
    fn a_system_prompt_leads_the_messages_in_the_place_of_the_one_that_is_there() {
        let edits = [
            Edit::lead(&["messages"], &serde_json::json!({"role": "system", "content": "S"})),
            Edit::text(&["model"], "b"),
        ];
        let ours = r#"{"content":"S","role":"system"}"#;
        for (messages, expect) in [
            ("", ours.to_owned()),
            (" ", format!(" {ours}")),
            (r#"{"role":"user","content":"a"}"#, format!(r#"{ours},{{"role":"user","content":"a"}}"#)),
            (r#" { "role" : "system" , "content":["x",{}] } "#, format!(" {ours} ")),
            (r#"{"content":"x]}","role":"developer"},{"role":"system"}"#, format!(r#"{ours},{{"role":"system"}}"#)),
            (
                r#"{"content":"\"role\":\"system\"","role":"user"},1"#,
                format!(r#"{ours},{{"content":"\"role\":\"system\"","role":"user"}},1"#),
            ),
            ("{},{}", format!("{ours},{{}},{{}}")),
            ("3", format!("{ours},3")),
        ] {
            check_with(
                &edits,
                &format!(r#"{{"messages":[{messages}],"model":"a"}}"#),
                &format!(r#"{{"messages":[{expect}],"model":"b"}}"#),
            );
        }
        // Not the list, or not to its end.
        for body in [r#"{"messages":"no","m":1}"#, r#"{"x":{"messages":[]}}"#, r#"{"messages":[{"content":"half"#] {
            check_with(&edits, body, body);
        }
        let long = format!(r#"{{"messages":[{{"content":"{}","role":"system"}}]}}"#, "x".repeat(70_000));
        let chunks: Vec<&[u8]> = long.as_bytes().chunks(1_000).collect();
        let out = run(&chunks, &Arc::<[Edit]>::from(edits.to_vec()));
        assert_eq!(out, long.replacen("[{", &format!("[{ours},{{"), 1), "its role came too late");
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
            let edits: Arc<[Edit]> = Arc::new([Edit::text(&["model"], "b")]);
            let out = run(&[body.as_bytes()], &edits);
            assert!(out == body || out == "{\"model\":\"b\"", "{body} became {out}");
            assert_eq!(whole(body.as_bytes(), &edits), None);
        }
        let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
        assert_eq!(run(&[deep.as_bytes()], &Arc::<[Edit]>::from([Edit::text(&["model"], "b")])), deep);
    }

    #[test]
    fn nothing_is_held_of_a_long_body() {
        let edits: Arc<[Edit]> = Arc::new([Edit::text(&["model"], "b")]);
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
        assert_eq!((out.as_slice(), editor.changed()), (&b"\"],\"model\":\"b\"}"[..], 1));
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
            let edits: Arc<[Edit]> = Arc::new([Edit::text(&["model"], "é\"\n"), Edit::text(&["prompt", "version"], "7")]);
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
