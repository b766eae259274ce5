//! The shape that a request declares for its answer's text (`response_format`), and whether the text has it.
//!
//! What providers let be declared strictly is a small part of JSON Schema: types, properties, required, items, enum, const,
//! anyOf, `$ref` into `$defs`. That part is checked here, over serde_json's values; a keyword that is not known holds (so a
//! wrong answer may be missed, a right one is never blamed). A whole validator would bring some forty crates onto the tap.

use serde_json::Value;

/// Longest text kept for checking, in bytes.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Steps taken in checking one text; beyond them it holds.
const STEPS_MAX: u32 = 50_000;
/// Deepest nesting followed.
const DEPTH_MAX: u32 = 64;

/// A declared shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema(Value);

impl Schema {
    /// What a whole request body declares: `response_format` (chat), `text.format` (responses), `output_format` or
    /// `output_config.format` (messages). `None` where it declares nothing.
    #[must_use]
    pub fn of_request(body: &[u8]) -> Option<Schema> {
        // Nearly no request declares one: do not parse those.
        memchr::memmem::find(body, b"\"json_")?;
        let mut body: Value = serde_json::from_slice(body).ok()?;
        let places = ["/response_format", "/text/format", "/output_format", "/output_config/format"];
        let format = places.iter().find_map(|place| body.pointer_mut(place).map(Value::take))?;
        match format.get("type")?.as_str()? {
            "json_object" => Some(Schema(serde_json::json!({"type": "object"}))),
            "json_schema" => {
                let schema = format.pointer("/json_schema/schema").or_else(|| format.get("schema"))?;
                Some(Schema(schema.clone()))
            }
            _ => None,
        }
    }

    /// Whether `text` is one JSON value of this shape.
    #[must_use]
    pub fn accepts(&self, text: &str) -> bool {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
        Check { root: &self.0, steps: STEPS_MAX }.holds(&self.0, &value, DEPTH_MAX)
    }
}

/// One checking.
struct Check<'a> {
    root: &'a Value,
    steps: u32,
}

impl<'a> Check<'a> {
    fn holds(&mut self, schema: &'a Value, value: &Value, depth: u32) -> bool {
        let (Some(steps), Some(depth)) = (self.steps.checked_sub(1), depth.checked_sub(1)) else { return true };
        self.steps = steps;
        let schema = match schema {
            Value::Object(schema) => schema,
            Value::Bool(allowed) => return *allowed,
            _ => return true,
        };
        schema.iter().all(|(keyword, told)| match keyword.as_str() {
            "$ref" => self.target(told).is_none_or(|target| self.holds(target, value, depth)),
            "type" => match told {
                Value::String(name) => is(value, name),
                Value::Array(names) => names.iter().filter_map(Value::as_str).any(|name| is(value, name)),
                _ => true,
            },
            "enum" => told.as_array().is_none_or(|all| {
                self.steps = self.steps.saturating_sub(u32::try_from(all.len()).unwrap_or(u32::MAX));
                all.iter().any(|one| same(one, value))
            }),
            "const" => same(told, value),
            "required" => match (told, value) {
                (Value::Array(names), Value::Object(fields)) => {
                    names.iter().filter_map(Value::as_str).all(|name| fields.contains_key(name))
                }
                _ => true,
            },
            "properties" => match (told, value) {
                (Value::Object(each), Value::Object(fields)) => each
                    .iter()
                    .all(|(name, schema)| fields.get(name).is_none_or(|field| self.holds(schema, field, depth))),
                _ => true,
            },
            "additionalProperties" if !schema.contains_key("patternProperties") => {
                let known = schema.get("properties").and_then(Value::as_object);
                let more = |name: &String| known.is_none_or(|known| !known.contains_key(name));
                value.as_object().is_none_or(|fields| {
                    fields.iter().filter(|(name, _)| more(name)).all(|(_, field)| self.holds(told, field, depth))
                })
            }
            "items" if !schema.contains_key("prefixItems") => {
                value.as_array().is_none_or(|items| items.iter().all(|item| self.holds(told, item, depth)))
            }
            "minItems" => value.as_array().is_none_or(|items| told.as_u64().is_none_or(|n| items.len() as u64 >= n)),
            "maxItems" => value.as_array().is_none_or(|items| told.as_u64().is_none_or(|n| items.len() as u64 <= n)),
            "minimum" => value.as_f64().is_none_or(|found| told.as_f64().is_none_or(|n| found >= n)),
            "maximum" => value.as_f64().is_none_or(|found| told.as_f64().is_none_or(|n| found <= n)),
            "anyOf" | "oneOf" => told.as_array().is_none_or(|all| all.iter().any(|one| self.holds(one, value, depth))),
            "allOf" => told.as_array().is_none_or(|all| all.iter().all(|one| self.holds(one, value, depth))),
            _ => true,
        })
    }

    /// What a local reference names.
    fn target(&self, reference: &Value) -> Option<&'a Value> {
        let path = reference.as_str()?.strip_prefix('#')?;
        self.root.pointer(path)
    }
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => true,
    }
}

/// Equal as JSON Schema has it: 1 and 1.0 are one number.
fn same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && other.is_number() && one.as_f64() == other.as_f64())
}

/// An answer's text as it comes, to be checked at its end.
#[derive(Debug)]
pub(crate) struct Expected {
    schema: Schema,
    text: String,
    /// It cannot be known: too long, told in parts that are no strings, or of several choices.
    unknown: bool,
}

impl Expected {
    pub(crate) fn new(schema: Schema) -> Expected {
        Expected { schema, text: String::new(), unknown: false }
    }

    pub(crate) fn into_schema(self) -> Schema {
        self.schema
    }

    /// Bytes of text kept.
    pub(crate) fn kept(&self) -> usize {
        self.text.capacity()
    }

    /// Takes in the raw inside of a JSON string.
    pub(crate) fn push(&mut self, choice: u64, inside: Option<&[u8]>) {
        if self.unknown {
            return;
        }
        let quoted = inside.map(|inside| [b"\"", inside, b"\""].concat());
        let text = quoted.and_then(|quoted| serde_json::from_slice::<String>(&quoted).ok());
        match text.filter(|text| choice == 0 && self.text.len() + text.len() <= TEXT_BYTES_MAX) {
            Some(text) => self.text.push_str(&text),
            None => {
                self.unknown = true;
                self.text = String::new();
            }
        }
    }

    /// Whether the text has the shape; `None` where that cannot be known.
    pub(crate) fn holds(&self) -> Option<bool> {
        (!self.unknown).then(|| self.schema.accepts(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Schema {
        Schema(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn a_shape_is_found_where_each_api_declares_it() {
        let person = r#"{"type":"object","required":["name"]}"#;
        for body in [
            format!(r#"{{"response_format":{{"type":"json_schema","json_schema":{{"name":"p","schema":{person}}}}}}}"#),
            format!(r#"{{"text":{{"format":{{"type":"json_schema","name":"p","schema":{person}}}}}}}"#),
            format!(r#"{{"output_format":{{"type":"json_schema","schema":{person}}}}}"#),
            format!(r#"{{"output_config":{{"format":{{"type":"json_schema","schema":{person}}}}}}}"#),
        ] {
            assert_eq!(Schema::of_request(body.as_bytes()), Some(schema(person)), "{body}");
        }
        let object = Schema::of_request(br#"{"response_format":{"type":"json_object"}}"#).unwrap();
        assert!(object.accepts(r#" {"a":1} "#) && !object.accepts("[1]") && !object.accepts("{\"a\":"));
        for none in [&b"{}"[..], br#"{"response_format":{"type":"text"}}"#, br#"{"x":"json_schema"}"#, b"\"json_", b""]
        {
            assert_eq!(Schema::of_request(none), None);
        }
    }

    #[test]
    fn what_is_wrong_is_wrong_and_what_is_not_known_holds() {
        let shape = schema(
            r##"{"type":"object","additionalProperties":false,"required":["kind","n"],"properties":{
            "kind":{"enum":["a","b"]},"n":{"type":["integer","null"],"minimum":0},"list":{"type":"array","items":{"$ref":"#/$defs/x"},"maxItems":2},
            "either":{"anyOf":[{"type":"string","format":"uuid"},{"const":1}]}},"$defs":{"x":{"type":"object","properties":{"x":{"$ref":"#/$defs/x"}}}}}"##,
        );
        for (text, expect) in [
            (r#"{"kind":"a","n":1}"#, true),
            (r#"{"kind":"b","n":null,"list":[{"x":{"x":{}}}],"either":"no uuid, but that is not checked"}"#, true),
            (r#"{"kind":"a","n":1.0,"either":1.0}"#, true),
            (r#"{"kind":"c","n":1}"#, false),
            (r#"{"kind":"a"}"#, false),
            (r#"{"kind":"a","n":1.5}"#, false),
            (r#"{"kind":"a","n":-1}"#, false),
            (r#"{"kind":"a","n":1,"more":1}"#, false),
            (r#"{"kind":"a","n":1,"list":[{"x":{"x":7}}]}"#, false),
            (r#"{"kind":"a","n":1,"list":[{},{},{}]}"#, false),
            (r#"{"kind":"a","n":1,"either":2}"#, false),
            ("```json\n{}\n```", false),
            ("", false),
        ] {
            assert_eq!(shape.accepts(text), expect, "{text}");
        }
    }

    #[test]
    fn a_shape_that_turns_in_circles_ends() {
        let circle = schema(r##"{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}"##);
        assert!(circle.accepts("1"));
        let wide = schema(r##"{"allOf":[{"$ref":"#"},{"$ref":"#"},{"$ref":"#"}]}"##);
        assert!(wide.accepts("1"));
    }

    #[test]
    fn text_that_cannot_be_known_is_not_judged() {
        let new = || Expected::new(schema(r#"{"type":"object"}"#));
        let mut parts = new();
        parts.push(0, Some(br#"{\"a\":"#));
        parts.push(0, Some(br"[1]}"));
        assert_eq!(parts.holds(), Some(true));
        parts.push(1, Some(b"x"));
        assert_eq!((parts.holds(), parts.kept()), (None, 0));
        let mut other = new();
        other.push(0, None);
        assert_eq!(other.holds(), None);
        let mut long = new();
        long.push(0, Some(&[b'x'; TEXT_BYTES_MAX + 1]));
        assert_eq!(long.holds(), None);
    }
}
