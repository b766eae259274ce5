//! The sample traces get their verdicts: in time, by a lawful rule, and never on a healthy canary.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serin::judge::{Policy, replay::replay};

/// Traces kept in the repository; all nine lie beside it where the project is developed.
fn folder(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [root.join("tests/fixtures/traces"), root.join("../shared/traces"), root.join("../../shared/traces")]
        .into_iter()
        .find(|folder| folder.join(format!("{name}.jsonl.gz")).exists())
}

fn fixture(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traces").join(name)).unwrap()
}

fn verdicts(name: &str) -> Option<(String, Vec<serde_json::Value>)> {
    let trace = fs::File::open(folder(name)?.join(format!("{name}.jsonl.gz"))).unwrap();
    let mut said = Vec::new();
    replay(Policy::from_toml(&fixture("policy.toml")).unwrap(), BufReader::new(trace), &mut said).unwrap();
    let text = String::from_utf8(said).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Some((text, lines))
}

/// In a clean checkout only the traces kept here are tested; `kept` says which must be there.
fn check(name: &str, kept: bool) {
    let Some((_, lines)) = verdicts(name) else {
        assert!(!kept, "tests/fixtures/traces/{name}.jsonl.gz is missing");
        return;
    };
    let expected: serde_json::Value = serde_json::from_str(&fixture("expected.json")).unwrap();
    let expected = &expected[name];
    let word = |line: &serde_json::Value| line["verdict"].as_str().unwrap().to_owned();
    let last = lines.last().expect("a last word");
    assert_eq!(word(last), expected["verdict"].as_str().unwrap(), "{name}: {last}");
    if expected["verdict"] == "rollback" {
        let onset = expected["onset"].as_f64().unwrap();
        let delay = expected["ts"].as_f64().unwrap() - onset;
        let took = last["ts"].as_f64().unwrap() - onset;
        assert!(took >= 0.0, "{name}: before the onset: {last}");
        assert!(took <= (1.5 * delay).max(delay + 2.0), "{name}: {took} s instead of {delay}: {last}");
    } else {
        assert!(lines.iter().all(|line| word(line) != "rollback"), "{name}");
    }
}

#[test]
fn an_outage_is_cut_at_once() {
    check("outage", true);
}

#[test]
fn a_safety_violation_is_cut_when_it_is_known() {
    check("safety", true);
}

#[test]
fn without_traffic_it_holds() {
    check("no-traffic", true);
}

#[test]
fn errors_are_found() {
    check("errors", true);
}

#[test]
fn errors_are_found_across_a_restart() {
    check("errors-restart", false);
}

#[test]
fn latency_is_found() {
    check("latency", false);
}

#[test]
fn quality_is_found() {
    check("quality", false);
}

#[test]
fn the_healthy_are_left_alone() {
    check("healthy", false);
}

#[test]
fn the_proven_pass() {
    check("healthy-promoted", false);
}

#[test]
fn a_replay_repeats_byte_for_byte() {
    assert_eq!(verdicts("outage").unwrap().0, verdicts("outage").unwrap().0);
}
