//! Recognises a conversation that is asked again: keyed fingerprints of the history that a chat request carries.
//!
//! "Try again" in an application sends the same history once more, up to the same last words of the user. Two requests of one
//! unit with equal fingerprints are such a pair. What may differ between them is left out: the system prompt (it often holds
//! the time), the model and its settings, cache marks, ids, tool traffic. No text is kept: a fingerprint is 64 bits under a
//! secret seed, over roles and texts. Read are OpenAI chat completions, OpenAI responses and Anthropic messages.
//!
//! A request whose history does not end in words of the user (a step of an agent's tool loop, a prefilled answer) is no turn.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::Xxh3;

use super::facts::{Dialect, Protocol};
use super::{dialect, scan};

/// Messages of one request that are looked at; a longer history is not fingerprinted.
const MESSAGES_MAX: usize = 4_096;

/// Whether requests for this path ask for the next words of a conversation. Others carry histories too (counting their
/// tokens, say), and ask for nothing again.
#[must_use]
pub fn holds_turns(protocol: Protocol, path: &str) -> bool {
    matches!(dialect::by_path(protocol, path), Dialect::Chat | Dialect::Responses | Dialect::Messages)
}

/// Where a request stands in its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The history up to the user's last words.
    pub asked: u64,
    /// The history up to the user's words before those, which this request shows to have been answered; `None` at the first.
    pub before: Option<u64>,
}

impl Turn {
    /// Of a whole request body, for one unit, under a secret seed. `None` where the body carries no history that can be told.
    #[must_use]
    pub fn of_request(seed: u64, unit: u64, body: &[u8]) -> Option<Turn> {
        let [messages, input, thread] = scan::fields(body, &["messages", "input", "previous_response_id"]).ok()?;
        let mut walk = Walk::new(seed, unit);
        if let Some(thread) = scan::text(thread) {
            // The history before it lies at the provider; the same continuation of the same answer is the same turn.
            walk.hash.update(thread.as_bytes());
        }
        match messages.or(input) {
            Some(list) if list.starts_with('[') => scan::elements(Some(list), |message| walk.message(message)),
            Some(text) if messages.is_none() && text.starts_with('"') => walk.said("user", Some(text)),
            _ => return None,
        }
        walk.turn()
    }
}

/// The messages so far.
struct Walk {
    hash: Xxh3,
    seen: usize,
    asked: Option<u64>,
    before: Option<u64>,
    /// The model has spoken (or used a tool) since the user's last words.
    answered: bool,
}

impl Walk {
    fn new(seed: u64, unit: u64) -> Walk {
        let mut hash = Xxh3::with_seed(seed);
        hash.update(&unit.to_le_bytes());
        Walk { hash, seen: 0, asked: None, before: None, answered: false }
    }

    fn message(&mut self, message: &str) {
        self.seen += 1;
        if self.seen > MESSAGES_MAX {
            return;
        }
        let [role, kind, content] = scan::inner(Some(message), &["role", "type", "content"]);
        match scan::text(role) {
            Some("system" | "developer") => (),
            Some(role @ ("user" | "assistant")) => self.said(role, content),
            // Tool results, calls and reasoning items: traffic of an agent's loop.
            Some(_) => self.answered = true,
            None if kind.is_some() => self.answered = true,
            None => (),
        }
    }

    fn said(&mut self, role: &str, content: Option<&str>) {
        let mut words = 0;
        self.hash.update(role.as_bytes());
        let hash = &mut self.hash;
        let mut take = |raw: &str| {
            let text = scan::text(Some(raw)).unwrap_or(raw).trim();
            if !text.is_empty() {
                words += 1;
                hash.update(&(text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        };
        match content {
            Some(text) if text.starts_with('"') => take(text),
            parts => scan::elements(parts, |part| {
                let [kind, text, image, source] = scan::inner(Some(part), &["type", "text", "image_url", "source"]);
                match scan::text(kind) {
                    Some("tool_result" | "tool_use" | "thinking" | "redacted_thinking") => (),
                    _ => text.or(image).or(source).into_iter().for_each(&mut take),
                }
            }),
        }
        if role == "user" && words > 0 {
            if self.answered {
                self.before = self.asked;
            }
            self.asked = Some(self.hash.digest());
            self.answered = false;
        } else {
            self.answered = true;
        }
    }

    fn turn(self) -> Option<Turn> {
        let asked = self.asked.filter(|_| !self.answered && self.seen <= MESSAGES_MAX)?;
        Some(Turn { asked, before: self.before })
    }
}

/// What a turn that is asked is to its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Not seen before, or not as one that counts.
    First,
    /// The same, and another turn was forgotten for it that could still have been asked again.
    FirstForAnother,
    /// A regeneration.
    Again,
}

/// What is remembered of the turns that were asked, in a fixed number of words of 64 bits and nothing else.
///
/// A turn that is asked again counts as a regeneration when its answer had come (so a retry of a failed call, a hedge and a
/// second tab that asks at the same moment do not), when the conversation had not gone on from it (so a new conversation
/// that begins with the same words does not), when that was not long ago, and when the same arm had answered. Three
/// repeats count; what is asked still again is a machine's.
///
/// An entry is `tag (36 bits) | seconds (20) | arm (2) | repeats (2) | answered | continued`, and sits in a set of `WAYS`;
/// a full set loses its oldest.
#[derive(Debug)]
pub struct Memory {
    sets: Box<[Set]>,
    window_s: u32,
}

/// Entries that compete for one place.
const WAYS: usize = 8;
const SECONDS_MASK: u64 = (1 << 20) - 1;
const TAG_SHIFT: u32 = 28;
const SECONDS_SHIFT: u32 = 8;
const ARM_SHIFT: u32 = 4;
const REPEATS_SHIFT: u32 = 2;
const ANSWERED: u64 = 2;
const CONTINUED: u64 = 1;
/// Repeats of one turn that count.
const REPEATS_MAX: u64 = 3;

type Set = [AtomicU64; WAYS];

impl Memory {
    /// For at least `turns` turns (8 bytes each), of which those of the last `window_s` seconds count.
    #[must_use]
    pub fn new(turns: usize, window_s: u32) -> Memory {
        let sets = turns.div_ceil(WAYS).next_power_of_two();
        Memory { sets: (0..sets).map(|_| Set::default()).collect(), window_s: window_s.min(1 << 19) }
    }

    /// Bytes of memory: constant.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.sets.len() * size_of::<Set>()
    }

    /// A turn is asked, of the arm with this index, `now_s` seconds after any origin.
    /// Wait-free; two threads that write one set at once may lose one of the two.
    pub fn asked(&self, turn: Turn, arm: usize, now_s: u32) -> Asked {
        if let Some(before) = turn.before
            && let Some((slot, entry)) = self.find(before)
        {
            slot.store(entry | CONTINUED, Relaxed);
        }
        let arm = arm as u64 & 3;
        let Some((slot, entry)) = self.find(turn.asked) else {
            return if self.insert(turn.asked, arm, now_s) { Asked::FirstForAnother } else { Asked::First };
        };
        let recent = self.is_recent(entry, now_s);
        let repeats = if recent { entry >> REPEATS_SHIFT & 3 } else { 0 };
        let answered = recent && entry & (ANSWERED | CONTINUED) == ANSWERED;
        let again = answered && entry >> ARM_SHIFT & 3 == arm && repeats < REPEATS_MAX;
        let repeats = if answered { (repeats + 1).min(REPEATS_MAX) } else { repeats };
        slot.store(pack(turn.asked, now_s, arm, repeats), Relaxed);
        if again { Asked::Again } else { Asked::First }
    }

    /// The answer to a turn came, or so much of it that its user could judge it.
    pub fn answered(&self, turn: Turn, now_s: u32) {
        if let Some((slot, entry)) = self.find(turn.asked) {
            let aged = entry & !(SECONDS_MASK << SECONDS_SHIFT) | (u64::from(now_s) & SECONDS_MASK) << SECONDS_SHIFT;
            slot.store(aged | ANSWERED, Relaxed);
        }
    }

    /// Whether the entry was written within the window.
    fn is_recent(&self, entry: u64, now_s: u32) -> bool {
        age(entry, now_s) <= u64::from(self.window_s)
    }

    fn set(&self, fingerprint: u64) -> &[AtomicU64] {
        let at = usize::try_from(fingerprint & (self.sets.len() as u64 - 1)).unwrap_or(0);
        self.sets.get(at).map_or(&[], |set| set.as_slice())
    }

    fn find(&self, fingerprint: u64) -> Option<(&AtomicU64, u64)> {
        let entries = self.set(fingerprint).iter().map(|slot| (slot, slot.load(Relaxed)));
        entries.into_iter().find(|(_, entry)| *entry != 0 && entry >> TAG_SHIFT == fingerprint >> TAG_SHIFT)
    }

    /// Says whether another turn had to make room that could still have been asked again.
    fn insert(&self, fingerprint: u64, arm: u64, now_s: u32) -> bool {
        let oldest = self.set(fingerprint).iter().max_by_key(|slot| {
            let entry = slot.load(Relaxed);
            if entry == 0 { u64::MAX } else { age(entry, now_s) }
        });
        let Some(slot) = oldest else { return false };
        let before = slot.swap(pack(fingerprint, now_s, arm, 0), Relaxed);
        before != 0 && before & CONTINUED == 0 && self.is_recent(before, now_s)
    }
}

/// Seconds since an entry was written.
fn age(entry: u64, now_s: u32) -> u64 {
    u64::from(now_s).wrapping_sub(entry >> SECONDS_SHIFT) & SECONDS_MASK
}

/// An entry that waits for its answer.
fn pack(fingerprint: u64, now_s: u32, arm: u64, repeats: u64) -> u64 {
    let seconds = u64::from(now_s) & SECONDS_MASK;
    fingerprint >> TAG_SHIFT << TAG_SHIFT | seconds << SECONDS_SHIFT | arm << ARM_SHIFT | repeats << REPEATS_SHIFT
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn turn(body: &Value) -> Option<Turn> {
        Turn::of_request(7, 1, body.to_string().as_bytes())
    }

    fn say(role: &str, text: &str) -> Value {
        json!({"role": role, "content": text})
    }

    #[test]
    fn what_clients_change_between_two_tries_changes_no_fingerprint() {
        let first = turn(
            &json!({"model": "a", "messages": [say("system", "It is 16:02"), say("user", "hi"), say("assistant", "Hello"), say("user", "why?")]}),
        );
        let again = turn(
            &json!({"temperature": 1, "messages": [say("developer", "It is 16:03"), say("user", " hi\n".trim()),
            {"role": "assistant", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": [{"type": "text", "text": "why?"}]}], "model": "b"}),
        );
        assert!(first.is_some_and(|turn| turn.before.is_some()));
        assert_eq!(first, again);
        let responses = turn(
            &json!({"input": [say("user", "hi"), {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "why?"}]}]}),
        );
        assert_eq!(first, responses);
        assert_eq!(turn(&json!({"input": "hi"})), turn(&json!({"messages": [say("user", "hi")]})));
    }

    #[test]
    fn other_words_another_unit_another_seed_and_another_thread_are_other_turns() {
        let body = json!({"messages": [say("user", "hi")]}).to_string();
        let base = Turn::of_request(7, 1, body.as_bytes());
        assert!(base.is_some());
        assert_ne!(base, Turn::of_request(8, 1, body.as_bytes()));
        assert_ne!(base, Turn::of_request(7, 2, body.as_bytes()));
        assert_ne!(base, turn(&json!({"messages": [say("user", "hi!")]})));
        assert_ne!(turn(&json!({"input": "hi"})), turn(&json!({"input": "hi", "previous_response_id": "resp_1"})));
        assert_ne!(
            turn(&json!({"messages": [say("user", "a"), say("user", "b")]})),
            turn(&json!({"messages": [say("user", "ab")]}))
        );
    }

    #[test]
    fn a_step_of_a_tool_loop_and_a_prefilled_answer_are_no_turns() {
        for last in [
            say("tool", "22"),
            say("assistant", "Sure,"),
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "22"}]}),
        ] {
            assert_eq!(turn(&json!({"messages": [say("user", "hi"), last]})), None);
        }
        for body in [json!({}), json!([1]), json!({"messages": 3}), json!({"prompt": "x"}), json!({"messages": []})] {
            assert_eq!(turn(&body), None, "{body}");
        }
        assert_eq!(Turn::of_request(7, 1, b"{\"messages\":[{\"role\":\"user\""), None);
    }

    #[test]
    fn only_an_answered_turn_that_was_not_gone_on_from_is_regenerated() {
        let memory = Memory::new(1024, 600);
        let (one, next) =
            (Turn { asked: 1 << 40 | 5, before: None }, Turn { asked: 2 << 40 | 9, before: Some(1 << 40 | 5) });
        let asked = |turn, arm, at| memory.asked(turn, arm, at) == Asked::Again;
        assert!(!asked(one, 2, 10), "the first time");
        assert!(!asked(one, 2, 11), "a retry or a hedge: no answer came yet");
        memory.answered(one, 12);
        assert!(!asked(one, 0, 13), "another arm had answered");
        memory.answered(one, 14);
        assert!(asked(one, 0, 20));
        memory.answered(one, 21);
        assert!(!asked(one, 0, 21 + 601), "too long ago");
        memory.answered(one, 700);
        assert!(!asked(next, 0, 705));
        assert!(!asked(one, 0, 710), "a new conversation with the same beginning");
        for at in 0..10 {
            memory.answered(next, 800 + at);
            assert_eq!(asked(next, 0, 800 + at), at < 3, "repeat {at}");
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }

        fn chance(&mut self, percent: u64) -> bool {
            self.below(100) < percent
        }
    }

    /// One request of the script: whose, its body, and whether its user pressed "try again".
    struct Request {
        user: u64,
        body: String,
        again: bool,
        answered: bool,
        at: u32,
    }

    fn body(user: u64, at: u32, history: &[(bool, String)]) -> String {
        let anthropic = user % 2 == 1;
        let messages = history.iter().enumerate().map(|(n, (by_user, text))| {
            let role = if *by_user { "user" } else { "assistant" };
            match (anthropic, n + 1 == history.len()) {
                (true, true) => json!({"role": role, "content": [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]}),
                (true, false) => json!({"role": role, "content": [{"type": "text", "text": text}]}),
                _ => say(role, text),
            }
        });
        let clock = format!("You are helpful. It is {at} s.");
        if anthropic {
            json!({"model": "m", "max_tokens": 9, "system": clock, "messages": messages.collect::<Vec<_>>()})
                .to_string()
        } else {
            json!({"model": "m", "stream": true, "messages": std::iter::once(say("system", &clock)).chain(messages).collect::<Vec<_>>()}).to_string()
        }
    }

    /// Conversations of people and machines: greetings that many begin with, tries again, retries of failed calls, hedges,
    /// edits, conversations begun anew, a probe that asks the same every ten seconds.
    fn script(seed: u64, users: u64) -> Vec<Request> {
        let mut random = Random(seed);
        let mut all = Vec::new();
        for user in 0..users {
            let mut at = random.below(1_000) as u32;
            for conversation in 0..1 + random.below(4) {
                let mut history = Vec::new();
                for exchange in 0..1 + random.below(6) {
                    let text = match (exchange, random.below(3)) {
                        (0, 0) => "hi".to_owned(),
                        (0, 1) => format!("Plan my day {}", random.below(5)),
                        _ => format!("and then? {user} {conversation} {exchange}"),
                    };
                    history.push((true, text));
                    let mut push = |at: u32, history: &[(bool, String)], again: bool, answered: bool| {
                        all.push(Request { user, body: body(user, at, history), again, answered, at });
                    };
                    if random.chance(4) {
                        push(at, &history, false, false); // it failed, and the SDK tries once more
                        at += 1;
                    }
                    push(at, &history, false, true);
                    if random.chance(10) {
                        at += 5 + random.below(60) as u32;
                        push(at, &history, true, true);
                        if random.chance(25) {
                            at += 5 + random.below(60) as u32;
                            push(at, &history, true, true);
                        }
                    } else if random.chance(5) {
                        at += 8;
                        if let Some(last) = history.last_mut() {
                            last.1.push_str(" (edited)");
                        }
                        push(at, &history, false, true);
                    }
                    history.push((false, format!("answer {}", random.below(1_000_000))));
                    at += 10 + random.below(120) as u32;
                }
                at += 30 + random.below(3_000) as u32;
            }
        }
        all.extend((0..400).map(|n| Request {
            user: users + 2,
            body: body(users + 2, 0, &[(true, "ping".to_owned())]),
            again: false,
            answered: true,
            at: n * 10,
        }));
        all.sort_by_key(|asked| asked.at);
        all
    }

    #[test]
    fn scripted_conversations_are_told_apart() {
        for seed in [1, 2, 3] {
            let script = script(seed, 600);
            let memory = Memory::new(16 * 1024, 600);
            let (mut hits, mut tries, mut wrong) = (0, 0, 0);
            for asked in &script {
                let turn = Turn::of_request(seed, asked.user, asked.body.as_bytes()).unwrap();
                let told = memory.asked(turn, 0, asked.at) == Asked::Again;
                if asked.answered {
                    memory.answered(turn, asked.at + 3);
                }
                tries += u32::from(asked.again);
                hits += u32::from(asked.again && told);
                wrong += u32::from(!asked.again && told);
            }
            let others = script.len() as u32 - tries;
            assert!(tries > 300 && f64::from(hits) >= 0.95 * f64::from(tries), "seed {seed}: {hits} of {tries}");
            assert!(f64::from(wrong) <= 0.01 * f64::from(others), "seed {seed}: {wrong} of {others}");
            assert_eq!(memory.kept(), 16 * 1024 * 8);
        }
    }
}
