//! Trace lines out: what a judge was told, in the order of arrival, so that [`replay`](super::replay) tells it again.
//!
//! A request is one line, written when it has ended; what arrived later waits for it, because lines rise in time. Where
//! that would hold too much, or too long, the request is written as `open` and its end follows as a line of its own.
//! A fact that came to the judge after a tick that was already past it carries that tick's number (`late`, `after`), so
//! that the replay tells it as late. Nothing is rounded: times are whole nanoseconds, scores are given in full.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use crate::names::{Arm, Mono};

use super::court::Stage;
use super::facts::{End, Fact, Flags};

/// No more lines than this wait for an earlier request to end.
pub const MOST_HELD: usize = 65_536;
/// No line waits longer than this for one: a process that is killed loses what waits.
const HELD_NS: u64 = 600_000_000_000;
/// Every line waits this long: a record may come from its worker after the next tick.
const LINGER_NS: u64 = 1_000_000_000;

/// One thing that a judge was told, or made to do.
#[derive(Clone, Debug)]
pub enum Item {
    /// A fact, in the order of [`Judge::observe`](super::Judge::observe).
    Fact(Fact),
    /// A judge took its seat: a new one, or one with evidence (a checkpoint taken at this moment).
    Begin {
        /// When.
        at: Mono,
        /// Its checkpoint, unless it is new.
        evidence: Option<Vec<u8>>,
    },
    /// A stage was entered.
    Stage {
        /// When.
        at: Mono,
        /// What it asks for.
        stage: Stage,
    },
    /// The weight changed inside a stage.
    Weight {
        /// When.
        at: Mono,
        /// The canary's share, 0 to 1.
        weight: f64,
    },
    /// A tick.
    Tick(Mono),
    /// The judge was told that records were dropped before it; or the trace itself lacks `lost` things from here on.
    Dropped {
        /// When.
        at: Mono,
        /// What the trace lacks; 0 where the judge was told.
        lost: u64,
    },
}

/// By time, then as it came.
type Key = (u64, u64);

#[derive(Debug)]
enum Entry {
    /// All but the time, which is the key's.
    Line(String),
    Open(Open),
}

/// A request that has not ended.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: u64,
    at: u64,
    arm: Arm,
    user: u64,
    drawn: bool,
    first: Option<u64>,
    /// Marks before its start, first byte and end became known to the judge, where later than their times; else 0.
    late: [u64; 3],
}

/// Makes lines of what it is told; holds at most [`MOST_HELD`].
#[derive(Debug, Default)]
pub struct TraceWriter {
    origin: u64,
    /// Control lines since the judge took its seat, and when the last was.
    marks: u64,
    marked: u64,
    /// Time of the last line written.
    written: u64,
    sequence: u64,
    entries: BTreeMap<Key, Entry>,
    open: HashMap<u64, Key>,
}

impl TraceWriter {
    /// Takes one thing in; whole lines that are ready are added to `out`.
    pub fn take(&mut self, item: Item, out: &mut Vec<u8>) {
        match item {
            Item::Fact(fact) => return self.fact(&fact),
            Item::Begin { at, evidence } => self.begin(at.0, evidence.as_deref(), out),
            Item::Stage { at, stage: Stage { weight, residence, samples } } => {
                let residence = decimal(nanos_of(residence), 9);
                let text =
                    format!(r#""event":"stage","weight":{weight},"residence_s":{residence},"samples":{samples}"#);
                self.mark(at, text);
            }
            Item::Weight { at, weight } => self.mark(at, format!(r#""event":"weight","weight":{weight}"#)),
            Item::Tick(at) => self.mark(at, r#""event":"tick""#.to_owned()),
            Item::Dropped { at, lost: 0 } => self.mark(at, r#""event":"dropped""#.to_owned()),
            Item::Dropped { at, lost } => self.mark(at, format!(r#""event":"dropped","lost":{lost}"#)),
        }
        self.write_ready(out);
    }

    /// Writes what is held, requests in flight as such, and the last line.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.write_all(out);
        self.write_line(self.written, r#""event":"end""#, out);
    }

    /// Lines that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.entries.len()
    }

    fn begin(&mut self, at: u64, evidence: Option<&[u8]>, out: &mut Vec<u8>) {
        self.write_all(out);
        *self = Self { origin: at, marked: at, written: at, ..Self::default() };
        let mut text = format!(r#""event":"begin","mono":{at}"#);
        if let Some(bytes) = evidence {
            text += r#","evidence":""#;
            for byte in bytes {
                put(&mut text, format_args!("{byte:02x}"));
            }
            text.push('"');
        }
        self.mark(Mono(at), text);
    }

    fn mark(&mut self, at: Mono, text: String) {
        self.marked = at.0.max(self.marked);
        self.marks += 1;
        self.insert(self.marked, Entry::Line(text));
    }

    fn insert(&mut self, at: u64, entry: Entry) -> Key {
        self.sequence += 1;
        let key = (at.max(self.written), self.sequence);
        self.entries.insert(key, entry);
        key
    }

    /// How many marks there were before what is known only now, where one of them would else have told it; or 0.
    fn late(&self, known: u64) -> u64 {
        if known <= self.marked { self.marks } else { 0 }
    }

    fn fact(&mut self, fact: &Fact) {
        match fact {
            Fact::Start { id, at, arm, user, drawn } => {
                if let Some(key) = self.open.remove(id) {
                    self.close(key, |open| open.unended());
                }
                let late = [self.late(at.0), 0, 0];
                let open = Open { id: *id, at: at.0, arm: *arm, user: *user, drawn: *drawn, first: None, late };
                let key = self.insert(at.0, Entry::Open(open));
                self.open.insert(*id, key);
            }
            Fact::FirstByte { id, at } => self.first_byte(*id, at.0),
            Fact::End { id, at, end } => self.ended(*id, at.0, end),
            Fact::Score { arm, user, drawn, metric, value, arrived, known } => {
                let metric = serde_json::to_string(metric).unwrap_or_default();
                let arrived = self.seconds(arrived.0);
                let mut text = format!(
                    r#""event":"score","version":"{}","user":"h{user:016x}","metric":{metric},"value":{},"arrived":{arrived}"#,
                    arm.as_str(),
                    exact(*value)
                );
                if !drawn {
                    text += r#","drawn":false"#;
                }
                self.loose(known.0, self.late(known.0), text);
            }
            Fact::Query { name, stable, canary, known } => {
                let name = serde_json::to_string(name).unwrap_or_default();
                let (stable, canary) = (exact(*stable), exact(*canary));
                let text = format!(r#""event":"query","name":{name},"stable":{stable},"canary":{canary}"#);
                self.loose(known.0, self.late(known.0), text);
            }
        }
    }

    fn first_byte(&mut self, id: u64, at: u64) {
        let late = self.late(at);
        if let Some(Entry::Open(open)) = self.open.get(&id).and_then(|key| self.entries.get_mut(key))
            && open.first.is_none()
            && at >= open.at
        {
            open.first = Some(at);
            open.late[1] = late;
            return;
        }
        self.loose(at, late, format!(r#""event":"first_byte","id":{id}"#));
    }

    fn ended(&mut self, id: u64, at: u64, end: &End) {
        let late = self.late(at);
        let open = self.open.get(&id).and_then(|key| match self.entries.get(key)? {
            Entry::Open(open) if at >= open.at => Some((*key, *open)),
            _ => None,
        });
        let Some((key, mut open)) = open else {
            return self.loose(at, late, format!(r#""event":"finish","id":{id}{}"#, told(end, None)));
        };
        self.open.remove(&id);
        open.late[2] = late;
        if let Some(first) = open.first.filter(|first| *first > at) {
            let text = format!(r#""event":"first_byte","id":{id}"#);
            self.loose(first, open.late[1], text);
            (open.first, open.late[1]) = (None, 0);
        }
        self.close(key, |_| open.whole(at, end));
    }

    /// A fact on a line of its own.
    fn loose(&mut self, known: u64, after: u64, mut text: String) {
        if known < self.written {
            put(&mut text, format_args!(r#","at":{}"#, self.seconds(known)));
        }
        if after > 0 {
            put(&mut text, format_args!(r#","after":{after}"#));
        }
        self.insert(known, Entry::Line(text));
    }

    /// Makes the line of a request.
    fn close(&mut self, key: Key, line: impl FnOnce(&Open) -> String) {
        let origin = self.origin;
        if let Some(entry) = self.entries.get_mut(&key)
            && let Entry::Open(open) = entry
        {
            let mut text = line(open);
            if open.at != key.0 {
                put(&mut text, format_args!(r#","at":{}"#, signed_seconds(open.at, origin)));
            }
            *entry = Entry::Line(text);
        }
    }

    fn write_ready(&mut self, out: &mut Vec<u8>) {
        while let Some((key, entry)) = self.entries.first_key_value() {
            let age = self.marked.saturating_sub(key.0);
            let waits = age < LINGER_NS || (matches!(entry, Entry::Open(_)) && age < HELD_NS);
            if waits && self.entries.len() <= MOST_HELD {
                return;
            }
            self.write_first(out);
        }
    }

    fn write_all(&mut self, out: &mut Vec<u8>) {
        while !self.entries.is_empty() {
            self.write_first(out);
        }
    }

    fn write_first(&mut self, out: &mut Vec<u8>) {
        let Some((key, entry)) = self.entries.first_key_value() else { return };
        let key = *key;
        if let Entry::Open(open) = entry {
            self.open.remove(&open.id);
            self.close(key, Open::unended);
        }
        if let Some(Entry::Line(text)) = self.entries.remove(&key) {
            self.written = key.0;
            self.write_line(key.0, &text, out);
        }
    }

    fn write_line(&self, at: u64, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"ts":"#);
        out.extend_from_slice(self.seconds(at).as_bytes());
        out.push(b',');
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"}\n");
    }

    fn seconds(&self, at: u64) -> String {
        signed_seconds(at, self.origin)
    }
}

impl Open {
    fn head(&self) -> String {
        let mut text = format!(r#""version":"{}","user":"h{:016x}","id":{}"#, self.arm.as_str(), self.user, self.id);
        if !self.drawn {
            text += r#","drawn":false"#;
        }
        if let Some(first) = self.first {
            put(&mut text, format_args!(r#","ttft_ms":{}"#, decimal(first - self.at, 6)));
        }
        if self.late != [0; 3] {
            let [start, first, end] = self.late;
            put(&mut text, format_args!(r#","late":[{start},{first},{end}]"#));
        }
        text
    }

    fn unended(&self) -> String {
        self.head() + r#","open":true"#
    }

    fn whole(&self, at: u64, end: &End) -> String {
        let mut text = self.head();
        put(&mut text, format_args!(r#","latency_ms":{}"#, decimal(at - self.at, 6)));
        let derived = self.first.map(|first| (((first - self.at) as f64 / 1e6) * 1e3).round() as u64);
        text + &told(end, derived)
    }
}

/// What an end says, each field led by a comma. `derived`: the time to first token that a reader takes from `ttft_ms`.
fn told(end: &End, derived: Option<u64>) -> String {
    let mut text = format!(r#","status":{},"outcome":"{}""#, end.status, end.outcome.as_str());
    if end.ttft_us != derived {
        match end.ttft_us {
            Some(us) => put(&mut text, format_args!(r#","ttft_us":{us}"#)),
            None => text += r#","ttft_us":null"#,
        }
    }
    if let Some(us) = end.tpot_us {
        put(&mut text, format_args!(r#","tpot_ms":{}"#, decimal(us, 3)));
    }
    if let Some(tokens) = end.tokens_out {
        put(&mut text, format_args!(r#","tokens":{tokens}"#));
    }
    if let Some(nano) = end.cost_nano {
        put(&mut text, format_args!(r#","cost":{}"#, decimal(nano, 9)));
    }
    if let Some(script) = end.script {
        put(&mut text, format_args!(r#","script":"{}""#, script.as_str()));
    }
    if let Some(class) = end.tool {
        put(&mut text, format_args!(r#","tool":{class}"#));
    }
    if end.flags != Flags::default() {
        text += r#","flags":{"#;
        let mut first = true;
        for (name, set) in flags(end.flags) {
            if set {
                put(&mut text, format_args!(r#"{}"{name}":true"#, if first { "" } else { "," }));
                first = false;
            }
        }
        text.push('}');
    }
    text
}

/// All flags by their names.
fn flags(flags: Flags) -> [(&'static str, bool); 11] {
    let Flags {
        cut,
        in_band_error,
        empty,
        truncated,
        refusal,
        tool_called,
        tool_error,
        safety,
        regeneration,
        schema_checked,
        schema_invalid,
    } = flags;
    [
        ("cut", cut),
        ("in_band_error", in_band_error),
        ("empty", empty),
        ("truncated", truncated),
        ("refusal", refusal),
        ("tool_called", tool_called),
        ("tool_error", tool_error),
        ("safety", safety),
        ("regeneration", regeneration),
        ("schema_checked", schema_checked),
        ("schema_invalid", schema_invalid),
    ]
}

fn nanos_of(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds since the origin; below 0 for what was before.
fn signed_seconds(at: u64, origin: u64) -> String {
    match at.checked_sub(origin) {
        Some(since) => format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000),
        None => {
            let before = origin - at;
            format!("-{}.{:09}", before / 1_000_000_000, before % 1_000_000_000)
        }
    }
}

/// A count of 10⁻ᵈ as a decimal number, without idle zeros.
fn decimal(count: u64, digits: usize) -> String {
    let unit = 10u64.pow(digits as u32);
    let (whole, part) = (count / unit, count % unit);
    if part == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{part:0digits$}");
    text.trim_end_matches('0').to_owned()
}

/// A number that reads back as the same bits: as text, where a JSON reader might round it.
fn exact(value: f64) -> String {
    let text = value.to_string();
    if value.is_finite() && text.len() <= 16 { text } else { format!("\"{text}\"") }
}

fn put(text: &mut String, what: std::fmt::Arguments) {
    // A string takes all that is written to it.
    if text.write_fmt(what).is_err() {
        debug_assert!(false, "a string refused text");
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Outcome;
    use super::super::policy::Metric;
    use super::super::trace::Line;
    use super::*;

    /// What a reader takes from lines, with the marks that each waits for.
    fn read(text: &[u8]) -> Vec<(u64, Fact)> {
        let (mut origin, mut facts) = (0, Vec::new());
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Line = serde_json::from_slice(line).unwrap();
            match &line.event {
                None => line.facts_from(origin, 0, |fact| facts.push((line.after(&fact), fact))).unwrap(),
                Some(event) if event.0 == "begin" => origin = line.mono.unwrap(),
                Some(event) => facts.extend(line.fact(&event.0, origin).unwrap().map(|fact| (line.after(&fact), fact))),
            }
        }
        facts
    }

    fn written(items: impl IntoIterator<Item = Item>) -> Vec<u8> {
        let (mut writer, mut out) = (TraceWriter::default(), Vec::new());
        items.into_iter().for_each(|item| writer.take(item, &mut out));
        writer.finish(&mut out);
        out
    }

    #[test]
    fn every_bit_of_a_fact_comes_back() {
        let origin = 1_763_000_000_123_456_789;
        let mut state = 1u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..3_000 {
            let at = origin + next() % (1 << 50);
            let (id, user) = (next(), next());
            let first = at + next() % 3_000_000_000_000;
            let ended = first + next() % 3_000_000_000_000;
            let drawn = next() % 2 == 0;
            let end = End {
                outcome: Outcome::ALL[next() as usize % 8],
                status: next() as u16,
                ttft_us: (next() % 2 == 0).then(|| next() % (1 << 40)),
                tpot_us: (next() % 2 == 0).then(|| next() % (1 << 40)),
                tokens_out: (next() % 2 == 0).then(|| next() % (1 << 53)),
                cost_nano: (next() % 2 == 0).then(|| next() % (1 << 51)),
                flags: Flags { cut: next() % 2 == 0, safety: next() % 2 == 0, ..Flags::default() },
                script: (next() % 2 == 0).then(|| crate::names::Script::ALL[next() as usize % 15]),
                tool: (next() % 2 == 0).then(|| next() as u8 % crate::names::TOOL_CLASSES),
            };
            // Any number that is one.
            let mut number = || loop {
                let number = f64::from_bits(next());
                if !number.is_nan() {
                    return number;
                }
            };
            let (value, stable, canary) = (number(), number(), number());
            let metric = Metric::Score("a \"b\"".into());
            let arrived = Mono(at - next() % (1 << 50));
            let facts = [
                Fact::Start { id, at: Mono(at), arm: Arm::Canary, user, drawn },
                Fact::FirstByte { id, at: Mono(first) },
                Fact::End { id, at: Mono(ended), end },
                Fact::Score { arm: Arm::Stable, user, drawn, metric, value, arrived, known: Mono(ended) },
                Fact::Query { name: "load \\".into(), stable, canary, known: Mono(ended) },
            ];
            let begin = Item::Begin { at: Mono(origin), evidence: None };
            let told = facts.iter().cloned().map(Item::Fact);
            let expected: Vec<(u64, Fact)> = facts.iter().cloned().map(|fact| (0, fact)).collect();
            assert_eq!(read(&written([begin].into_iter().chain(told))), expected);
        }
    }

    #[test]
    fn what_comes_late_keeps_its_time_and_says_how_late() {
        let begin = Item::Begin { at: Mono(1_000), evidence: None };
        let late = Fact::Start { id: 1, at: Mono(900), arm: Arm::Stable, user: 1, drawn: true };
        let first = Fact::FirstByte { id: 1, at: Mono(5_000_000_100) };
        let orphan = Fact::FirstByte { id: 9, at: Mono(950) };
        let text = written([
            begin,
            Item::Tick(Mono(2_000)),
            Item::Fact(late.clone()),
            Item::Tick(Mono(5_000_000_500)),
            Item::Fact(first.clone()),
            Item::Fact(orphan.clone()),
        ]);
        let mut facts = read(&text);
        facts.sort_by_key(|(after, _)| *after);
        assert_eq!(facts, [(2, late), (3, first), (3, orphan)]);
    }
}
