//! The register through the evaluator: frozen at the start, and a reload with another digest lets nothing rise.

use serin::rollout::{Decision, Verb};

use crate::bench::Bench;
use crate::fixture::{head, rollout};

fn file(digest: &str) -> String {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let digest = digest.repeat(32);
    head(2, false)
        + &rollout("chat", nowhere, nowhere, "")
        + &format!(
            "[rollouts.chat.register]\ndigest = \"sha256:{digest}\"\nkind = \"minor\"\nrisk = \"low\"\nowner = \"ml\"\n"
        )
}

#[test]
fn a_reload_with_another_digest_is_taken_for_what_it_is() {
    let mut bench = Bench::new(&file("0a"));
    let view = |bench: &Bench| bench.board.rollout("chat").unwrap();
    assert_eq!(view(&bench).stages, [1.0, 10.0, 25.0, 100.0], "the risk class picks the preset");
    assert!(!view(&bench).register.as_ref().unwrap().frozen, "nothing has started");
    bench.command(Verb::Register);
    bench.settle();
    bench.command(Verb::Start);
    bench.settle();
    let register = view(&bench).register.clone().unwrap();
    assert!(register.frozen && register.changed.is_none());
    let decisions: Vec<_> = bench
        .journal
        .after(0, 10)
        .iter()
        .filter_map(|entry| match &entry.body {
            serin::journal::Body::Record(record) => Some((record.decision, record.register.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(decisions, [(Decision::Register, true), (Decision::Start, true)]);
    bench.reload(&file("0b")).unwrap();
    let register = view(&bench).register.clone().unwrap();
    assert!(register.entry.digest.ends_with("0a"), "frozen");
    let why = register.changed.unwrap();
    assert!(why.contains(&"0a".repeat(32)) && why.contains(&"0b".repeat(32)), "{why}");
    bench.reload(&file("0a")).unwrap();
    assert_eq!(view(&bench).register.as_ref().unwrap().changed, None, "the old file heals it");
    bench.reload(&file("0b")).unwrap();
    bench.command(Verb::Gates);
    bench.settle();
    let register = view(&bench).register.clone().unwrap();
    assert!(register.entry.digest.ends_with("0b") && register.changed.is_none(), "an owner took it in");
}
