//! Which language the opening of an answer is in, of those most written in Latin letters; any other, and what cannot be told
//! (a few words, most JSON), is none. Code is told by its words, which are English more often than not.
//!
//! An opening is the first [`OPENING_BYTES`] of the answer's letters: more made none of the texts that this was tried on any
//! surer. They are kept until the answer's end, where the language is asked for once, and are gone with its reader. By
//! whatlang: trigrams against the profiles of [`KNOWN`], about 40 µs. With the seven told languages alone it takes half of
//! that, and calls Swedish German and Turkish French; with all of whatlang's 37 nearly twice as long, and is less often sure.

use std::sync::LazyLock;

use whatlang::{Detector, Lang};

use crate::names::Script;

/// Of the answer's letters, with single blanks between words.
const OPENING_BYTES: usize = 200;
/// Of whatlang's scale, where 0.9 is "reliable". Of 99 pieces of 100 letters 15 stay untold there, 6 here; at both no piece
/// of 30 letters or more was taken for another language (at 0.2 some were).
const CONFIDENCE: f64 = 0.4;
/// Fewer say nothing.
const LETTERS_LEAST: usize = 24;

/// The languages that are told, and those of the same letters that must not be taken for them.
const KNOWN: [Lang; 19] = [
    Lang::Eng,
    Lang::Spa,
    Lang::Fra,
    Lang::Deu,
    Lang::Por,
    Lang::Ita,
    Lang::Nld,
    Lang::Swe,
    Lang::Nob,
    Lang::Dan,
    Lang::Pol,
    Lang::Tur,
    Lang::Vie,
    Lang::Ind,
    Lang::Ron,
    Lang::Ces,
    Lang::Cat,
    Lang::Fin,
    Lang::Hun,
];

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| Detector::with_allowlist(KNOWN.to_vec()));

/// The first letters of one answer, however its text is cut.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    letters: Vec<u8>,
}

impl Opening {
    /// Takes in the next bytes of the text. What is no letter parts words.
    pub(crate) fn feed(&mut self, text: &[u8]) {
        for &byte in text {
            if self.letters.len() >= OPENING_BYTES {
                return;
            }
            if byte.is_ascii_alphabetic() || !byte.is_ascii() || byte == b'\'' {
                self.letters.push(byte);
            } else if self.letters.last().is_some_and(|last| *last != b' ') {
                self.letters.push(b' ');
            }
        }
    }

    /// Bytes of memory kept.
    pub(crate) fn kept(&self) -> usize {
        self.letters.capacity()
    }

    /// The language, where it is told.
    pub(crate) fn language(&self) -> Option<Script> {
        // The last letter may be cut in two.
        let text = self.letters.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        if text.len() < LETTERS_LEAST {
            return None;
        }
        let found = DETECTOR.detect(text).filter(|found| found.confidence() > CONFIDENCE)?;
        Some(match found.lang() {
            Lang::Eng => Script::English,
            Lang::Spa => Script::Spanish,
            Lang::Fra => Script::French,
            Lang::Deu => Script::German,
            Lang::Por => Script::Portuguese,
            Lang::Ita => Script::Italian,
            Lang::Nld => Script::Dutch,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as assistants give them, by language.
    const SAID: [(Option<Script>, &[&str]); 8] = [
        (
            Some(Script::English),
            &[
                "Sure! To reset your password, open the settings page, choose \"Security\", and click \"Change password\".",
                "The function returns early because the list is empty. You can fix it by checking the length first.",
                "Here are three ideas for dinner tonight: a quick pasta with garlic and tomatoes, or a warm lentil salad.",
                "```rust\nlet sum: u64 = list.iter().sum();\n```\nThis adds up all of the numbers in the list and keeps the result in `sum`.",
                // Code is told by its words.
                "SELECT u.id, u.name, COUNT(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY u.id;",
            ],
        ),
        (
            Some(Script::German),
            &[
                "Gerne! Um Ihr Passwort zurückzusetzen, öffnen Sie die Einstellungen und klicken Sie auf „Passwort ändern“.",
                "Die Funktion kehrt zu früh zurück, weil die Liste leer ist. Du kannst das beheben, indem du die Länge prüfst.",
                "Es tut mir leid, aber dabei kann ich nicht helfen. Wenn Sie in Gefahr sind, wenden Sie sich an den Notruf.",
            ],
        ),
        (
            Some(Script::Spanish),
            &[
                "¡Claro! Para restablecer tu contraseña, abre la página de configuración y pulsa «Cambiar contraseña».",
                "La función termina antes de tiempo porque la lista está vacía. Puedes arreglarlo comprobando la longitud.",
                "Su pedido fue enviado el lunes y debería llegar en un plazo de tres días laborables.",
            ],
        ),
        (
            Some(Script::French),
            &[
                "Bien sûr ! Pour réinitialiser votre mot de passe, ouvrez la page des paramètres et cliquez sur « Sécurité ».",
                "La fonction s'arrête trop tôt parce que la liste est vide. Vous pouvez vérifier d'abord la longueur.",
                "Je suis désolé, mais je ne peux pas vous aider avec cette demande. Parlez-en à une personne de confiance.",
            ],
        ),
        (
            Some(Script::Portuguese),
            &[
                "Claro! Para redefinir a sua senha, abra a página de configurações e clique em \"Alterar senha\".",
                "A função termina cedo demais porque a lista está vazia. Você pode corrigir isso verificando o tamanho.",
                "O seu pedido foi enviado na segunda-feira e deve chegar dentro de três dias úteis.",
            ],
        ),
        (
            Some(Script::Italian),
            &[
                "Certo! Per reimpostare la password, apri la pagina delle impostazioni e fai clic su «Cambia password».",
                "La funzione termina troppo presto perché la lista è vuota. Puoi correggerla controllando la lunghezza.",
                "Mi dispiace, ma non posso aiutarti con questa richiesta. Rivolgiti a una persona di fiducia.",
            ],
        ),
        (
            Some(Script::Dutch),
            &[
                "Natuurlijk! Om je wachtwoord opnieuw in te stellen, open je de instellingen en kies je \"Beveiliging\".",
                "De functie stopt te vroeg omdat de lijst leeg is. Je kunt dat oplossen door eerst de lengte te controleren.",
                "Het spijt me, maar daar kan ik niet bij helpen. Praat dan met iemand die je vertrouwt.",
            ],
        ),
        (
            None,
            &[
                "Självklart! För att återställa ditt lösenord öppnar du inställningarna och klickar på \"Ändra lösenord\".",
                "Oczywiście! Aby zresetować hasło, otwórz stronę ustawień i kliknij „Zmień hasło”.",
                "Elbette! Parolanızı sıfırlamak için ayarlar sayfasını açın ve \"Güvenlik\" seçeneğini seçin.",
                "Được thôi! Để đặt lại mật khẩu, hãy mở trang cài đặt rồi nhấn \"Đổi mật khẩu\".",
                "Selvfølgelig! For at nulstille din adgangskode skal du åbne indstillingerne og vælge \"Sikkerhed\".",
                "Tentu! Untuk mengatur ulang kata sandi Anda, buka halaman pengaturan, lalu klik \"Ubah kata sandi\".",
                "Desigur! Pentru a vă reseta parola, deschideți pagina de setări și faceți clic pe „Schimbă parola”.",
                "fn main() { let args: Vec<String> = std::env::args().collect(); for (i, arg) in args.iter().enumerate() {} }",
                "{\"id\": 4711, \"status\": \"ok\", \"tags\": [\"a\", \"b\"], \"at\": \"2026-01-02\", \"url\": \"https://a.example/x?y=1\"}",
                "Yes, that is right.",
                "Ja, gerne!",
                "OK",
                "1, 2, 3, 5, 8, 13, 21, 34",
                "",
            ],
        ),
    ];

    fn told(text: &[u8], size: usize) -> Option<Script> {
        let mut opening = Opening::default();
        text.chunks(size).for_each(|piece| opening.feed(piece));
        assert!(opening.kept() <= 2 * OPENING_BYTES, "{} bytes kept", opening.kept());
        opening.language()
    }

    #[test]
    fn each_language_is_told_and_no_other_is_taken_for_it() {
        let texts = SAID.iter().flat_map(|(expect, texts)| texts.iter().map(|text| (*expect, *text)));
        let missed: Vec<_> = texts.filter(|(expect, text)| told(text.as_bytes(), 7) != *expect).collect();
        assert!(missed.is_empty(), "{missed:#?}");
    }

    #[test]
    fn the_same_is_told_however_the_text_is_cut_and_whatever_comes_behind_its_opening() {
        for (expect, text) in SAID.iter().flat_map(|(expect, texts)| texts.iter().map(|text| (*expect, *text))) {
            for size in [1, 2, 3, 1_000] {
                assert_eq!(told(text.as_bytes(), size), expect, "{text} by {size}");
            }
        }
        let german = SAID[1].1.concat();
        assert!(german.len() > OPENING_BYTES);
        for behind in ["the order is on its way ", "{\"a\": 1}", "é"] {
            let text = format!("{german}{}", behind.repeat(5_000));
            assert_eq!(told(text.as_bytes(), 40), Some(Script::German), "{behind}");
        }
    }

    #[test]
    fn any_bytes_at_all_are_taken_in() {
        for seed in 1..=255u8 {
            let noise: Vec<u8> =
                (0..600u32).map(|n| (n.wrapping_mul(u32::from(seed) * 2_654_435) >> 9) as u8).collect();
            let _any = told(&noise, 5);
        }
        for letter in ["é", "ß", "Ꞑ", "İ", "ﬀ", "'", "ʻ", "·"] {
            let _any = told(letter.repeat(300).as_bytes(), 3);
        }
    }
}
