//! Splits a byte stream into the messages of Amazon's binary event stream (`application/vnd.amazon.eventstream`), wherever
//! the chunks are cut.
//!
//! Source: the Smithy page "Amazon Event Stream Specification". A message is: its length and that of its headers (both u32,
//! big-endian), a CRC32 of these eight bytes, headers, payload, a CRC32 of all before it. Both sums are checked. A message
//! that lies whole in a chunk is lent out of it without a copy; one that is split goes through [`Hold`], which is bounded.
//! What does not add up ends the reading for good: behind a wrong length no message can be found again.

use super::sse::{Hold, Piece, WHOLE_BYTES_MAX};

/// Lengths and their sum.
const PRELUDE_BYTES: usize = 12;
/// The sum at the end.
const SUM_BYTES: usize = 4;
/// The longest message that Amazon's own readers take (some stop at 16 MiB).
const MESSAGE_BYTES_MAX: u32 = 24 * 1024 * 1024;
/// The most headers that they take.
const HEADERS_BYTES_MAX: u32 = 128 * 1024;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// `:message-type`: `event`, `exception` or `error`.
    pub(crate) kind: &'a [u8],
    /// `:event-type`, or `:exception-type`.
    pub(crate) name: &'a [u8],
    /// `:content-type` of the payload.
    pub(crate) media: &'a [u8],
    pub(crate) payload: Piece<'a>,
}

/// The bytes are no event stream, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// The incremental splitter.
#[derive(Debug)]
pub(crate) struct Messages {
    /// The message under way, as far as it came in chunks before.
    hold: Hold,
    /// Its bytes so far, and its length once that is known.
    came: usize,
    length: Option<Lengths>,
    /// The sum of its bytes so far, but for the last [`SUM_BYTES`].
    sum: crc32fast::Hasher,
}

#[derive(Clone, Copy, Debug)]
struct Lengths {
    message: usize,
    headers: usize,
}

impl Messages {
    pub(crate) fn new() -> Messages {
        Messages { hold: Hold::new(WHOLE_BYTES_MAX), came: 0, length: None, sum: crc32fast::Hasher::new() }
    }

    /// Bytes of memory kept for a message under way.
    pub(crate) fn kept(&self) -> usize {
        self.hold.kept()
    }

    /// Takes the next chunk in and hands each message that ends in it to `sink`.
    ///
    /// # Errors
    /// Bytes that are no message. No more may be fed then.
    pub(crate) fn feed(&mut self, chunk: &[u8], mut sink: impl FnMut(Message<'_>)) -> Result<(), Damaged> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.came == 0
                && let Some(lengths) = Lengths::of(rest)?
                && let Some((message, after)) = rest.split_at_checked(lengths.message)
            {
                let summed = message.get(..lengths.message - SUM_BYTES).unwrap_or_default();
                let piece = Piece::of(message, WHOLE_BYTES_MAX);
                rest = after;
                deliver(piece, lengths, crc32fast::hash(summed), &mut sink)?;
                continue;
            }
            let wanted = self.length.map_or(PRELUDE_BYTES, |lengths| lengths.message) - self.came;
            let (now, after) = rest.split_at(wanted.min(rest.len()));
            rest = after;
            self.keep(now);
            match self.length {
                None if self.came == PRELUDE_BYTES => {
                    let (Piece::Whole(prelude) | Piece::Ends(prelude, _)) = self.hold.piece();
                    self.length = Lengths::of(prelude)?;
                    self.sum.update(prelude);
                }
                Some(lengths) if self.came == lengths.message => {
                    let sum = std::mem::take(&mut self.sum).finalize();
                    deliver(self.hold.piece(), lengths, sum, &mut sink)?;
                    self.hold.clear();
                    (self.came, self.length) = (0, None);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Of the message under way; no more than to its end.
    fn keep(&mut self, bytes: &[u8]) {
        if let Some(lengths) = self.length {
            let summed = (lengths.message - SUM_BYTES).saturating_sub(self.came).min(bytes.len());
            self.sum.update(bytes.get(..summed).unwrap_or_default());
        }
        self.hold.push(bytes);
        self.came += bytes.len();
    }
}

impl Lengths {
    /// Those that `bytes` begin with; `None` where not all of them are there.
    fn of(bytes: &[u8]) -> Result<Option<Lengths>, Damaged> {
        let Some((prelude, _)) = bytes.split_first_chunk::<PRELUDE_BYTES>() else { return Ok(None) };
        let ([a, b, c, d, e, f, g, h], [w, x, y, z]) = (
            [prelude[0], prelude[1], prelude[2], prelude[3], prelude[4], prelude[5], prelude[6], prelude[7]],
            [prelude[8], prelude[9], prelude[10], prelude[11]],
        );
        let (message, headers) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let least = (PRELUDE_BYTES + SUM_BYTES) as u32 + headers.min(HEADERS_BYTES_MAX);
        let sound = crc32fast::hash(&[a, b, c, d, e, f, g, h]) == u32::from_be_bytes([w, x, y, z])
            && headers <= HEADERS_BYTES_MAX
            && (least..=MESSAGE_BYTES_MAX).contains(&message);
        if sound { Ok(Some(Lengths { message: message as usize, headers: headers as usize })) } else { Err(Damaged) }
    }
}

/// Checks a message whose bytes sum up to `sum`, and hands it on. Of one beyond the bound whose headers are not in its head
/// nothing is told.
fn deliver(piece: Piece<'_>, lengths: Lengths, sum: u32, sink: &mut impl FnMut(Message<'_>)) -> Result<(), Damaged> {
    let (Piece::Whole(tail) | Piece::Ends(_, tail)) = piece;
    let (tail, told) = tail.split_last_chunk::<SUM_BYTES>().ok_or(Damaged)?;
    if u32::from_be_bytes(*told) != sum {
        return Err(Damaged);
    }
    let body =
        |bytes| <[u8]>::get(bytes, PRELUDE_BYTES..).and_then(|body: &[u8]| body.split_at_checked(lengths.headers));
    let (headers, payload) = match piece {
        Piece::Whole(_) => body(tail).map(|(headers, payload)| (headers, Piece::Whole(payload))).ok_or(Damaged)?,
        Piece::Ends(head, _) => match body(head) {
            Some((headers, payload)) => (headers, Piece::Ends(payload, tail)),
            None => return Ok(()),
        },
    };
    sink(message(headers, payload).ok_or(Damaged)?);
    Ok(())
}

/// Reads the headers that tell what a message is; `None` where they are no headers.
fn message<'a>(mut headers: &'a [u8], payload: Piece<'a>) -> Option<Message<'a>> {
    let mut message = Message { kind: b"", name: b"", media: b"", payload };
    while let Some((length, rest)) = headers.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = match kind {
            0 | 1 => (0, rest),
            2 => (1, rest),
            3 => (2, rest),
            4 => (4, rest),
            5 | 8 => (8, rest),
            6 | 7 => {
                let (length, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            9 => (16, rest),
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        headers = rest;
        match name {
            b":message-type" => message.kind = value,
            b":event-type" | b":exception-type" => message.name = value,
            b":content-type" => message.media = value,
            _ => {}
        }
    }
    Some(message)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message with string headers.
    pub(crate) fn packed(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let headers: Vec<u8> = headers
            .iter()
            .flat_map(|(name, value)| {
                let value = [&(value.len() as u16).to_be_bytes(), value.as_bytes()].concat();
                [&[name.len() as u8], name.as_bytes(), &[7], &value].concat()
            })
            .collect();
        raw(&headers, payload)
    }

    fn raw(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let length = PRELUDE_BYTES + headers.len() + payload.len() + SUM_BYTES;
        let mut bytes = [(length as u32).to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes.extend(headers);
        bytes.extend(payload);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    fn event(name: &str, payload: &str) -> Vec<u8> {
        let headers = [(":event-type", name), (":content-type", "application/json"), (":message-type", "event")];
        packed(&headers, payload.as_bytes())
    }

    /// Kind, name, and payload (or its ends) of all messages, by chunks of `size`.
    fn split(bytes: &[u8], size: usize) -> (Vec<String>, Result<(), Damaged>) {
        let (mut messages, mut seen) = (Messages::new(), Vec::new());
        let fed = bytes.chunks(size).try_for_each(|chunk| {
            messages.feed(chunk, |message| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let payload = match message.payload {
                    Piece::Whole(payload) => text(payload),
                    Piece::Ends(head, tail) => format!("{}..{}", head.len(), tail.len()),
                };
                seen.push(format!("{} {} {payload}", text(message.kind), text(message.name)));
            })
        });
        assert!(messages.kept() <= 2 * WHOLE_BYTES_MAX + 64 * 1024, "{} bytes kept", messages.kept());
        (seen, fed)
    }

    #[test]
    fn a_message_of_amazon_s_own_tests_is_read() {
        let hex = "0000003d0000002007fd83960c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e7b27666f6f273a27626172277d8d9c08b1";
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        assert_eq!(split(&bytes, 1_000), (vec!["  {'foo':'bar'}".to_owned()], Ok(())));
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(WHOLE_BYTES_MAX + 5));
        // 14 + 19 + … of headers lie before the payload's head.
        let stream = [event("a", "{}"), event("b", ""), event("long", &long), event("c", "{\"d\":1}")].concat();
        let (whole, fed) = split(&stream, stream.len());
        assert_eq!((whole.len(), fed), (4, Ok(())));
        assert_eq!((&*whole[0], &*whole[1], &*whole[3]), ("event a {}", "event b ", "event c {\"d\":1}"));
        assert!(whole[2].starts_with("event long ") && whole[2].ends_with("..16380"), "{}", whole[2]);
        for size in [1, 2, 3, 11, 12, 13, 61, 4_096, 100_000] {
            assert_eq!(split(&stream, size), (whole.clone(), Ok(())), "by {size}");
        }
    }

    #[test]
    fn every_kind_of_header_is_passed_over() {
        let mut headers = Vec::new();
        for (kind, value) in [(0u8, 0usize), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16)] {
            headers.extend([1, b'x', kind]);
            headers.extend(vec![7; value]);
        }
        headers.extend([1, b'x', 6, 0, 2, 1, 2]);
        headers.extend([1, b'x', 7, 0, 0]);
        headers.extend(b"\x0b:event-type\x07\x00\x01e");
        assert_eq!(split(&raw(&headers, b"p"), 5), (vec![" e p".to_owned()], Ok(())));
        for broken in
            [&b"\x05ab"[..], b"\x01x", b"\x01x\x0a", b"\x01x\x07\x00", b"\x01x\x07\x00\x05a", b"\x01x\x09\x00"]
        {
            assert_eq!(split(&raw(broken, b"p"), 5).1, Err(Damaged), "{broken:?}");
        }
    }

    #[test]
    fn what_does_not_add_up_ends_the_reading() {
        let good = event("a", "{}");
        for at in 0..good.len() {
            let mut bad = [good.clone(), event("b", "{}")].concat();
            bad[at] ^= 0x10;
            for size in [1, 7, 1_000] {
                assert_eq!(split(&bad, size), (Vec::new(), Err(Damaged)), "byte {at}, by {size}");
            }
        }
        let prelude = |message: u32, headers: u32| {
            let mut bytes = [message.to_be_bytes(), headers.to_be_bytes()].concat();
            bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
            bytes
        };
        for (message, headers, sound) in [
            (0, 0, false),
            (15, 0, false),
            (17, 2, false),
            (100, 85, false),
            (100, 84, true),
            (u32::MAX, 0, false),
            (u32::MAX, u32::MAX, false),
            (MESSAGE_BYTES_MAX + 1, 0, false),
            (MESSAGE_BYTES_MAX, HEADERS_BYTES_MAX, true),
            (MESSAGE_BYTES_MAX, HEADERS_BYTES_MAX + 1, false),
        ] {
            let fed = split(&prelude(message, headers), 12).1;
            assert_eq!(fed.is_ok(), sound, "{message} with {headers}");
        }
    }
}
