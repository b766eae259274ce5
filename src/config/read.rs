//! Walks a parsed TOML document into raw tables, and finds every unknown key and wrong type on the way.
//!
//! serde stops at the first wrong type; an operator wants them all. So raw tables are declared once, by [`tables!`],
//! and read by this walk, which never stops.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Place, Show, Sink, join, nearest, suggest};
use super::secret::Secret;

/// Most bytes that `${file:…}` brings in.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks a variable of the environment up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the walk carries.
pub(crate) struct Reader<'a, 's> {
    /// Where faults go.
    pub(crate) sink: &'a mut Sink<'s>,
    /// The environment.
    pub(crate) lookup: Lookup<'a>,
    /// The folder that relative paths start from.
    pub(crate) base: &'a Path,
}

/// A value and where it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct At<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it stands.
    pub(crate) place: Place,
}

/// What can be read from a TOML value.
pub(crate) trait Raw: Sized {
    /// Reads it; `None` after a fault was told.
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self>;
    /// Names every key below this path.
    fn keys(_path: &str, _out: &mut Vec<String>) {}
}

impl<T: Raw + Leaf> Raw for At<T> {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let place = Place { path: path.to_owned(), span: node.span(), show: T::SHOW };
        Some(At { value: T::read(reader, node, path)?, place })
    }
}

/// A value without keys of its own.
pub(crate) trait Leaf {
    /// What may be shown of it.
    const SHOW: Show = Show::Source;
}

impl Reader<'_, '_> {
    fn wrong(&mut self, node: &Spanned<DeValue<'_>>, path: &str, show: Show, wants: &str) {
        let show = if node.get_ref().is_table() || node.get_ref().is_array() { Show::Nothing } else { show };
        let place = Place { path: path.to_owned(), span: node.span(), show };
        let found = match node.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.sink.fault(&place, format!("is {found}"), format!("write {wants}"));
    }

    /// The table at a node, or a fault.
    pub(crate) fn table<'n, 'i>(&mut self, node: &'n Spanned<DeValue<'i>>, path: &str) -> Option<&'n DeTable<'i>> {
        let table = node.get_ref().as_table();
        if table.is_none() {
            self.wrong(node, path, Show::Hidden, "a table, { key = value, … }");
        }
        table
    }

    /// Tells of every key that is not known.
    pub(crate) fn unknown(&mut self, table: &DeTable<'_>, path: &str, known: &[&str]) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let place = Place { path: join(path, name), span: key.span(), show: Show::Nothing };
                self.sink.fault(&place, "is an unknown key", suggest(name, known));
                if let Some(near) = nearest(name, known.iter().copied()) {
                    self.sink.misspelt(join(path, near));
                }
            }
        }
    }

    /// Reads one key of a table.
    pub(crate) fn key<T: Raw>(&mut self, table: &DeTable<'_>, path: &str, key: &str) -> Option<T> {
        let node = table.get(key)?;
        T::read(self, node, &join(path, key))
    }

    /// Replaces `${VAR}`, `${VAR:-default}` and `${file:PATH}`; `$${` stands for `${`.
    fn replace(&mut self, text: &str, place: &Place) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let before = self.sink.count();
        while let Some(at) = rest.find("${") {
            let (head, tail) = (rest.get(..at).unwrap_or_default(), rest.get(at + 2..).unwrap_or_default());
            if let Some(head) = head.strip_suffix('$') {
                out.push_str(head);
                out.push_str("${");
                rest = tail;
                continue;
            }
            out.push_str(head);
            let Some((inside, after)) = tail.split_once('}') else {
                self.sink.fault(
                    place,
                    "has a \"${\" that is not closed",
                    "close it with \"}\", or write \"$${\" for the signs themselves",
                );
                return None;
            };
            rest = after;
            if let Some(value) = self.variable(inside, place) {
                out.push_str(&value);
            }
        }
        out.push_str(rest);
        (self.sink.count() == before).then_some(out)
    }

    fn variable(&mut self, inside: &str, place: &Place) -> Option<String> {
        if let Some(path) = inside.strip_prefix("file:") {
            return match read_text(&self.base.join(path), FILE_BYTES_MAX) {
                Ok(text) => Some(
                    text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t)).to_owned(),
                ),
                Err(why) => {
                    self.sink.fault(
                        place,
                        format!("names the file {path}, which {why}"),
                        "make the file readable for serin",
                    );
                    None
                }
            };
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let lawful = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(lawful) || name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            self.sink.fault(
                place,
                "has a \"${…}\" that names no variable",
                "write ${NAME}, ${NAME:-default} or ${file:PATH}",
            );
            return None;
        }
        match ((self.lookup)(name), default) {
            (Some(value), None) => Some(value),
            (Some(value), Some(_)) if !value.is_empty() => Some(value),
            (_, Some(default)) => Some(default.to_owned()),
            (None, None) => {
                self.sink.fault(
                    place,
                    format!("names the variable {name}, which is not set"),
                    format!("set it, or write ${{{name}:-default}}"),
                );
                None
            }
        }
    }
}

/// A whole file as text, up to a bound; the error is a clause ("cannot be read: …").
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be opened ({})", plain(&error)))?;
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read ({})", plain(&error)))?;
    if text.len() as u64 > most { Err(format!("is larger than {most} bytes")) } else { Ok(text) }
}

/// An error of the system without its number.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A string with its variables replaced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text(pub(crate) String);
impl Leaf for Text {}
impl Raw for Text {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let Some(text) = node.get_ref().as_str() else {
            reader.wrong(node, path, Show::Source, "a string, \"…\"");
            return None;
        };
        let place = Place { path: path.to_owned(), span: node.span(), show: Show::Source };
        reader.replace(text, &place).map(Text)
    }
}

/// A string that no fault shows.
#[derive(Clone, Debug)]
pub(crate) struct Hidden(pub(crate) Secret);
impl Leaf for Hidden {
    const SHOW: Show = Show::Hidden;
}
impl Raw for Hidden {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let Some(text) = node.get_ref().as_str() else {
            reader.wrong(node, path, Show::Hidden, "a string, \"…\"");
            return None;
        };
        let place = Place { path: path.to_owned(), span: node.span(), show: Show::Hidden };
        reader.replace(text, &place).map(|text| Hidden(Secret::new(text)))
    }
}

/// A path: relative ones start at the folder of the configuration file.
#[derive(Clone, Debug, Default)]
pub(crate) struct File(pub(crate) PathBuf);
impl Leaf for File {}
impl Raw for File {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let text = At::<Text>::read(reader, node, path)?;
        if text.value.0.is_empty() {
            reader.sink.fault(&text.place, "is empty", "write the path of a file");
            return None;
        }
        Some(File(reader.base.join(text.value.0)))
    }
}

/// true or false.
impl Leaf for bool {}
impl Raw for bool {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let value = node.get_ref().as_bool();
        if value.is_none() {
            reader.wrong(node, path, Show::Source, "true or false, without quotes");
        }
        value
    }
}

/// A whole number, not below zero.
impl Leaf for u64 {}
impl Raw for u64 {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let value = whole(node.get_ref());
        if value.is_none() {
            match node.get_ref() {
                DeValue::Integer(_) => {
                    let place = Place { path: path.to_owned(), span: node.span(), show: Show::Source };
                    reader.sink.fault(&place, "is below zero, or too large", "write a whole number, 0 or more");
                }
                _ => reader.wrong(node, path, Show::Source, "a whole number, 0 or more, without quotes"),
            }
        }
        value
    }
}

/// Any finite number.
impl Leaf for f64 {}
impl Raw for f64 {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let value = number(node.get_ref());
        if value.is_none() {
            reader.wrong(node, path, Show::Source, "a number, without quotes");
        }
        value
    }
}

/// A string or a number.
#[derive(Clone, Debug)]
pub(crate) enum Scalar {
    /// A string, replaced.
    Text(String),
    /// A number.
    Number(f64),
}
impl Leaf for Scalar {}
impl Raw for Scalar {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        match node.get_ref() {
            DeValue::String(_) => Text::read(reader, node, path).map(|text| Scalar::Text(text.0)),
            value => {
                let number = number(value);
                if number.is_none() {
                    reader.wrong(node, path, Show::Source, "a string or a number");
                }
                number.map(Scalar::Number)
            }
        }
    }
}

/// A string, or true.
#[derive(Clone, Debug)]
pub(crate) enum TextOrTrue {
    /// A string, replaced.
    Text(String),
    /// true.
    True,
}
impl Leaf for TextOrTrue {}
impl Raw for TextOrTrue {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        match node.get_ref() {
            DeValue::Boolean(true) => Some(TextOrTrue::True),
            DeValue::String(_) => Text::read(reader, node, path).map(|text| TextOrTrue::Text(text.0)),
            _ => {
                reader.wrong(node, path, Show::Source, "a string, or true");
                None
            }
        }
    }
}

/// What comes with later work: the name is kept free, and the check tells that it is not there yet.
#[derive(Clone, Debug)]
pub(crate) struct Later(pub(crate) Place);
impl Raw for Later {
    fn read(_: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        Some(Later(Place { path: path.to_owned(), span: node.span(), show: Show::Nothing }))
    }
}

/// A list.
impl<T: Raw> Raw for Vec<T> {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let Some(array) = node.get_ref().as_array() else {
            reader.wrong(node, path, Show::Hidden, "a list, [ …, … ]");
            return None;
        };
        let item = |(index, node)| T::read(reader, node, &format!("{path}[{index}]"));
        Some(array.iter().enumerate().filter_map(item).collect())
    }
    fn keys(path: &str, out: &mut Vec<String>) {
        T::keys(&format!("{path}[]"), out);
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub(crate) struct Many<T>(pub(crate) Vec<T>);
impl<T: Raw> Raw for Many<T> {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        if node.get_ref().is_array() {
            return Vec::read(reader, node, path).map(Many);
        }
        T::read(reader, node, path).map(|one| Many(vec![one]))
    }
    fn keys(path: &str, out: &mut Vec<String>) {
        T::keys(path, out);
    }
}

/// A table whose keys the user names, in the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<(At<String>, T)>);
impl<T: Raw> Raw for Named<T> {
    fn read(reader: &mut Reader<'_, '_>, node: &Spanned<DeValue<'_>>, path: &str) -> Option<Self> {
        let table = reader.table(node, path)?;
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, node): (&Spanned<_>, _)| {
            let name: &str = std::borrow::Borrow::borrow(key.get_ref());
            let path = join(path, name);
            let value = T::read(reader, node, &path)?;
            Some((At { value: name.to_owned(), place: Place { path, span: key.span(), show: Show::Nothing } }, value))
        };
        Some(Named(entries.into_iter().filter_map(entry).collect()))
    }
    fn keys(path: &str, out: &mut Vec<String>) {
        T::keys(&format!("{path}.NAME"), out);
    }
}
impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    let number: f64 = match value {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().replace('_', "").parse().ok()?,
        DeValue::Float(float) => float.as_str().replace('_', "").parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Declares raw tables: every key optional, unknown keys told, all keys known by name.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            /// Where the table stands.
            pub(crate) place: $crate::config::fault::Place,
            $(pub(crate) $key: Option<$type>,)*
        }
        impl $crate::config::read::Raw for $name {
            fn read(
                reader: &mut $crate::config::read::Reader<'_, '_>,
                node: &toml::Spanned<toml::de::DeValue<'_>>,
                path: &str,
            ) -> Option<Self> {
                let table = reader.table(node, path)?;
                reader.unknown(table, path, &[$(stringify!($key).trim_start_matches("r#")),*]);
                let place = $crate::config::fault::Place {
                    path: path.to_owned(),
                    span: node.span(),
                    show: $crate::config::fault::Show::Nothing,
                };
                let mut made = $name { place, ..Default::default() };
                $(made.$key = reader.key(table, &made.place.path, stringify!($key).trim_start_matches("r#"));)*
                Some(made)
            }
            fn keys(path: &str, out: &mut Vec<String>) {
                $({
                    let path = $crate::config::fault::join(path, stringify!($key).trim_start_matches("r#"));
                    let before = out.len();
                    <$type as $crate::config::read::Raw>::keys(&path, out);
                    if out.len() == before {
                        out.push(path);
                    }
                })*
            }
        }
    )*};
}
pub(crate) use tables;
