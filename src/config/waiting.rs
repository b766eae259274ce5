//! Keys that are checked but not yet heeded by this version: said aloud at start and by `serin check`, so that nobody
//! relies on them.

use super::model::Config;

/// One sentence for each such key that the file sets.
#[must_use]
pub fn waiting(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    let mut say = |key: String, instead: &str| {
        all.push(format!("{key} is checked but not yet in force in this version: {instead}"))
    };
    for notify in config.notify.iter().filter(|notify| notify.kind == super::NotifyKind::Email) {
        say(format!("notify.{}", notify.name), "no mail is sent; use another kind beside it");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "[listeners.e]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[rollouts.c]\nunit = [\"ip\"]\nstable = { version = \"a\", endpoints = [\"http://127.0.0.1:1\"] }\ncanary = { version = \"b\", endpoints = [\"http://127.0.0.1:2\"] }\n";

    #[test]
    fn what_is_not_heeded_is_said() {
        let read = |text: &str| waiting(&crate::config::parse(text, "t", &|_| None).unwrap());
        assert!(read(PLAIN).is_empty());
        let said = read(&format!(
            "{PLAIN}[rollouts.c.evaluator]\ndrill_every = \"1h\"\n[notify.ops]\nkind = \"webhook\"\nurl = \"https://a.example/h\"\n"
        ));
        assert_eq!(said, Vec::<String>::new());
        let mail = "[notify.m]\nkind = \"email\"\nurl = \"smtps://a\"\nfrom = \"a@b\"\nto = \"Ops <c@d>\"\n";
        let said = read(&format!("{PLAIN}{mail}"));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("notify.m "), "{said:?}");
    }
}
