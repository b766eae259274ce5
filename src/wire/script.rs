//! Which writing an answer is in: letters counted by class, the most common class told; and of Latin letters the language,
//! where the answer's opening tells it ([`Opening`]).

use super::language::Opening;
use crate::names::Script;

/// Fewer letters say nothing.
const LETTERS_LEAST: u32 = 8;
/// Classes of letters; a letter's place in it is found at each letter, so the common ones come first.
const CLASSES: [Script; 8] = [
    Script::Latin,
    Script::Cyrillic,
    Script::Arabic,
    Script::Indic,
    Script::Han,
    Script::Kana,
    Script::Hangul,
    Script::Other,
];

/// Letters of one answer by class, however its text is cut.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// In the order of [`CLASSES`].
    counts: [u32; CLASSES.len()],
    /// The letter at hand: its value so far, and how many bytes it still needs.
    letter: (u32, u8),
    opening: Opening,
}

impl Letters {
    /// Takes in the next bytes of the text.
    pub(crate) fn feed(&mut self, text: &[u8]) {
        self.opening.feed(text);
        for &byte in text {
            match (byte, self.letter) {
                (b'a'..=b'z' | b'A'..=b'Z', _) => self.count(Script::Latin),
                (0x80..=0xBF, (so_far, left @ 1..)) => {
                    self.letter = (so_far << 6 | u32::from(byte & 0x3F), left - 1);
                    if left == 1
                        && let Some(script) = class(self.letter.0)
                    {
                        self.count(script);
                    }
                }
                (0xC0..=0xDF, _) => self.letter = (u32::from(byte & 0x1F), 1),
                (0xE0..=0xEF, _) => self.letter = (u32::from(byte & 0x0F), 2),
                (0xF0..=0xF7, _) => self.letter = (u32::from(byte & 0x07), 3),
                _ => self.letter = (0, 0),
            }
        }
    }

    /// Bytes of memory kept beyond itself.
    pub(crate) fn kept(&self) -> usize {
        self.opening.kept()
    }

    fn count(&mut self, script: Script) {
        let place = CLASSES.iter().position(|class| *class == script);
        if let Some(count) = place.and_then(|place| self.counts.get_mut(place)) {
            *count = count.saturating_add(1);
        }
    }

    /// The writing; `None` where there were too few letters. Japanese is told by its kana, however many Han are among them.
    pub(crate) fn script(&self) -> Option<Script> {
        let counted = CLASSES.into_iter().zip(self.counts);
        let letters = self.counts.iter().fold(0, |sum: u32, count| sum.saturating_add(*count));
        let of = |wanted: Script| counted.clone().find(|(script, _)| *script == wanted).map_or(0, |(_, count)| count);
        let (kana, han) = (of(Script::Kana), of(Script::Han).saturating_add(of(Script::Kana)));
        let japanese = kana.saturating_mul(10) >= han;
        let all = counted.clone().map(|(script, count)| match script {
            Script::Han => (script, if japanese { 0 } else { han }),
            Script::Kana => (script, if japanese { han } else { 0 }),
            other => (other, count),
        });
        let (script, _) = all.max_by_key(|(_, count)| *count).filter(|_| letters >= LETTERS_LEAST)?;
        Some(if script == Script::Latin { self.opening.language().unwrap_or(Script::Latin) } else { script })
    }
}

/// The class of a letter beyond ASCII; `None` for signs, marks and pictures.
const fn class(letter: u32) -> Option<Script> {
    Some(match letter {
        0xC0..=0x24F if letter != 0xD7 && letter != 0xF7 => Script::Latin,
        0x1E00..=0x1EFF => Script::Latin,
        0x400..=0x52F => Script::Cyrillic,
        0x590..=0x6FF | 0x750..=0x77F | 0x8A0..=0x8FF | 0xFB1D..=0xFDFF | 0xFE70..=0xFEFC => Script::Arabic,
        0x900..=0xDFF => Script::Indic,
        0x3040..=0x30FF => Script::Kana,
        0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x323AF => Script::Han,
        0x1100..=0x11FF | 0x3130..=0x318F | 0xAC00..=0xD7AF => Script::Hangul,
        0x370..=0x3FF | 0x530..=0x58F | 0xE00..=0x10FF | 0x1200..=0x17FF => Script::Other,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_writing_is_told_however_the_text_is_cut() {
        for (text, expect) in [
            ("The quick brown fox", Some(Script::Latin)),
            ("Le cœur a ses raisons que la raison ne connaît point, vraiment.", Some(Script::French)),
            ("Съешь же ещё этих мягких французских булок", Some(Script::Cyrillic)),
            ("نص حكيم له سر قاطع وذو شأن عظيم", Some(Script::Arabic)),
            ("ऋषियों को सताने वाले दुष्ट राक्षसों", Some(Script::Indic)),
            ("天地玄黃宇宙洪荒日月盈昃辰宿列張", Some(Script::Han)),
            ("いろはにほへと散りぬるを我が世誰ぞ", Some(Script::Kana)),
            ("키스의 고유조건은 입술끼리 만나야", Some(Script::Hangul)),
            ("Ξεσκεπάζω την ψυχοφθόρα βδελυγμία", Some(Script::Other)),
            ("12 + 30 = 42 😀😀😀😀😀😀😀😀😀", None),
            ("hi", None),
            ("", None),
        ] {
            for size in [1, 2, 3, 7, 1_000] {
                let mut letters = Letters::default();
                text.as_bytes().chunks(size).for_each(|piece| letters.feed(piece));
                assert_eq!(letters.script(), expect, "{text} by {size}");
            }
        }
        let mut broken = Letters::default();
        broken.feed(b"\xff\xe5\xa4abcdefgh\x80\x80\xf0\x9f");
        assert_eq!(broken.script(), Some(Script::Latin));
    }
}
