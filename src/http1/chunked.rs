//! The chunked transfer coding (RFC 9112 section 7.1), read strictly: another reader must not see other chunks. Of an answer,
//! which nobody smuggles past us, white space behind a size is read over, as other proxies do: servers pad their sizes.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Bytes that a body's chunk extensions may take together; they are read over.
const EXTENSIONS_MOST: usize = 16 << 10;
/// Longest line with a chunk's size.
const LINE_MOST: usize = 4 << 10;
/// Longest trailer section.
const TRAILERS_MOST: usize = 16 << 10;
/// Most trailer fields.
const TRAILER_FIELDS: usize = 64;

/// What came of a look at the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes of the body.
    Data(Bytes),
    /// The trailer section, which is the end.
    Trailers(HeaderMap),
    /// The end, without trailers.
    End,
    /// More input is needed.
    More,
}

/// The body is not chunked as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Where the reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunked {
    at: At,
    extensions: usize,
    padded: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

impl Chunked {
    /// Of an answer: sizes may be padded.
    #[must_use]
    pub fn of_an_answer() -> Self {
        Self { padded: true, ..Self::default() }
    }

    /// Bytes of the chunk under way that have not come yet.
    #[must_use]
    pub fn owed(&self) -> u64 {
        if let At::Data(left) = self.at { left } else { 0 }
    }

    /// Whether the end has been seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// The next piece. After [`Step::Data`] the reader has already looked past the chunk's end as far as the input goes,
    /// so that the last chunk is known to be the last when its end came with it.
    ///
    /// # Errors
    /// The input is not chunked.
    pub fn step(&mut self, input: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            match self.at {
                At::Size => match self.size(input)? {
                    Some(0) => self.at = At::Trailers,
                    Some(size) => self.at = At::Data(size),
                    None => return Ok(Step::More),
                },
                At::Data(left) => {
                    if input.is_empty() {
                        return Ok(Step::More);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(take).freeze();
                    let left = left - take as u64;
                    self.at = if left == 0 { At::DataEnd } else { At::Data(left) };
                    self.look_ahead(input);
                    return Ok(Step::Data(data));
                }
                At::DataEnd => match data_end(input)? {
                    true => self.at = At::Size,
                    false => return Ok(Step::More),
                },
                At::Trailers => {
                    if input.starts_with(b"\r\n") {
                        drop(input.split_to(2));
                        self.at = At::Done;
                        return Ok(Step::End);
                    }
                    if input.len() > 1 && input[0] == b'\r' {
                        return Err(Malformed("a carriage return without a line feed"));
                    }
                    let Some(end) = trailers_end(input)? else { return Ok(Step::More) };
                    let trailers = trailers(&input.split_to(end).freeze())?;
                    self.at = At::Done;
                    return Ok(Step::Trailers(trailers));
                }
                At::Done => return Ok(Step::End),
            }
        }
    }

    /// The plain end behind a chunk, where it has come already.
    fn look_ahead(&mut self, input: &mut BytesMut) {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        if self.at == At::DataEnd && input.starts_with(END) {
            drop(input.split_to(END.len()));
            self.at = At::Done;
        }
    }

    fn size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, Malformed> {
        let look = &input[..input.len().min(LINE_MOST)];
        let Some(end) = memchr::memchr(b'\n', look) else {
            return if look.len() == LINE_MOST { Err(Malformed("a chunk's size line is too long")) } else { Ok(None) };
        };
        let Some(line) = input[..end].strip_suffix(b"\r") else {
            return Err(Malformed("a chunk's size line does not end with carriage return and line feed"));
        };
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let zeros = line.iter().take_while(|b| **b == b'0').count();
        if digits == 0 || digits - zeros > 16 {
            return Err(Malformed("a chunk's size is not a hexadecimal number"));
        }
        let mut size = 0u64;
        for digit in &line[zeros..digits] {
            size = (size << 4) | u64::from(hex(*digit));
        }
        if size > u64::MAX >> 1 {
            return Err(Malformed("a chunk is larger than any"));
        }
        let rest = &line[digits..];
        let extended = rest.trim_ascii_start().first().is_none_or(|b| *b == b';');
        let clean = rest.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
        let padding = !rest.is_empty() && rest.trim_ascii().is_empty();
        if !extended || !clean || (padding && !self.padded) {
            return Err(Malformed("a chunk's size is followed by something else than extensions"));
        }
        self.extensions += rest.len();
        if self.extensions > EXTENSIONS_MOST {
            return Err(Malformed("the chunk extensions are too long"));
        }
        drop(input.split_to(end + 1));
        Ok(Some(size))
    }
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

fn data_end(input: &mut BytesMut) -> Result<bool, Malformed> {
    let wrong = Err(Malformed("a chunk is longer than its size says"));
    match (input.first(), input.get(1)) {
        (None, _) | (Some(b'\r'), None) => Ok(false),
        (Some(b'\r'), Some(b'\n')) => {
            drop(input.split_to(2));
            Ok(true)
        }
        _ => wrong,
    }
}

fn trailers_end(input: &[u8]) -> Result<Option<usize>, Malformed> {
    let look = &input[..input.len().min(TRAILERS_MOST)];
    match super::head::find_end(look, 0) {
        Err(_) => Err(Malformed("a trailer line does not end with carriage return and line feed")),
        Ok(None) if look.len() == TRAILERS_MOST => Err(Malformed("the trailers are too long")),
        Ok(end) => Ok(end),
    }
}

fn trailers(section: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    let wrong = Malformed("a trailer is not a field");
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut fields) else {
        return Err(wrong);
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| wrong)?;
        let value = HeaderValue::from_maybe_shared(section.slice_ref(field.value)).map_err(|_| wrong)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All data joined, the trailers, and whether the end was seen; fed in pieces of `size` bytes.
    fn read(text: &str, size: usize) -> Result<(String, Option<HeaderMap>, bool), Malformed> {
        let (mut chunked, mut input) = (Chunked::default(), BytesMut::new());
        let (mut all, mut trailers) = (Vec::new(), None);
        for piece in text.as_bytes().chunks(size) {
            input.extend_from_slice(piece);
            loop {
                match chunked.step(&mut input)? {
                    Step::Data(data) => all.extend_from_slice(&data),
                    Step::Trailers(found) => trailers = Some(found),
                    Step::End | Step::More => break,
                }
            }
        }
        Ok((String::from_utf8(all).unwrap(), trailers, chunked.is_done()))
    }

    #[test]
    fn a_body_is_the_same_however_its_bytes_come() {
        let text = "5;a=b;c\r\nhello\r\nA\r\n, 10 bytes\r\n0\r\nX-Sum: 7\r\n\r\n";
        for size in 1..text.len() {
            let (all, trailers, done) = read(text, size).unwrap();
            assert_eq!((all.as_str(), done), ("hello, 10 bytes", true), "{size}");
            assert_eq!(trailers.unwrap()["x-sum"], "7");
        }
    }

    #[test]
    fn the_end_is_known_with_the_last_bytes_when_it_came_with_them() {
        let mut chunked = Chunked::default();
        let mut input = BytesMut::from("2\r\nok\r\n0\r\n\r\nGET");
        assert_eq!(chunked.step(&mut input), Ok(Step::Data(Bytes::from_static(b"ok"))));
        assert!(chunked.is_done());
        assert_eq!(&input[..], b"GET");
    }

    #[test]
    fn what_two_readers_might_see_differently_is_refused() {
        for text in [
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n",
            " 3\r\nabc\r\n",
            "3 \r\nabc\r\n",
            "\r\n",
            "g\r\n",
            "3;\u{1}\r\nabc\r\n",
            "11111111111111111\r\n",
            "ffffffffffffffff\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
            "0\r\n\r\r\n",
            "0\r\nA : b\r\n\r\n",
        ] {
            assert!(read(text, 7).is_err(), "{text:?}");
            assert!(read(text, 1).is_err(), "{text:?} in single bytes");
        }
    }

    #[test]
    fn what_the_grammar_allows_is_read() {
        for text in [
            "3;a\r\nabc\r\n0\r\n\r\n",
            "3 ; a = \"b; c\\\"d\" ;e\r\nabc\r\n0;f=\"\"\r\n\r\n",
            "3\t;\ta=b\r\nabc\r\n000 ;x\r\nA: b\r\n\r\n",
            "00000000000000000000000000000003\r\nabc\r\n00000000000000000000000000000000\r\n\r\n",
        ] {
            for size in [1, 7, 999] {
                let (all, _, done) = read(text, size).unwrap_or_else(|e| panic!("{text:?}: {e}"));
                assert_eq!((all.as_str(), done), ("abc", true), "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn sizes_of_an_answer_may_be_padded() {
        for (padding, good) in [("  ", true), (" \t ", true), (" x", false), (" 3", false)] {
            let mut input = BytesMut::from(format!("3{padding}\r\nabc\r\n").as_bytes());
            assert_eq!(Chunked::of_an_answer().step(&mut input).is_ok(), good, "{padding:?}");
        }
    }

    #[test]
    fn what_a_chunk_still_owes_is_known_before_it_comes() {
        let mut chunked = Chunked::default();
        assert_eq!(chunked.step(&mut BytesMut::from("ff\r\n")), Ok(Step::More));
        assert_eq!(chunked.owed(), 255);
        assert!(chunked.step(&mut BytesMut::from("abc")).is_ok());
        assert_eq!(chunked.owed(), 252);
    }

    #[test]
    fn lines_extensions_and_trailers_have_bounds() {
        let long = "a".repeat(LINE_MOST);
        assert!(read(&format!("1;{long}\r\nx\r\n"), 9_999).is_err());
        let many: String = (0..5).map(|_| format!("1;{}\r\nx\r\n", "e".repeat(LINE_MOST - 100))).collect();
        assert!(read(&many, 9_999).is_err());
        assert!(read(&format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(LINE_MOST)), 9_999).is_err());
        assert!(read(&format!("0\r\nA: {}\r\n\r\n", "x".repeat(TRAILERS_MOST)), 99_999).is_err());
    }
}
