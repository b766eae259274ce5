//! The house keeps its own rules: who may use whom, how files begin and how long they are, what is documented.
//!
//! The map is the one of `docs/architecture.md`; change both together and say why.
#![expect(clippy::unwrap_used, reason = "a check that cannot read the house has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What an area may use beside itself and `names`. `ALL` may use everything.
const MAP: &[(&str, &[&str])] = &[
    ("split", &[]),
    ("wire", &[]),
    ("stats", &[]),
    ("judge", &["stats"]),
    ("rollout", &["split", "judge"]),
    ("config", &["split", "wire", "judge", "rollout"]),
    ("measure", &["split", "wire", "judge", "config"]),
    ("http1", &[]),
    ("upstream", &["clock", "config", "tls", "http1"]),
    ("snapshot", &["split", "wire", "config", "measure", "upstream", "tls"]),
    ("journal", &["clock", "rollout"]),
    ("sessions", &["clock", "split"]),
    ("notify", &["clock", "config", "tls", "rollout"]),
    ("evaluator", &["clock", "config", "split", "judge", "rollout", "measure", "snapshot", "journal", "notify"]),
    ("fleet", &["clock", "judge", "snapshot", "journal"]),
    ("proxy", &["clock", "config", "tls", "http1", "split", "wire", "measure", "upstream", "snapshot", "sessions"]),
    ("report", &["rollout", "journal"]),
    (
        "admin",
        &[
            "clock",
            "config",
            "tls",
            "split",
            "judge",
            "rollout",
            "measure",
            "snapshot",
            "journal",
            "notify",
            "report",
            "evaluator",
        ],
    ),
    ("cli", &["config", "tls", "judge", "rollout", "journal", "report"]),
    ("demo", ALL),
    ("app", ALL),
];
const ALL: &[&str] = &["*"];

/// Files of `src/` itself and what they may use.
const ROOT: &[(&str, &[&str])] =
    &[("names", &[]), ("clock", &[]), ("signal", &[]), ("tls", &["config"]), ("main", ALL), ("lib", ALL)];

/// What pure areas never name.
const PURE: &[&str] = &["split", "wire", "stats", "judge", "rollout"];
const IMPURE: &[&str] = &[
    "tokio::",
    "hyper::",
    "hyper_util::",
    "tracing::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "crate::clock",
];

/// The longest file, without its tests.
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, ending)
            } else if path.extension().is_some_and(|e| e == ending) {
                vec![path]
            } else {
                Vec::new()
            }
        })
        .collect();
    found.sort();
    found
}

/// The product's files: what a `mod.rs` declares under `#[cfg(test)]` is left out.
fn sources() -> Vec<PathBuf> {
    let all = files(&root().join("src"), "rs");
    all.iter().filter(|path| !is_test_only(path)).cloned().collect()
}

fn is_test_only(path: &Path) -> bool {
    let Ok(parent) = fs::read_to_string(path.with_file_name("mod.rs")) else { return false };
    let name = path.file_stem().unwrap().to_string_lossy();
    parent.replace("pub(crate) ", "").contains(&format!("#[cfg(test)]\nmod {name};"))
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

/// A source file's text up to its tests, which stand at the end.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

/// The text without its comment lines.
fn code_of(text: &str) -> String {
    let lines = without_tests(text).lines();
    lines.map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect::<Vec<_>>().join("\n")
}

/// The first names behind `crate::`, those of `crate::{a, b::c}` too.
fn uses(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut name = String::new();
            let mut reading = true;
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => {
                        found.insert(std::mem::take(&mut name));
                        reading = true;
                    }
                    c if depth == 1 && reading && (c.is_alphanumeric() || c == '_') => name.push(c),
                    c if c.is_whitespace() => {}
                    _ => reading = false,
                }
                if depth == 0 {
                    break;
                }
            }
            found.insert(name);
        } else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found.remove("");
    found
}

fn complain(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}\n  {}\n", faults.join("\n  "));
}

#[test]
fn an_area_uses_only_what_the_map_allows() {
    let mut faults = Vec::new();
    for path in sources() {
        let inside = path.strip_prefix(root().join("src")).unwrap();
        let parts: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let (own, allowed) = if parts.len() == 1 {
            let stem = inside.file_stem().unwrap().to_string_lossy().into_owned();
            let row = ROOT.iter().find(|(name, _)| *name == stem);
            (stem, row.map(|(_, allowed)| *allowed))
        } else {
            if parts.len() > 2 {
                faults.push(format!("{}: no deeper than src/AREA/FILE.rs", short(&path)));
            }
            (parts[0].clone(), MAP.iter().find(|(name, _)| *name == parts[0]).map(|(_, allowed)| *allowed))
        };
        let Some(allowed) = allowed else {
            faults.push(format!("{}: the map does not know {own:?}", short(&path)));
            continue;
        };
        if allowed == ALL {
            continue;
        }
        for used in uses(&code_of(&fs::read_to_string(&path).unwrap())) {
            let is_module = MAP.iter().chain(ROOT).any(|(name, _)| *name == used);
            if is_module && used != own && used != "names" && !allowed.contains(&used.as_str()) {
                faults.push(format!("{}: {own} may not use {used}", short(&path)));
            }
        }
    }
    complain(&faults, "the map of docs/architecture.md");
}

#[test]
fn pure_areas_touch_no_clock_file_socket_or_thread() {
    let mut faults = Vec::new();
    for area in PURE {
        for path in sources().iter().filter(|path| path.starts_with(root().join("src").join(area))) {
            let code = code_of(&fs::read_to_string(path).unwrap());
            let named = IMPURE.iter().filter(|word| code.contains(**word));
            faults.extend(named.map(|word| format!("{}: {word}", short(path))));
        }
    }
    complain(&faults, "pure areas are values in, values out");
}

#[test]
fn the_reader_of_uses_sees_single_and_grouped_paths() {
    let code = "use crate::clock::Clock;\nuse crate::{names::{Mono, Wall}, split::Weight, tls};\nlet x = crate::judge::f();\nmycrate::proxy::g();";
    let found: Vec<String> = uses(code).into_iter().collect();
    assert_eq!(found, ["clock", "judge", "names", "split", "tls"]);
}

#[test]
fn every_file_says_its_job_in_its_first_line_and_stays_short() {
    let mut faults = Vec::new();
    for path in ["src", "tests", "benches", "examples"].iter().flat_map(|folder| files(&root().join(folder), "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with("//! ") {
            faults.push(format!("{}: the first line is no //! sentence", short(&path)));
        }
        let lines = without_tests(&text).lines().count();
        if lines > LINES_MAX && !is_test_only(&path) {
            faults.push(format!("{}: {lines} lines without tests, {LINES_MAX} at most", short(&path)));
        }
    }
    complain(&faults, "a file has one job, said in its first line");
}

#[test]
fn a_mod_file_holds_no_logic() {
    let mut faults = Vec::new();
    for path in files(&root().join("src"), "rs").iter().filter(|path| path.ends_with("mod.rs")) {
        let code = code_of(&fs::read_to_string(path).unwrap());
        let words = ["fn ", "struct ", "enum ", "impl ", "impl<", "trait ", "const ", "static ", "macro_rules!"];
        for line in code.lines() {
            if words.iter().any(|word| {
                line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ").starts_with(word)
            }) {
                faults.push(format!("{}: {line}", short(path)));
            }
        }
    }
    complain(&faults, "mod.rs has the area's doc and re-exports");
}

/// Every word that begins with `serin_` and is a whole metric name.
fn metric_names(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("serin_") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name: String = text[at..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        found.insert(base.to_owned());
    }
    found
}

/// The metrics that `docs/metrics.md` explains: the first cell of its tables.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    text.lines()
        .filter(|line| line.starts_with("| `serin_"))
        .flat_map(|line| metric_names(line.split('|').nth(1).unwrap()))
        .collect()
}

/// Names of other things: the dashboard's cookie, the label by which an alert says what it wants.
const NO_METRICS: &[&str] = &["serin_session", "serin_action"];

/// The metrics that the code names in string literals.
fn in_code() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in sources() {
        let code = code_of(&fs::read_to_string(&path).unwrap());
        for (at, _) in code.match_indices("\"serin_") {
            let literal = code[at + 1..].split('"').next().unwrap();
            let whole = literal.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if whole && !literal.ends_with('_') && !NO_METRICS.contains(&literal) {
                found.insert(literal.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_metric_in_the_code_is_documented() {
    let documented = documented();
    assert!(documented.len() >= 20, "docs/metrics.md was not understood: {documented:?}");
    let missing: Vec<String> = in_code().difference(&documented).cloned().collect();
    complain(&missing, "docs/metrics.md explains every metric");
}

#[test]
fn every_documented_metric_is_in_the_code() {
    let in_code = in_code();
    let missing: Vec<String> = documented().difference(&in_code).cloned().collect();
    complain(&missing, "docs/metrics.md explains nothing that is not there");
}

#[test]
fn alerts_and_dashboard_use_documented_metrics_only() {
    let documented = documented();
    for file in ["deploy/alerts.yaml", "deploy/grafana.json"] {
        let used = metric_names(&fs::read_to_string(root().join(file)).unwrap());
        assert!(used.len() > 5, "{file} was not understood: {used:?}");
        let unknown: Vec<String> = used.difference(&documented).cloned().collect();
        complain(&unknown, &format!("{file} asks for metrics that docs/metrics.md knows"));
    }
}

#[test]
fn the_dashboard_is_json() {
    let text = fs::read_to_string(root().join("deploy/grafana.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(value["panels"].as_array().is_some_and(|panels| panels.len() >= 6));
}

#[test]
fn the_map_in_the_docs_is_the_map_that_is_checked() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for (area, allowed) in MAP.iter().filter(|(_, allowed)| *allowed != ALL) {
        let shown = if allowed.is_empty() { "–".to_owned() } else { allowed.join(", ") };
        let row = format!("| {area} | {shown} |");
        assert!(text.contains(&row), "docs/architecture.md lacks the row {row:?}");
    }
}

/// The faults of one configuration that needs no environment.
fn config_faults(name: &str, text: &str) -> Vec<String> {
    match serin::config::parse(text, name, &|_| None) {
        Ok(_) => Vec::new(),
        Err(faults) => vec![format!("{name}:\n{faults}")],
    }
}

#[test]
fn every_example_configuration_is_valid() {
    let files = files(&root().join("config"), "toml");
    assert!(files.len() >= 3, "config/ has examples");
    let faults: Vec<String> = files
        .iter()
        .flat_map(|path| match serin::config::load(path) {
            Ok(_) => None,
            Err(faults) => Some(format!("{}:\n{faults}", short(path))),
        })
        .collect();
    complain(&faults, "every config/*.toml loads");
}

#[test]
fn the_configurations_in_readme_and_demo_are_valid() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<String> =
        readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
    assert!(!blocks.is_empty(), "the README shows a configuration");
    let mut faults: Vec<String> = blocks.iter().flat_map(|block| config_faults("README.md", &dedent(block))).collect();
    for scenario in serin::demo::SCENARIOS {
        let text = scenario.config("http://127.0.0.1:1", "http://127.0.0.1:2", 1);
        faults.extend(config_faults(scenario.name, &text));
    }
    complain(&faults, "what we show must work");
}

fn dedent(block: &str) -> String {
    block.lines().map(|line| line.strip_prefix("   ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}
