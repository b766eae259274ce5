//! Walks JSON that was checked before: its fields and elements as raw text, found by stepping over what lies between.
//!
//! A long answer is one long string inside three objects. Checking it once is owed; reading it again at each level is not:
//! here a string is passed over by a search for its closing quote, as quick as memory is read. On text that is no JSON after
//! all the walk ends early and finds nothing; it never fails and never goes back.

/// The values of the named fields of an object, as raw text; `null` counts as absent, the last of equal keys wins.
pub(crate) fn fields<'a, const N: usize>(json: &'a str, names: &[&'static str; N]) -> [Option<&'a str>; N] {
    let mut found = [None; N];
    let mut walk = Walk::inside(json, b'{');
    while let Some((key, value)) = walk.field() {
        if let Some(slot) = names.iter().position(|name| is(key, name)).and_then(|index| found.get_mut(index)) {
            *slot = Some(value).filter(|text| *text != "null");
        }
    }
    found
}

/// Calls `each` for the raw elements of an array.
pub(crate) fn elements<'a>(json: &'a str, mut each: impl FnMut(&'a str)) {
    let mut walk = Walk::inside(json, b'[');
    while let Some(element) = walk.element() {
        each(element);
    }
}

/// Whether the raw inside of a key means this name; keys with escapes are rare and unescaped.
fn is(key: &str, name: &str) -> bool {
    if !key.as_bytes().contains(&b'\\') {
        return key == name;
    }
    serde_json::from_str::<String>(&format!("\"{key}\"")).is_ok_and(|plain| plain == name)
}

struct Walk<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    /// Behind the opening bracket; at the end where there is none.
    fn inside(json: &'a str, open: u8) -> Walk<'a> {
        let at = if json.as_bytes().first() == Some(&open) { 1 } else { json.len() };
        Walk { json, at }
    }

    fn rest(&self) -> &'a [u8] {
        self.json.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Steps over white space and the marks between values; says what comes then.
    fn next(&mut self) -> Option<u8> {
        let rest = self.rest();
        let between = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':')).count();
        self.at += between;
        rest.get(between).copied()
    }

    fn field(&mut self) -> Option<(&'a str, &'a str)> {
        if self.next()? != b'"' {
            return None;
        }
        let key = self.value()?;
        let inside = key.get(1..key.len() - 1)?;
        self.next()?;
        Some((inside, self.value()?))
    }

    fn element(&mut self) -> Option<&'a str> {
        if self.next()? == b']' { None } else { self.value() }
    }

    /// Steps over the value at hand.
    fn value(&mut self) -> Option<&'a str> {
        let length = length(self.rest()).filter(|length| *length > 0)?;
        let value = self.json.get(self.at..self.at + length)?;
        self.at += length;
        Some(value)
    }
}

/// How long the value is that `json` begins with.
fn length(json: &[u8]) -> Option<usize> {
    match json.first()? {
        b'"' => string(json),
        b'{' | b'[' => nested(json),
        _ => Some(
            json.iter().take_while(|byte| !matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t')).count(),
        ),
    }
}

/// How long the string is that `json` begins with, both quotes included.
fn string(json: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

fn nested(json: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match json.get(at)? {
            b'"' => {
                at += string(json.get(at..)?)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => (),
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What serde_json makes of it, field by field and element by element.
    #[track_caller]
    fn check(text: &str) {
        let same = |raw: Option<&str>, value: Option<&Value>| match (raw, value.filter(|value| !value.is_null())) {
            (Some(raw), Some(value)) => serde_json::from_str::<Value>(raw).unwrap() == *value && raw == raw.trim(),
            (None, None) => true,
            _ => false,
        };
        let value: Value = serde_json::from_str(text).unwrap();
        let found = fields(text, &["a", "b", "\u{e9}", "none"]);
        for (raw, name) in found.iter().zip(["a", "b", "\u{e9}", "none"]) {
            assert!(same(*raw, value.get(name)), "{name} of {text}: {raw:?}");
        }
        let mut all = Vec::new();
        elements(text, |raw| all.push(raw.to_owned()));
        let expect = value.as_array().cloned().unwrap_or_default();
        assert_eq!(all.len(), expect.len(), "{text}: {all:?}");
        assert!(
            all.iter().zip(&expect).all(|(raw, value)| serde_json::from_str::<Value>(raw).unwrap() == *value),
            "{text}"
        );
    }

    #[test]
    fn what_is_found_is_what_serde_json_finds() {
        for text in [
            r#"{"a":1,"b":"x"}"#,
            r#"{ "b" : [1 , {"a":"]}"} ] , "a" : null , "c":-1.5e3 }"#,
            "{\n\t\"a\": \"q\\\"\\\\\",\r\n \"a\": {\"b\": 7}\n}",
            r#"{"\u00e9":true,"\u0061":[[],{}],"b":""}"#,
            r#"{"a":"é\n\"","x":"\\"}"#,
            "{}",
            "[]",
            "[ ]",
            r#"[1,"a,]",[2,[3]],{"a":[4]}, null ,false]"#,
            "\"text\"",
            "7",
            "null",
        ] {
            check(text);
        }
    }

    #[test]
    fn what_is_no_json_ends_the_walk() {
        for text in [
            "",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":\"",
            "{\"a\":[",
            "{]",
            "[}",
            "{\"a\":1",
            "[\"\\",
            "{\"a\\",
            "[[]",
            "{,:",
        ] {
            let _found = fields(text, &["a"]);
            let mut count = 0;
            elements(text, |_| count += 1);
            assert!(count <= 1, "{text}");
        }
    }
}
