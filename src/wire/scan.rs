//! Looking into JSON without building it: probes before parsing, fields by name as raw text, and a validator for
//! JSON that arrives in pieces (the arguments of tool calls).
//!
//! Probes are exact in one direction: inside a JSON string every quote is escaped, so `"usage"` with both its quotes can
//! only be a key or a whole string value. A probe may send us into a parse that finds nothing; it never hides a key
//! (but for keys written with escapes, which no serialiser does).

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::{self, Finder};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::walk;

/// Why a document could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ends too early.
    Cut,
    /// It is not JSON (or not UTF-8 where we looked).
    Syntax,
    /// It is JSON of another shape than asked for.
    Shape,
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Fault {
        match error.classify() {
            serde_json::error::Category::Eof => Fault::Cut,
            serde_json::error::Category::Data => Fault::Shape,
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => Fault::Syntax,
        }
    }
}

/// A key to be found, quotes included. Built once: preparing a search costs more than searching an event.
pub(crate) struct Key(LazyLock<Finder<'static>>);

macro_rules! keys {
    ($($name:ident = $text:literal,)*) => {
        $(pub(crate) static $name: Key = Key(LazyLock::new(|| Finder::new(concat!("\"", $text, "\""))));)*
    };
}

/// The keys that are looked for by probes.
pub(crate) mod key {
    use super::{Finder, Key, LazyLock};

    keys! {
        ARGUMENTS = "arguments",
        AUDIO = "audio",
        CONTENT = "content",
        DELTA = "delta",
        ERROR = "error",
        FINISH_REASON = "finish_reason",
        FUNCTION_CALL = "function_call",
        INDEX = "index",
        JSONRPC = "jsonrpc",
        METHOD = "method",
        PARTIAL_JSON = "partial_json",
        REASONING = "reasoning",
        REASONING_CONTENT = "reasoning_content",
        REFUSAL = "refusal",
        RESULT = "result",
        ROLE = "role",
        STATUS = "status",
        STRUCTURED_CONTENT = "structuredContent",
        TEXT = "text",
        THINKING = "thinking",
        TOOL_CALLS = "tool_calls",
        TYPE = "type",
        USAGE = "usage",
    }
}

impl Key {
    /// Where it first stands in `json`, and where it ends there.
    fn find(&self, json: &[u8]) -> Option<(usize, usize)> {
        let at = self.0.find(json)?;
        Some((at, at + self.0.needle().len()))
    }
}

/// Whether `key` stands in `json`.
pub(crate) fn has(json: &[u8], key: &Key) -> bool {
    key.find(json).is_some()
}

/// What follows `"key":` at its first place, white space skipped.
pub(crate) fn after_key<'a>(json: &'a [u8], key: &Key) -> Option<&'a [u8]> {
    let (_, end) = key.find(json)?;
    value_after(json, end)
}

/// The same at its last place; this `key` comes with its quotes.
pub(crate) fn after_last_key<'a>(json: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = memmem::rfind(json, key)?;
    value_after(json, at + key.len())
}

fn value_after(json: &[u8], from: usize) -> Option<&[u8]> {
    match json.get(from..)?.trim_ascii_start() {
        [b':', rest @ ..] => Some(rest.trim_ascii_start()),
        _ => None,
    }
}

/// `key` is absent, or `null` wherever it stands.
pub(crate) fn absent_or_null(json: &[u8], key: &Key) -> bool {
    let mut rest = json;
    while let Some((_, end)) = key.find(rest) {
        if !value_after(rest, end).is_some_and(|value| value.starts_with(b"null")) {
            return false;
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    true
}

/// Whether `"key": "value"` stands in the text; both come with their quotes, `value` may be a beginning.
pub(crate) fn has_pair(json: &[u8], key: &[u8], value: &[u8]) -> bool {
    memmem::find_iter(json, key)
        .any(|at| value_after(json, at + key.len()).is_some_and(|found| found.starts_with(value)))
}

/// `value` begins with a string that is not empty.
pub(crate) fn begins_filled(value: &[u8]) -> bool {
    matches!(value, [b'"', second, ..] if *second != b'"')
}

/// The raw inside of the string that `value` begins with, up to its closing quote.
pub(crate) fn leading_string(value: &[u8]) -> Option<&[u8]> {
    let inside = value.strip_prefix(b"\"")?;
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', inside.get(from..)?)?;
        if inside.get(at) == Some(&b'"') {
            return inside.get(..at);
        }
        from = at + 2;
    }
}

/// The JSON value that `text` begins with, as raw text; whatever follows it is not looked at.
pub(crate) fn leading_value(text: &[u8]) -> Option<&str> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
    values.next()?.ok().map(RawValue::get)
}

/// Whether `text` is one whole JSON value.
pub(crate) fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// The values of the named fields of an object, as raw text; `null` counts as absent, the last of equal keys wins.
/// The whole of `json` is checked to be one JSON value.
pub(crate) fn fields<'a, const N: usize>(
    json: &'a [u8],
    names: &[&'static str; N],
) -> Result<[Option<&'a str>; N], Fault> {
    let mut source = serde_json::Deserializer::from_slice(json);
    let found = source.deserialize_map(Fields { names })?;
    source.end()?;
    Ok(found)
}

/// [`fields`] of a value that was already cut out of checked JSON; nothing when it is no object.
pub(crate) fn inner<'a, const N: usize>(json: Option<&'a str>, names: &[&'static str; N]) -> [Option<&'a str>; N] {
    json.map_or([None; N], |json| walk::fields(json, names))
}

/// Calls `each` for the raw elements of an array; nothing when it is none.
pub(crate) fn elements<'a>(json: Option<&'a str>, each: impl FnMut(&'a str)) {
    if let Some(json) = json {
        walk::elements(json, each);
    }
}

/// Whether a raw value says something: a string, array or object that is not empty.
pub(crate) fn filled(raw: Option<&str>) -> bool {
    raw.is_some_and(|text| match text.as_bytes() {
        [b'"', b'"'] => false,
        [b'"', ..] => true,
        [b'[' | b'{', rest @ ..] => !matches!(rest.trim_ascii(), [b']' | b'}']),
        _ => false,
    })
}

/// The raw inside of a string value (escapes left as they are).
pub(crate) fn text(raw: Option<&str>) -> Option<&str> {
    raw?.strip_prefix('"')?.strip_suffix('"')
}

/// A count: a whole number, or a float that is one.
pub(crate) fn count(raw: Option<&str>) -> Option<u64> {
    let raw = raw?;
    raw.parse().ok().or_else(|| {
        let float: f64 = raw.parse().ok()?;
        ((0.0..9e15).contains(&float) && float.fract() == 0.0).then_some(float as u64)
    })
}

struct Fields<'n, const N: usize> {
    names: &'n [&'static str; N],
}

impl<'a, const N: usize> Visitor<'a> for Fields<'_, N> {
    type Value = [Option<&'a str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(index) = map.next_key_seed(Name(self.names))? {
            if let Some(slot) = found.get_mut(index) {
                let raw: &'a RawValue = map.next_value()?;
                *slot = Some(raw.get()).filter(|text| *text != "null");
            } else {
                let _skipped: IgnoredAny = map.next_value()?;
            }
        }
        Ok(found)
    }
}

/// Reads a key as its place in a list of names; its length when it is not in it.
struct Name<'n>(&'n [&'static str]);

impl<'a> DeserializeSeed<'a> for Name<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'a>>(self, source: D) -> Result<usize, D::Error> {
        source.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<usize, E> {
        Ok(self.0.iter().position(|name| *name == key).unwrap_or(self.0.len()))
    }
}

/// Deepest nesting that a [`Validator`] follows (as deep as its 128 bits); beyond it stays silent.
const DEPTH_MAX: u32 = 128;

/// Checks JSON that arrives in pieces, in constant memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validator {
    at: At,
    depth: u32,
    /// One bit a level, the deepest lowest: 1 object, 0 array.
    objects: u128,
}

/// Where in the grammar the validator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Value,
    /// After `[`.
    ValueOrEnd,
    /// After `{`.
    KeyOrEnd,
    /// After `,` in an object.
    Key,
    Colon,
    /// After a value.
    After,
    /// In a string; `true` when it is a key.
    Text(bool),
    Escape(bool),
    /// In `\u`, so many digits to come.
    Hex(bool, u8),
    Minus,
    Zero,
    Digits,
    Dot,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// In `true`, `false` or `null`: what is to come.
    Word(&'static [u8]),
    Bad,
    /// Too deep to follow.
    Deep,
}

/// What a [`Validator`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Nothing but white space.
    Nothing,
    /// One JSON value, or one too deep to follow.
    Valid,
    /// Not JSON, or not the whole of it.
    Invalid,
}

impl Validator {
    pub(crate) const fn new() -> Validator {
        Validator { at: At::Value, depth: 0, objects: 0 }
    }

    /// Takes the next bytes of the document.
    #[cfg(test)]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.at = self.step(byte);
        }
    }

    /// Takes the next bytes as they stand inside a JSON string: unescapes them on the way. Checked JSON only.
    pub(crate) fn push_escaped(&mut self, raw: &[u8]) {
        let mut bytes = raw.iter();
        while let Some(&byte) = bytes.next() {
            let plain = match byte {
                b'\\' => match bytes.next() {
                    Some(b'n') => b'\n',
                    Some(b't') => b'\t',
                    Some(b'r') => b'\r',
                    Some(b'b') => 8,
                    Some(b'f') => 12,
                    Some(b'u') => {
                        let digits = bytes.as_slice().get(..4).unwrap_or_default();
                        let code = std::str::from_utf8(digits).ok().and_then(|hex| u16::from_str_radix(hex, 16).ok());
                        bytes = bytes.as_slice().get(4..).unwrap_or_default().iter();
                        // What is not ASCII is content of a string, or wrong wherever it stands: any such byte will do.
                        code.and_then(|code| u8::try_from(code).ok()).filter(u8::is_ascii).unwrap_or(0x80)
                    }
                    Some(&other) => other,
                    None => return,
                },
                other => other,
            };
            self.at = self.step(plain);
        }
    }

    /// The finding, if nothing more comes.
    pub(crate) fn finish(&self) -> Checked {
        match self.at {
            At::Value if self.depth == 0 => Checked::Nothing,
            At::Deep => Checked::Valid,
            At::After | At::Zero | At::Digits | At::Fraction | At::ExponentDigits if self.depth == 0 => Checked::Valid,
            _ => Checked::Invalid,
        }
    }

    fn step(&mut self, byte: u8) -> At {
        let space = matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        match (self.at, byte) {
            (At::Bad, _) => At::Bad,
            (At::Deep, _) => At::Deep,
            (At::Text(key), b'"') => {
                if key {
                    At::Colon
                } else {
                    At::After
                }
            }
            (At::Text(key), b'\\') => At::Escape(key),
            (At::Text(_), 0..=0x1F) => At::Bad,
            (At::Text(key), _) => At::Text(key),
            (At::Escape(key), b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => At::Text(key),
            (At::Escape(key), b'u') => At::Hex(key, 4),
            (At::Hex(key, 1), b) if b.is_ascii_hexdigit() => At::Text(key),
            (At::Hex(key, n), b) if b.is_ascii_hexdigit() => At::Hex(key, n.saturating_sub(1)),
            (At::Word([want]), b) if b == *want => At::After,
            (At::Word([want, rest @ ..]), b) if b == *want => At::Word(rest),
            (At::Value | At::ValueOrEnd | At::KeyOrEnd | At::Key | At::Colon | At::After, _) if space => self.at,
            (At::Value | At::ValueOrEnd, b'"') => At::Text(false),
            (At::Value | At::ValueOrEnd, b'{') => self.open(true),
            (At::Value | At::ValueOrEnd, b'[') => self.open(false),
            (At::Value | At::ValueOrEnd, b'-') => At::Minus,
            (At::Value | At::ValueOrEnd | At::Minus, b'0') => At::Zero,
            (At::Value | At::ValueOrEnd | At::Minus, b'1'..=b'9') => At::Digits,
            (At::Value | At::ValueOrEnd, b't') => At::Word(b"rue"),
            (At::Value | At::ValueOrEnd, b'f') => At::Word(b"alse"),
            (At::Value | At::ValueOrEnd, b'n') => At::Word(b"ull"),
            (At::ValueOrEnd, b']') => self.close(false),
            (At::KeyOrEnd | At::Key, b'"') => At::Text(true),
            (At::KeyOrEnd, b'}') => self.close(true),
            (At::Colon, b':') => At::Value,
            (At::Digits, b'0'..=b'9') => At::Digits,
            (At::Zero | At::Digits, b'.') => At::Dot,
            (At::Zero | At::Digits | At::Fraction, b'e' | b'E') => At::Exponent,
            (At::Dot | At::Fraction, b'0'..=b'9') => At::Fraction,
            (At::Exponent, b'+' | b'-') => At::ExponentSign,
            (At::Exponent | At::ExponentSign | At::ExponentDigits, b'0'..=b'9') => At::ExponentDigits,
            (At::After | At::Zero | At::Digits | At::Fraction | At::ExponentDigits, _) => self.after(byte, space),
            _ => At::Bad,
        }
    }

    /// A value has ended; `byte` follows it.
    fn after(&mut self, byte: u8, space: bool) -> At {
        match byte {
            _ if space => At::After,
            b',' if self.depth > 0 => {
                if self.in_object() {
                    At::Key
                } else {
                    At::Value
                }
            }
            b'}' => self.close(true),
            b']' => self.close(false),
            _ => At::Bad,
        }
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn open(&mut self, object: bool) -> At {
        if self.depth == DEPTH_MAX {
            return At::Deep;
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        if object { At::KeyOrEnd } else { At::ValueOrEnd }
    }

    fn close(&mut self, object: bool) -> At {
        if self.depth == 0 || self.in_object() != object {
            return At::Bad;
        }
        self.depth -= 1;
        self.objects >>= 1;
        At::After
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Checked {
        let mut validator = Validator::new();
        validator.push(text.as_bytes());
        validator.finish()
    }

    #[test]
    fn the_validator_says_what_serde_json_says() {
        let seeds = [
            r#"{"a":[1,-2.5e+10,0,true,false,null,"x\"\u00e9\n"],"b":{},"c":[]}"#,
            "[[],{}]",
            "0",
            "-0.1E5",
            "01",
            "1.",
            "\"\\x\"",
            "nul",
            "{\"a\":1,}",
            "[1,]",
            "{,}",
            "\"a",
            "[}",
            " {} x",
            "1 2",
            "\"\\ud800\"",
            "-",
            "1e",
            "{\"a\" : 1 , \"b\":2}",
        ];
        let alphabet = br#"{}[]",:\ 0123456789.eE+-truefalsn/x"#;
        let mut seed = 7u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let mut valid = 0;
        for text in seeds {
            for round in 0..3000 {
                let mut bytes = text.as_bytes().to_vec();
                for _ in 0..round % 4 {
                    let at = random(bytes.len());
                    match random(3) {
                        0 => bytes[at] = alphabet[random(alphabet.len())],
                        1 => bytes.insert(at, alphabet[random(alphabet.len())]),
                        _ if bytes.len() > 1 => drop(bytes.remove(at)),
                        _ => (),
                    }
                }
                let mut validator = Validator::new();
                validator.push(&bytes);
                let expect = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
                valid += usize::from(expect);
                assert_eq!(validator.finish() == Checked::Valid, expect, "{:?}", String::from_utf8_lossy(&bytes));
                let escaped = serde_json::to_string(&String::from_utf8_lossy(&bytes)).unwrap();
                let mut validator = Validator::new();
                validator.push_escaped(escaped.as_bytes().strip_prefix(b"\"").unwrap().strip_suffix(b"\"").unwrap());
                assert_eq!(validator.finish() == Checked::Valid, expect, "escaped {escaped}");
            }
        }
        assert!(valid > 10_000, "{valid}");
    }

    #[test]
    fn nothing_and_too_deep_are_not_called_wrong() {
        assert_eq!(checked(" \n"), Checked::Nothing);
        assert_eq!(checked(&"[".repeat(200)), Checked::Valid);
        assert_eq!(checked(&"[".repeat(128)), Checked::Invalid);
    }

    #[test]
    fn fields_come_raw_the_last_of_equal_keys_wins_and_null_is_absent() {
        let json = br#" {"a":1,"x":{"a":2},"b":null,"a":[ 3 ],"c":"\"q"} "#;
        assert_eq!(fields(json, &["a", "b", "c", "d"]), Ok([Some("[ 3 ]"), None, Some(r#""\"q""#), None]));
        assert_eq!(fields(br#"{"a":1"#, &["a"]), Err(Fault::Cut));
        assert_eq!(fields(br#"{"a":1}}"#, &["a"]), Err(Fault::Syntax));
        assert_eq!(fields(b"<html>", &["a"]), Err(Fault::Syntax));
        assert_eq!(fields(b"[1]", &["a"]), Err(Fault::Shape));
    }

    #[test]
    fn probes_are_not_fooled_by_text() {
        let told = br#"{"content":"say \"usage\": 1, \"content\":\"x\"","usage":null}"#;
        assert!(absent_or_null(told, &key::USAGE));
        assert_eq!(
            after_key(told, &key::CONTENT).and_then(leading_string),
            Some(&br#"say \"usage\": 1, \"content\":\"x\""#[..])
        );
        assert!(!begins_filled(b"\"\"") && !begins_filled(b"null") && begins_filled(b"\"a\""));
        assert!(has_pair(br#"{"type": "b", "type" :"ab"}"#, b"\"type\"", b"\"ab\""));
    }

    #[test]
    fn counts_are_whole_numbers_only() {
        for (raw, expect) in
            [("12", Some(12)), ("12.0", Some(12)), ("-1", None), ("1.5", None), ("\"7\"", None), ("1e3", Some(1000))]
        {
            assert_eq!(count(Some(raw)), expect, "{raw}");
        }
    }
}
