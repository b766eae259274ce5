//! Splits a byte stream into server-sent events, wherever the chunks are cut.
//!
//! Follows the WHATWG event stream format: CR, LF and CRLF end a line, several `data:` lines make one datum, a byte order
//! mark may come first, comments and unknown fields are passed over. The usual case (an event whole in one chunk) is lent
//! out of the chunk without a copy; only an event that is split goes through [`Hold`], which is bounded.

/// Largest event or document kept whole, in bytes. Beyond it only head and tail are kept.
pub(crate) const WHOLE_BYTES_MAX: usize = 256 * 1024;
/// What is kept of the beginning of something larger: types, status and error objects stand there.
pub(crate) const HEAD_BYTES: usize = 4 * 1024;
/// What is kept of the end of something larger: the usage stands there.
pub(crate) const TAIL_BYTES: usize = 16 * 1024;
/// Longest event name kept; longer ones are cut (no name that we know comes near).
const NAME_BYTES_MAX: usize = 64;

/// Bytes that were collected, or that passed in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// Too large: its first [`HEAD_BYTES`] and last [`TAIL_BYTES`].
    Ends(&'a [u8], &'a [u8]),
}

impl<'a> Piece<'a> {
    /// Judges bytes at hand by the same bound as collected ones, so that chunking changes nothing.
    pub(crate) fn of(bytes: &'a [u8], whole_max: usize) -> Piece<'a> {
        if bytes.len() <= whole_max {
            return Piece::Whole(bytes);
        }
        let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
        let tail = bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or(bytes);
        Piece::Ends(head, tail)
    }
}

/// A bounded collector: everything up to its bound, then head and tail only.
#[derive(Debug)]
pub(crate) struct Hold {
    whole_max: usize,
    /// All bytes so far; once `over`, the last ones only (up to twice [`TAIL_BYTES`]).
    bytes: Vec<u8>,
    /// First bytes, once `over`.
    head: Vec<u8>,
    over: bool,
}

impl Hold {
    pub(crate) fn new(whole_max: usize) -> Hold {
        Hold { whole_max: whole_max.max(TAIL_BYTES), bytes: Vec::new(), head: Vec::new(), over: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes kept (not: bytes seen).
    pub(crate) fn kept(&self) -> usize {
        self.bytes.capacity() + self.head.capacity()
    }

    pub(crate) fn push(&mut self, more: &[u8]) {
        if !self.over {
            if self.bytes.len() + more.len() <= self.whole_max {
                self.bytes.extend_from_slice(more);
                return;
            }
            self.over = true;
            self.head.extend(self.bytes.iter().chain(more).take(HEAD_BYTES));
            self.keep_tail(TAIL_BYTES);
            self.bytes.shrink_to(2 * TAIL_BYTES);
        }
        if more.len() >= TAIL_BYTES {
            self.bytes.clear();
            self.bytes.extend(more.get(more.len() - TAIL_BYTES..).unwrap_or_default());
        } else {
            self.keep_tail(2 * TAIL_BYTES - more.len());
            self.bytes.extend_from_slice(more);
        }
    }

    /// Lowers the bound (once the dialect is known to need only the ends).
    pub(crate) fn narrow(&mut self, whole_max: usize) {
        self.whole_max = whole_max.max(TAIL_BYTES);
        if !self.over && self.bytes.len() > self.whole_max {
            self.push(&[]);
        }
    }

    pub(crate) fn piece(&self) -> Piece<'_> {
        if !self.over {
            return Piece::Whole(&self.bytes);
        }
        Piece::Ends(&self.head, self.bytes.get(self.bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or(&self.bytes))
    }

    /// Forgets all of it.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(TAIL_BYTES);
        self.head = Vec::new();
        self.over = false;
    }

    /// Forgets all but the last `most` bytes, at most once per [`TAIL_BYTES`] of input.
    fn keep_tail(&mut self, most: usize) {
        if self.bytes.len() > most {
            self.bytes.drain(..self.bytes.len() - TAIL_BYTES.min(most));
        }
    }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The `event:` field, empty when there was none.
    pub(crate) name: &'a [u8],
    /// The `data:` lines, joined by LF.
    pub(crate) data: Piece<'a>,
}

/// Where in a line the last chunk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// At its start.
    Start,
    /// In its field name, of which so many bytes (at most 6) are in `field`.
    Field(usize),
    /// In the value of `data`; `true` before its first byte.
    Data(bool),
    /// In the value of `event`; `true` before its first byte.
    Name(bool),
    /// In a comment or a field that nobody asks for.
    Skip,
}

/// The incremental splitter.
#[derive(Debug)]
pub(crate) struct Splitter {
    hold: Hold,
    /// `hold` has a datum (perhaps an empty one) of the event under way.
    held: bool,
    name: Vec<u8>,
    line: Line,
    field: [u8; 6],
    after_cr: bool,
    /// Bytes of a byte order mark matched so far; 3 once it can come no more.
    mark: u8,
    /// An `id:` line passed: the stream can be resumed.
    pub(crate) resumable: bool,
}

/// What of the event under way lies in the chunk at hand.
#[derive(Default)]
struct Lent<'a> {
    data: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
}

impl Splitter {
    pub(crate) fn new() -> Splitter {
        Splitter {
            hold: Hold::new(WHOLE_BYTES_MAX),
            held: false,
            name: Vec::new(),
            line: Line::Start,
            field: [0; 6],
            after_cr: false,
            mark: 0,
            resumable: false,
        }
    }

    /// Bytes of memory kept for an event under way.
    pub(crate) fn kept(&self) -> usize {
        self.hold.kept() + self.name.capacity()
    }

    /// Takes the next chunk in and hands each event that ends in it to `sink`.
    pub(crate) fn feed(&mut self, chunk: &[u8], mut sink: impl FnMut(Event<'_>)) {
        let mut rest = self.skip_mark(chunk);
        let mut lent = Lent::default();
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.spill(&mut lent);
                self.part_of_line(rest);
                return;
            };
            let (line, after) = rest.split_at(end);
            self.after_cr = after.first() == Some(&b'\r');
            rest = after.get(1..).unwrap_or_default();
            if self.line != Line::Start {
                self.part_of_line(line);
                self.end_line();
            } else if line.is_empty() {
                self.dispatch(&mut lent, &mut sink);
            } else {
                self.whole_line(line, &mut lent);
            }
        }
        self.spill(&mut lent);
    }

    /// The stream has ended: the event under way, if it has data, though no blank line closed it.
    pub(crate) fn rest(&mut self) -> Option<Event<'_>> {
        if self.line != Line::Start {
            self.end_line();
        }
        self.held.then(|| Event { name: &self.name, data: self.hold.piece() })
    }

    fn skip_mark<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        const MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];
        let mut rest = chunk;
        while let (Some(want), Some((first, after))) = (MARK.get(usize::from(self.mark)), rest.split_first()) {
            if first == want {
                self.mark += 1;
                rest = after;
            } else {
                if self.mark > 0 {
                    self.line = Line::Skip; // no mark after all: the line begins with bytes of no field
                }
                self.mark = 3;
            }
        }
        rest
    }

    fn whole_line<'a>(&mut self, line: &'a [u8], lent: &mut Lent<'a>) {
        if let Some(value) = value_of(line, b"data") {
            if !self.held && lent.data.is_none() {
                lent.data = Some(value);
                return;
            }
            self.spill(lent);
            self.hold.push(b"\n");
            self.hold.push(value);
        } else if let Some(value) = value_of(line, b"event") {
            self.name.clear();
            lent.name = Some(value.get(..NAME_BYTES_MAX).unwrap_or(value));
        } else if value_of(line, b"id").is_some() {
            self.resumable = true;
        }
    }

    fn dispatch(&mut self, lent: &mut Lent<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let name = lent.name.take();
        if let Some(data) = lent.data.take() {
            sink(Event { name: name.unwrap_or(&self.name), data: Piece::of(data, WHOLE_BYTES_MAX) });
        } else if self.held {
            sink(Event { name: name.unwrap_or(&self.name), data: self.hold.piece() });
            self.hold.clear();
            self.held = false;
        }
        self.name.clear();
    }

    /// Keeps what the chunk lent, because the chunk ends or more lines follow.
    fn spill(&mut self, lent: &mut Lent<'_>) {
        if let Some(data) = lent.data.take() {
            self.hold.push(data);
            self.held = true;
        }
        if let Some(name) = lent.name.take() {
            self.name.clear();
            self.name.extend_from_slice(name);
        }
    }

    fn part_of_line(&mut self, mut bytes: &[u8]) {
        while let Some((&first, after)) = bytes.split_first() {
            match self.line {
                Line::Start => self.line = Line::Field(0),
                Line::Field(len) => {
                    if first == b':' {
                        self.line = self.begin_value(len);
                    } else if let Some(slot) = self.field.get_mut(len) {
                        *slot = first;
                        self.line = Line::Field(len + 1);
                    } else {
                        self.line = Line::Skip;
                    }
                    bytes = after;
                }
                Line::Data(lead) => {
                    self.hold.push(if lead && first == b' ' { after } else { bytes });
                    self.line = Line::Data(false);
                    return;
                }
                Line::Name(lead) => {
                    let value = if lead && first == b' ' { after } else { bytes };
                    let room = NAME_BYTES_MAX.saturating_sub(self.name.len()).min(value.len());
                    self.name.extend(value.get(..room).unwrap_or_default());
                    self.line = Line::Name(false);
                    return;
                }
                Line::Skip => return,
            }
        }
    }

    fn begin_value(&mut self, field_len: usize) -> Line {
        match self.field.get(..field_len) {
            Some(b"data") => {
                if self.held {
                    self.hold.push(b"\n");
                }
                self.held = true;
                Line::Data(true)
            }
            Some(b"event") => {
                self.name.clear();
                Line::Name(true)
            }
            Some(b"id") => {
                self.resumable = true;
                Line::Skip
            }
            _ => Line::Skip,
        }
    }

    fn end_line(&mut self) {
        if let Line::Field(len) = self.line {
            let _value = self.begin_value(len); // a field name alone has an empty value
        }
        self.line = Line::Start;
    }
}

/// The value of `line` if its field is `field`.
fn value_of<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(field)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut splitter = Splitter::new();
        let mut events = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, |event| events.push(shown(event)));
        }
        events
    }

    fn shown(event: Event<'_>) -> (String, String) {
        let data = match event.data {
            Piece::Whole(data) => String::from_utf8_lossy(data).into_owned(),
            Piece::Ends(head, tail) => format!("{}…{}", head.len(), tail.len()),
        };
        (String::from_utf8_lossy(event.name).into_owned(), data)
    }

    #[track_caller]
    fn check(stream: &str, expect: &[(&str, &str)]) {
        let expect: Vec<_> = expect.iter().map(|(n, d)| ((*n).to_owned(), (*d).to_owned())).collect();
        let bytes = stream.as_bytes();
        assert_eq!(split(&[bytes]), expect, "whole");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(split(&single), expect, "byte by byte");
        for at in 0..=bytes.len() {
            assert_eq!(split(&[&bytes[..at], &bytes[at..]]), expect, "cut at {at}");
        }
    }

    #[test]
    fn every_kind_of_line_end_splits_the_same_events() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = [
                "event: a",
                "data: 1",
                "",
                "data:2",
                "data:  3",
                "",
                "",
                ": comment",
                "id: 7",
                "data",
                "",
                "data: lost",
            ];
            check(&stream.join(end), &[("a", "1"), ("", "2\n 3"), ("", "")]);
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_once() {
        check("\u{feff}data: 1\n\n\u{feff}data: 2\n\ndata: 3\n\n", &[("", "1"), ("", "3")]);
    }

    #[test]
    fn unknown_fields_and_names_without_data_make_no_event() {
        check("dataset: 1\nretry: 5\nevent: x\n\ndata: y\n\n", &[("", "y")]);
        check("event: one\nevent: two\ndata: y\n\n", &[("two", "y")]);
    }

    #[test]
    fn an_event_beyond_the_bound_is_lent_by_its_ends_however_it_is_cut() {
        let stream = format!("data: {}\n\ndata: next\n\n", "x".repeat(WHOLE_BYTES_MAX + 1));
        let expect = vec![(String::new(), format!("{HEAD_BYTES}…{TAIL_BYTES}")), (String::new(), "next".to_owned())];
        for size in [1, 7, 4096, 100_000, stream.len()] {
            let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            assert_eq!(split(&chunks), expect, "chunks of {size}");
        }
    }

    #[test]
    fn what_is_kept_of_a_boundless_line_is_bounded() {
        let mut splitter = Splitter::new();
        splitter.feed(b"event: ", |_| ());
        for _ in 0..100 {
            splitter.feed(&[b'n'; 5000], |_| ());
        }
        splitter.feed(b"\ndata: ", |_| ());
        for _ in 0..1000 {
            splitter.feed(&[b'x'; 5000], |_| ());
            assert!(splitter.kept() <= 2 * WHOLE_BYTES_MAX + HEAD_BYTES + NAME_BYTES_MAX, "{}", splitter.kept());
        }
        assert!(splitter.kept() <= 5 * TAIL_BYTES, "{}", splitter.kept());
    }

    #[test]
    fn an_unfinished_event_can_be_asked_for_at_the_end() {
        let mut splitter = Splitter::new();
        splitter.feed(b"data: a\n\ndata: [DO", |_| ());
        splitter.feed(b"NE]", |_| ());
        assert_eq!(splitter.rest().map(shown), Some((String::new(), "[DONE]".to_owned())));
    }
}
