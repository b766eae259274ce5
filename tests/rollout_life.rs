//! A conservative rollout of thirty days in virtual time, over the real journal and evidence files, with hundreds of
//! restarts; and what the real program says of those files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use serin::journal::{Body, Evidence, Journal, Kept, verify};
use serin::judge::Verdict;
use serin::names::{Mono, RolloutName, VersionName, Wall};
use serin::rollout::{
    Actor, Decision, Effect, Event, Now, Numbers, Phase, Plan, Record, Role, State, Terms, Verb, step,
};

const HOUR: Duration = Duration::from_secs(3_600);
/// Between fork and exec a child holds the journal's lock too: no process is begun while a journal is opened again.
static FORKS: RwLock<()> = RwLock::new(());
/// Hours in each of the six stages, and in the soak: thirty days.
const STAGE: u64 = 96;
const SOAK: u64 = 144;

/// `conservative`, with twice the time.
fn thirty_days() -> Plan {
    let mut plan = Plan::preset("conservative").unwrap();
    plan.stages.iter_mut().for_each(|stage| stage.residence = HOUR * u32::try_from(STAGE).unwrap());
    Plan { soak: HOUR * u32::try_from(SOAK).unwrap(), ..plan }
}

/// One process after the other: each has its own monotonic clock, and only the files in common.
struct Life<'a> {
    dir: &'a Path,
    terms: Terms,
    state: State,
    journal: Option<Journal>,
    evidence: Evidence,
    now: Now,
    published: u32,
    /// How much slower the canary is than stable.
    worse: f64,
}

impl<'a> Life<'a> {
    fn new(dir: &'a Path) -> Self {
        let terms = Terms {
            rollout: RolloutName::new("chat"),
            stable: VersionName::new("a"),
            canary: Some(VersionName::new("b")),
            plan: Some(Arc::new(thirty_days())),
            weight: None,
            gates: "g".to_owned(),
            policy: None,
            drill_every: None,
            confirm: std::sync::Arc::default(),
            register: None,
        };
        let now = Now { mono: Mono(1), wall: Wall(1_795_168_800_000) };
        let state = State::initial(&terms).resume(now.mono);
        let journal = Some(Journal::open(&dir.join("journal")).unwrap().0);
        Self {
            dir,
            terms,
            state,
            journal,
            evidence: Evidence::open(&dir.join("evidence")).unwrap(),
            now,
            published: 0,
            worse: 0.01,
        }
    }

    /// Takes an event and carries out what the order of effects asks for: a rise only after its record is durable.
    fn take(&mut self, event: Event) {
        let (state, effects) = step(&self.terms, &self.state, event, self.now).unwrap();
        let numbers = self.numbers();
        for effect in effects {
            match effect {
                Effect::Record(mut record) => {
                    record.numbers = Some(Box::new(numbers.clone()));
                    let (told, answer) = sync_channel(1);
                    let done = Box::new(move |result| told.send(result).unwrap());
                    self.journal.as_ref().unwrap().append(record, Some(done)).unwrap();
                    answer.recv().unwrap().unwrap();
                }
                Effect::Weight { weight, .. } => self.published = weight.buckets(),
                Effect::Latch | Effect::Swap => self.published = 0,
                _ => {}
            }
        }
        self.state = state;
        assert_eq!(self.state.weight.buckets(), self.published);
    }

    /// What the evaluator puts beside a decision.
    fn numbers(&self) -> Numbers {
        let canary = 1_840.0 * (1.0 + self.worse);
        let result = if self.worse > 0.5 { "fail" } else { "pass" };
        serde_json::from_value(json!({
            "gates": [{"name": "latency_p99", "unit": "ms", "on": "rollback", "required": true, "result": result,
                "stable": 1_840.0, "canary": canary, "difference": canary - 1_840.0, "worse": [9.1, 7.6],
                "samples": 5_120, "users": 311, "why": "in a window of 12 min"}],
            "exposed": {"users": self.published / 100, "requests": self.published, "cost_nano": 0},
            "users": [900, 100, 100]
        }))
        .unwrap()
    }

    /// What `serin` says of the files, and whether it was content.
    fn serin(&self, line: &str) -> (bool, String, String) {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        words.iter_mut().for_each(|word| *word = word.replace("JOURNAL", &self.dir.join("journal").to_string_lossy()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_serin"));
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = FORKS.write().map(|_alone| command.spawn().unwrap());
        let said = begun.unwrap().wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(matches!(said.status.code(), Some(0 | 1)), "{said:?}");
        (said.status.success(), text(said.stdout), text(said.stderr))
    }

    fn report(&self) -> Value {
        let (good, json, error) = self.serin("report chat --journal JOURNAL -o json");
        assert!(good, "{error}");
        serde_json::from_str(&json).unwrap()
    }

    fn command(&mut self, name: &str, role: Role, verb: Verb) {
        let actor = Actor::new(name, &[role]);
        self.take(Event::Command { verb, actor, reason: "planned".to_owned() });
    }

    fn passes(&mut self, time: Duration) {
        self.now.mono = self.now.mono.plus(time);
        self.now.wall.0 += i64::try_from(time.as_millis()).unwrap();
    }

    /// The process dies after a checkpoint of evidence; the next one has only the files.
    fn restart(&mut self) {
        let kept = Kept { state: self.state.clone(), judge: Vec::new(), counts: None };
        self.evidence.save(&self.terms.rollout, &kept).unwrap();
        let _no_fork = FORKS.read().unwrap();
        self.journal = None;
        self.now.mono = Mono(7);
        let (journal, recovered) = Journal::open(&self.dir.join("journal")).unwrap();
        assert_eq!(recovered.torn, None);
        let mut state = recovered.states[&self.terms.rollout].clone();
        assert_eq!((state.phase, state.weight.buckets()), (self.state.phase, self.published));
        assert!(state.catch_up(&self.evidence.load(&self.terms.rollout).unwrap().state));
        assert_eq!(state.resided, self.state.resided);
        self.state = state.resume(self.now.mono);
        self.journal = Some(journal);
    }

    fn records(&self) -> Vec<Record> {
        let entries = self.journal.as_ref().unwrap().after(0, usize::MAX);
        let record = |body: &Body| if let Body::Record(r) = body { Some((**r).clone()) } else { None };
        entries.iter().filter_map(|e| record(&e.body)).collect()
    }
}

fn advance() -> Event {
    Event::Judged(Verdict::Advance { reason: "all gates proven".to_owned() })
}

/// Runs to the end, or to `until` hours; gives the hours that it took.
fn run(life: &mut Life<'_>, until: u64) -> u64 {
    life.command("alice", Role::Operator, Verb::Start);
    for hour in 0..until {
        life.passes(HOUR);
        life.take(advance());
        if life.state.phase == Phase::Awaiting {
            life.command("bob", Role::Approver, Verb::Approve);
            life.take(advance());
            life.command("carol", Role::Approver, Verb::Approve);
        }
        if hour % 3 == 0 {
            life.restart();
        }
        if life.state.phase == Phase::Completed {
            return hour + 1;
        }
    }
    until
}

#[test]
fn a_rollout_of_thirty_days_with_hundreds_of_restarts_ends_completed_with_the_right_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::new(dir.path());
    let hours = run(&mut life, 1_000);
    assert_eq!(hours, 30 * 24, "restarts cost no residence, and give none");
    assert!(hours / 3 >= 200);
    let records = life.records();
    let count = |decision| records.iter().filter(|r| r.decision == decision).count();
    assert_eq!((count(Decision::Start), count(Decision::Await), count(Decision::Approve)), (1, 6, 6));
    assert_eq!((count(Decision::Advance), count(Decision::Complete)), (6, 1));
    for record in records.iter().filter(|r| r.decision == Decision::Advance) {
        assert!(record.proven && record.approvals == ["bob", "carol"], "{record:?}");
    }
    life.journal = None;
    assert_eq!(verify(&dir.path().join("journal")).unwrap().last, records.len() as u64);

    let report = life.report();
    let release = &report["releases"][0];
    assert_eq!((&release["outcome"], &release["incident"]), (&json!("completed"), &Value::Null));
    assert_eq!((&release["initiation"]["by"], &release["initiation"]["reason"]), (&json!("alice"), &json!("planned")));
    assert_eq!(release["initiation"]["plan"]["stages"].as_array().unwrap().len(), 7);
    let promotions = release["promotions"].as_array().unwrap();
    assert_eq!(promotions.len(), 6);
    for promotion in promotions {
        assert_eq!((&promotion["proven"], &promotion["approvals"]), (&json!(true), &json!(["bob", "carol"])));
        assert_eq!(promotion["gates"][0]["result"], "pass");
    }
    assert_eq!(release["completion"]["took_s"], 30.0 * 24.0 * 3_600.0);
    assert_eq!((&release["completion"]["proven"], &release["completion"]["unproven"]), (&json!(true), &json!(0)));
    let weights: Vec<f64> =
        release["exposure"].as_array().unwrap().iter().map(|stay| stay["weight"].as_f64().unwrap()).collect();
    assert_eq!(weights[..7], [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 99.0]);
    assert_eq!(release["timeline"].as_array().unwrap().len(), records.len());
    for (output, sign) in [("md", "Article 15"), ("html", "</html>")] {
        let (good, text, error) = life.serin(&format!("report chat --journal JOURNAL -o {output}"));
        assert!(good && text.contains(sign) && text.contains("carol"), "{output}: {error}");
    }
}

#[test]
fn every_clause_is_named_with_the_records_that_serve_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::new(dir.path());
    life.command("alice", Role::Operator, Verb::Start);
    let report = life.report();
    let clauses: Vec<(&str, String)> = report["clauses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|clause| {
            let served: Vec<&str> =
                clause["served_by"].as_array().unwrap().iter().map(|by| by.as_str().unwrap()).collect();
            (clause["clause"].as_str().unwrap(), served.join(", "))
        })
        .collect();
    let expect = [
        ("Article 9", "initiation, stage promotions, rollback incident"),
        ("Article 15", "stage promotions, completion certificate, rollback incident, drills"),
        ("8.5", "initiation, stage promotions, completion certificate, timeline"),
        ("MANAGE 2.2", "stage promotions, completion certificate, exposure ledger"),
        ("MANAGE 4.1", "rollback incident, timeline, drills"),
        ("operational risk", "initiation, rollback incident, completion certificate, drills"),
        ("APP 11", "exposure ledger"),
    ];
    assert_eq!(clauses.len(), expect.len());
    for ((clause, served), (begins, by)) in clauses.iter().zip(expect) {
        assert!(clause.starts_with(begins) && served == by, "{clause}: {served}");
    }
}

#[test]
fn a_changed_byte_of_a_journal_is_named_by_file_and_offset_and_nothing_is_reported_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::new(dir.path());
    life.command("alice", Role::Operator, Verb::Start);
    life.command("alice", Role::Operator, Verb::Pause);
    life.command("alice", Role::Operator, Verb::Resume);
    life.journal = None;
    let (good, json, _) = life.serin("journal verify JOURNAL -o json");
    let summary: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((good, &summary["first"], &summary["last"]), (true, &json!(1), &json!(3)));
    let (_, text, _) = life.serin("journal verify JOURNAL");
    assert_eq!(text, format!("good: entries 1 to 3, head {}\n", summary["hash"].as_str().unwrap()));
    let (good, _, error) = life.serin("report nobody --journal JOURNAL");
    assert!(!good && error.contains("has no record of the rollout \"nobody\""), "{error}");

    let files = std::fs::read_dir(dir.path().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let path = files.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(7).position(|word| word == b"planned").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (good, json, error) = life.serin("journal verify JOURNAL -o json");
    let broken: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((good, &broken["at"]), (false, &json!(1)));
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(broken["place"].as_str().unwrap().contains(&name) && error.contains(&name), "{broken} {error}");
    let (good, text, error) = life.serin("report chat --journal JOURNAL -o json");
    assert!(!good && text.is_empty() && error.contains("cannot be relied on"), "{text} {error}");
}

#[test]
fn a_regression_in_the_fourth_stage_ends_latched_with_the_gate_and_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::new(dir.path());
    run(&mut life, 3 * STAGE + 20);
    assert_eq!(life.state.stage, Some(3));
    life.worse = 0.74;
    life.take(Event::Judged(Verdict::Rollback {
        rule: "latency_p99".to_owned(),
        reason: "log e 9.1 > 7.6".to_owned(),
    }));
    for _ in 0..5 {
        life.restart();
        life.passes(HOUR * 24);
        life.take(advance());
        assert_eq!((life.state.phase, life.state.weight.buckets()), (Phase::RolledBack, 0));
    }
    let records = life.records();
    let last = records.last().unwrap();
    assert_eq!(
        (last.decision, last.stage_before, last.reason.as_str()),
        (Decision::Rollback, Some(3), "latency_p99: log e 9.1 > 7.6")
    );
    let release = &life.report()["releases"][0];
    assert_eq!((&release["outcome"], &release["completion"]), (&json!("rolled_back"), &Value::Null));
    let incident = &release["incident"];
    let said = ["severity", "by", "gate", "stage", "weight_before", "rollbacks"].map(|key| incident[key].clone());
    assert_eq!(said, [json!("P2"), json!("judge"), json!("latency_p99"), json!(3), json!(25.0), json!(1)]);
    assert_eq!(incident["reason"], "latency_p99: log e 9.1 > 7.6");
    let gate = &incident["gates"][0];
    let numbers = ["result", "stable", "canary", "samples"].map(|key| gate[key].clone());
    assert_eq!(numbers, [json!("fail"), json!(1_840.0), json!(3_201.6), json!(5_120)]);
    assert_eq!(incident["exposed"]["requests"], 25_000);
}
