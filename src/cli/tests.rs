//! What may be typed, what the screens show, and how waiting ends.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::args::{Command, Output, ReplayPolicy, Token, parse_from};
use super::remote::{Deed, Remote, Streams, ask};
use super::screen::{self, Paint};
use super::seen::Rollout;
use super::{Local, perform};

fn typed(line: &str) -> Command {
    parse_from(std::iter::once("serin").chain(line.split_whitespace()))
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn remote(line: &str) -> Remote {
    match typed(line) {
        Command::Remote(remote) => remote,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn every_command_of_the_interface_is_understood() {
    for (line, name, deed) in [
        ("list", "", Deed::List),
        ("get chat", "chat", Deed::Get { watch: false }),
        ("get chat --watch", "chat", Deed::Get { watch: true }),
        ("status chat --timeout 5m", "chat", Deed::Status { timeout: Some(Duration::from_secs(300)) }),
        ("start chat --reason x", "chat", Deed::verb("start", "x".into())),
        ("approve chat", "chat", Deed::verb("approve", String::new())),
        ("promote chat", "chat", Deed::verb("promote", String::new())),
        ("pause chat", "chat", Deed::verb("pause", String::new())),
        ("resume chat", "chat", Deed::verb("resume", String::new())),
        ("step-back chat", "chat", Deed::verb("step-back", String::new())),
        ("abort chat", "chat", Deed::verb("abort", String::new())),
        ("drill chat", "chat", Deed::verb("drill", String::new())),
        ("clear chat --reason disk", "chat", Deed::verb("clear", "disk".into())),
        ("gates chat --reason x", "chat", Deed::verb("gates", "x".into())),
        ("explain chat", "chat", Deed::Explain),
        ("report chat", "chat", Deed::Report),
        ("report chat -o html", "chat", Deed::Report),
        ("which chat --unit u1", "chat", Deed::Which { unit: "u1".into() }),
        ("set weight chat 12.5%", "chat", Deed::SetWeight { percent: 12.5, reason: String::new() }),
        ("reload", "", Deed::Reload),
        ("register chat --show", "chat", Deed::Registered),
        ("register -c a.toml", "", Deed::Register { file: "a.toml".into(), reason: String::new() }),
        ("register chat --reason x", "chat", Deed::Register { file: "serin.toml".into(), reason: "x".into() }),
    ] {
        let got = remote(line);
        assert_eq!((got.name.as_str(), &got.deed), (name, &deed), "{line}");
    }
    let full = Deed::Verb { verb: "promote", reason: String::new(), full: true, by: None };
    assert_eq!(remote("promote chat --full").deed, full);
    let by = Some(Duration::from_secs(86_400));
    assert_eq!(
        remote("extend chat --by 24h").deed,
        Deed::Verb { verb: "extend", reason: String::new(), full: false, by }
    );
    let Command::Report(report) = typed("report chat --journal /var/lib/serin -o md") else { panic!("no report") };
    assert_eq!((report.name.as_str(), report.output), ("chat", Output::Md));
    let refused = parse_from(["serin", "list", "-o", "html"]).unwrap_err();
    assert!(refused.use_stderr() && refused.to_string().contains("forms of a report"), "{refused}");
    assert_eq!(typed("run -c a.toml"), Command::Run { config: "a.toml".into() });
    assert_eq!(typed("check a.toml -o json"), Command::Check { config: "a.toml".into(), output: Output::Json });
    assert_eq!(typed("version"), Command::Local(Local::Version(Output::Human)));
    assert!(matches!(typed("demo --scenario errors --headless --seed 7"), Command::Demo(demo) if demo.seed == 7));
    let Command::Replay(replay) = typed("replay --policy p.toml t.jsonl.gz") else { panic!("no replay") };
    assert_eq!(replay.policy, ReplayPolicy::File("p.toml".into()));
    let Command::Replay(replay) = typed("replay -c a.toml --rollout chat --from-stage 2 t.jsonl") else { panic!() };
    let expect = ReplayPolicy::Rollout { config: "a.toml".into(), rollout: "chat".into(), from_stage: 2 };
    assert_eq!(replay.policy, expect);
}

#[test]
fn what_makes_no_sense_is_usage() {
    for line in [
        "",
        "explode",
        "get",
        "clear chat",
        "gates chat",
        "extend chat",
        "extend chat --by soon",
        "set weight chat 101",
        "set weight chat x",
        "which chat",
        "register --show",
        "register chat --show --reason x",
        "replay t.jsonl",
        "replay --policy p --rollout chat t.jsonl",
        "demo --scenario boring",
        "list -o yaml",
    ] {
        let result = parse_from(std::iter::once("serin").chain(line.split_whitespace()));
        assert!(result.is_err_and(|error| error.use_stderr()), "{line:?}");
    }
}

#[test]
fn a_token_file_wins_and_is_never_shown() {
    assert_eq!(remote("list --token-file t").globals.token, Token::File("t".into()));
    let shown = format!("{:?}", remote("list --token hush"));
    assert!(!shown.contains("hush"), "{shown}");
}

fn rollout() -> Value {
    json!({"name":"chat","phase":"running","why":"10 % since 14:02; latency_p99 needs about 1 h 50 m more","verdict":"hold",
     "verdict_reason":"latency_p99: log evidence 1.8 of 3.0","generation":41,
     "weight":10.0,"weight_actual":9.97,"stages":[1.0,5.0,10.0,25.0,50.0,100.0],
     "stage":{"index":2,"of":6,"weight":10.0,"entered_at":"2026-11-20T14:02:11Z","residence_left_s":3600,"deadline_at":null,"waits_for":"residence","approvals":{"needed":1,"given":[]}},
     "started_by":"alice","paused":null,"soak_ends_at":null,"next_version":null,"latch":null,
     "arms":{"stable":{"version":"a","users":9000,"requests":120034,"share":{"users":80.1,"requests":80.06,"cost":79.0},"endpoints":{"healthy":2,"all":2},"cost_usd":812.5},
       "baseline":{},
       "canary":{"version":"b","users":1284,"requests":13207,"share":{"users":10.0,"requests":9.97,"cost":11.0},"endpoints":{"healthy":1,"all":2},"cost_usd":112.4}},
     "gates":[
       {"name":"error_rate","unit":"ratio","on":"rollback","required":true,"result":"pass","stable":0.0031,"canary":0.0033,"difference":0.0002,"interval":[-0.0005,0.001],"promote":0.001,"rollback":0.005,"limit":0.05,"samples":5120,"samples_needed":8400,"users":311,"eta_s":6600,"why":""},
       {"name":"latency_p99","unit":"ms","on":"rollback","required":true,"result":"inconclusive","stable":912.0,"canary":1140.0,"difference":228.0,"interval":[-41.0,503.0],"promote":182.0,"rollback":456.0,"limit":null,"samples":5120,"samples_needed":18400,"users":311,"eta_s":6600,"why":""},
       {"name":"quality_mean","unit":"score","on":"hold","required":false,"result":"unarmed","stable":null,"canary":null,"difference":null,"interval":null,"promote":-0.02,"rollback":-0.1,"limit":null,"samples":0,"samples_needed":null,"users":0,"eta_s":null,"why":"no score has come"}],
     "exposed":{"users":1284,"requests":41207,"cost_usd":112.4},"heartbeat_age_s":0.2,"allowed":["promote","pause","abort"],"later_field":1})
}

fn read(json: Value) -> Rollout {
    serde_json::from_value(json).unwrap()
}

#[track_caller]
fn golden(have: &str, expect: &str) {
    assert_eq!(have.trim_end(), expect.trim_start_matches('\n').trim_end(), "\n{have}");
}

#[test]
fn a_drill_is_told_with_its_time_or_with_what_failed_or_as_never_made() {
    let drilled = |drill: Value| {
        let mut json = rollout();
        json["drill"] = drill;
        screen::drilled(&read(json))
    };
    assert_eq!(drilled(Value::Null), "chat: no drill has been made\n");
    let well = json!({"at": "2026-11-20T14:02:11Z", "took_ms": 0.0834, "failed": null});
    assert_eq!(drilled(well), "chat: a rehearsed rollback reached 0 on every worker in 0.083 ms\n");
    let badly = json!({"at": "2026-11-20T14:02:11Z", "took_ms": 15000.0, "failed": "a worker did not answer in time"});
    assert_eq!(drilled(badly), "chat: the drill failed: a worker did not answer in time\n");
}

#[test]
fn a_rollout_in_full() {
    golden(
        &screen::one(&read(rollout()), Paint(false)),
        "
chat  running  10 % (9.97 % seen)
  why         10 % since 14:02; latency_p99 needs about 1 h 50 m more
  verdict     hold: latency_p99: log evidence 1.8 of 3.0
  stage       3 of 6 at 10 % since 2026-11-20T14:02:11Z, 1 h of residence left, waits for residence; approvals: 1 needed, given by none
  plan        1 → 5 → [10] → 25 → 50 → 100 %
  started by  alice

  ARM     VERSION  USERS  REQUESTS    SHARE  COST  ENDPOINTS
  stable  a         9000   120,034  80.06 %  $812        2/2
  canary  b         1284    13,207   9.97 %  $112        1/2

  GATE          RESULT        STABLE  CANARY  DIFFERENCE       95 % INTERVAL  PROMOTE  ROLLBACK         SAMPLES      MORE
  error_rate    pass          0.31 %  0.33 %    +0.02 pp  -0.05 pp … +0.1 pp  +0.1 pp   +0.5 pp    5120 of 8400         -
  latency_p99   inconclusive  912 ms  1.14 s     +228 ms    -41 ms … +503 ms  +182 ms   +456 ms  5120 of 18,400  1 h 50 m
  quality_mean  unarmed            -       -           -                   -    -0.02      -0.1               0         -

  exposed     1284 users, 41,207 requests, $112
  heartbeat   0.2 s ago, generation 41
  allowed     promote, pause, abort
",
    );
}

#[test]
fn a_latched_rollout_says_so_first() {
    let mut json = rollout();
    json["phase"] = json!("rolled_back");
    json["weight"] = json!(0.0);
    json["stage"] = Value::Null;
    json["latch"] = json!({"at": "2026-11-20T15:00:00Z", "actor": "error_rate", "reason": "7 of 30 answers failed"});
    json["gates"] = json!([]);
    json["allowed"] = json!(["clear"]);
    let text = screen::one(&read(json.clone()), Paint(false));
    let second = text.lines().nth(1).unwrap();
    assert_eq!(second, "  LATCHED     2026-11-20T15:00:00Z by error_rate: 7 of 30 answers failed");
    assert_eq!(screen::transition(&read(json), Paint(false)), "chat rolled back 0 %: 7 of 30 answers failed\n");
}

#[test]
fn all_rollouts_a_line_each() {
    let mut idle = rollout();
    idle["name"] = json!("embeddings");
    idle["phase"] = json!("idle");
    idle["weight"] = json!(0.0);
    idle["stage"] = Value::Null;
    idle["why"] = json!("not started");
    golden(
        &screen::list(&[read(rollout()), read(idle)], Paint(false)),
        "
NAME        PHASE    WEIGHT  STAGE  VERDICT  CANARY  WHY
chat        running    10 %    3/6  hold     b       10 % since 14:02; latency_p99 needs about 1 h 50 m more
embeddings  idle        0 %      -  hold     b       not started
",
    );
    assert_eq!(screen::list(&[], Paint(false)), "no rollout is configured\n");
}

#[test]
fn the_verdict_in_words() {
    golden(
        &screen::explain(&read(rollout()), Paint(false)),
        "
chat is running at 10 %: 10 % since 14:02; latency_p99 needs about 1 h 50 m more.
The verdict is hold: latency_p99: log evidence 1.8 of 3.0.

error_rate pass
  stable 0.31 %, canary 0.33 %, from 5120 canary samples of 311 users
  difference +0.02 pp, surely between -0.05 pp and +0.1 pp
  fine up to +0.1 pp; rolls back from +0.5 pp
  never above 5 % for the canary alone

latency_p99 inconclusive
  stable 912 ms, canary 1.14 s, from 5120 canary samples of 311 users
  difference +228 ms, surely between -41 ms and +503 ms
  fine up to +182 ms; rolls back from +456 ms
  an answer is expected in about 1 h 50 m

quality_mean unarmed
  fine up to -0.02; holds from -0.1
  no score has come
",
    );
}

#[test]
fn colours_are_there_only_when_asked_for() {
    let rollout = read(rollout());
    assert!(!screen::one(&rollout, Paint(false)).contains('\x1b'));
    let painted = screen::one(&rollout, Paint(true));
    assert!(painted.contains("\x1b[36mrunning\x1b[0m") && painted.contains("\x1b[32mpass\x1b[0m"));
    let bare: String = {
        let mut out = String::new();
        let mut rest = painted.as_str();
        while let Some(at) = rest.find('\x1b') {
            out.push_str(&rest[..at]);
            rest = rest[at..].split_once('m').unwrap().1;
        }
        out + rest
    };
    assert_eq!(bare, screen::one(&rollout, Paint(false)), "colours change no column");
}

/// Answers each connection with the next of these; the last one again and again. Gives back its address.
async fn serving(answers: Vec<(u16, Value)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut turn = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 16_384];
            let length = stream.read(&mut head).await.unwrap_or(0);
            assert!(length > 0);
            let (status, body) = answers[turn.min(answers.len() - 1)].clone();
            turn += 1;
            let body = body.to_string();
            let answer =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

async fn run(line: &str, admin: &str) -> (ExitCode, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let remote = remote(&format!("{line} --admin {admin}"));
    let code = ask(&remote, &mut Streams { out: &mut out, err: &mut err, terminal: false }).await;
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn in_phase(phase: &str, weight: f64) -> (u16, Value) {
    let mut json = rollout();
    json["phase"] = json!(phase);
    json["weight"] = json!(weight);
    (200, json)
}

#[tokio::test]
async fn status_tells_each_transition_and_ends_with_its_code() {
    for (answers, code, lines) in [
        (vec![in_phase("running", 1.0), in_phase("running", 1.0), in_phase("completed", 100.0)], 0, 2),
        (vec![in_phase("running", 1.0), in_phase("rolled_back", 0.0)], 3, 2),
        (vec![in_phase("soaking", 99.0), in_phase("idle", 0.0)], 0, 2),
        (vec![in_phase("running", 99.0), in_phase("idle", 0.0)], 3, 2),
        (vec![in_phase("idle", 0.0)], 0, 1),
        (vec![in_phase("running", 1.0)], 4, 1),
    ] {
        let admin = serving(answers).await;
        let (got, out, err) = run("status chat --timeout 1s", &admin).await;
        assert_eq!((got, out.lines().count()), (ExitCode::from(code), lines), "{out}{err}");
        assert_eq!(err.contains("timed out"), code == 4);
    }
}

#[tokio::test]
async fn a_refusal_is_said_with_its_remedy_and_its_code() {
    for (status, code) in [(401, 5), (403, 5), (404, 1), (409, 5), (412, 5), (422, 5), (503, 1)] {
        let problem = json!({"status": status, "detail": "it is running", "remedy": "allowed now: pause"});
        let admin = serving(vec![(status, problem)]).await;
        let (got, out, err) = run("start chat", &admin).await;
        assert_eq!((got, out.as_str()), (ExitCode::from(code), ""), "{status}");
        assert_eq!(err, "serin: it is running\n  allowed now: pause\n");
    }
    let (got, _, err) = run("list", "http://127.0.0.1:1").await;
    assert_eq!(got, ExitCode::from(1));
    assert!(err.contains("http://127.0.0.1:1 does not answer") && err.contains("SERIN_ADMIN"), "{err}");
    assert_eq!(run("list", "ftp://x").await.0, ExitCode::from(2));
}

#[tokio::test]
async fn json_is_passed_on_as_it_came() {
    let admin = serving(vec![(200, json!({"items": [rollout()]}))]).await;
    let (_, out, _) = run("list -o json", &admin).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["items"][0]["later_field"], 1);
}

#[test]
fn a_first_configuration_is_good() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let init = |canary: &str| Local::Init { stable: "http://127.0.0.1:9001".into(), canary: canary.into() };
    assert_eq!(perform(&init("http://127.0.0.1:9002"), &mut out, &mut err), ExitCode::SUCCESS);
    let text = String::from_utf8(out).unwrap();
    assert!(crate::config::parse(&text, "serin.toml", &|_| None).is_ok());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(perform(&init("nonsense"), &mut out, &mut err), ExitCode::FAILURE);
    assert!(out.is_empty() && !err.is_empty());
}

#[test]
fn completions_name_the_commands() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    perform(&Local::Completions(clap_complete::Shell::Bash), &mut out, &mut err);
    assert!(String::from_utf8(out).unwrap().contains("step-back"));
}

const REGISTERED: &str = r##"
[listeners.e]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[rollouts.chat]
match = { host = "*", path_prefix = "/chat" }
unit = ["ip"]
stable = { version = "a", endpoints = ["http://127.0.0.1:1"] }
canary = { version = "b", endpoints = ["http://127.0.0.1:2"] }
register = { digest = "sha256:DIGEST", kind = "minor", risk = "low", owner = "ml-platform", contacts = ["#release"] }
[rollouts.other]
unit = ["ip"]
stable = { version = "a", endpoints = ["http://127.0.0.1:1"] }
"##;

#[tokio::test]
async fn a_files_entries_are_written_into_the_register_or_it_is_said_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serin.toml");
    let digest = "0a".repeat(32);
    std::fs::write(&file, REGISTERED.replace("DIGEST", &digest)).unwrap();
    let admin = serving(vec![in_phase("idle", 0.0)]).await;
    let (code, out, err) = run(&format!("register -c {}", file.display()), &admin).await;
    assert_eq!((code, err.as_str()), (ExitCode::SUCCESS, ""));
    assert_eq!(out, format!("chat registered b: minor, low risk, sha256:{digest}, owner ml-platform (#release)\n"));
    for (name, why) in [
        ("other", "has no entry to write: add digest, kind, owner and risk of the canary in [rollouts.other.register]"),
        ("nobody", "has no rollout \"nobody\""),
    ] {
        let (code, out, err) = run(&format!("register {name} -c {}", file.display()), &admin).await;
        assert_eq!((code, out.as_str()), (ExitCode::from(1), ""));
        assert!(err.contains(why), "{err}");
    }
    let problem = json!({"status": 409, "detail": "the configuration in force has another digest", "remedy": "reload"});
    let admin = serving(vec![(409, problem)]).await;
    let (code, _, err) = run(&format!("register chat -c {}", file.display()), &admin).await;
    assert_eq!(
        (code, err.as_str()),
        (ExitCode::from(5), "serin: the configuration in force has another digest\n  reload\n")
    );
}

#[tokio::test]
async fn the_register_is_shown_with_what_is_frozen_and_what_was_written() {
    let entry = json!({"version": "b", "digest": "sha256:0a", "kind": "minor", "owner": "ml", "contacts": [],
        "shadow_evidence": ["reports/0711"],
        "thresholds": [{"gate": "error_rate", "promote": "+0.1 pp", "rollback": "+0.5 pp", "on": "rollback"}]});
    let written = json!({"n": 7, "at": "2026-11-20T14:00:00.000Z", "decision": "start", "by": "alice", "reason": "", "entry": entry});
    let answer = json!({"rollout": "chat", "file": null, "frozen": entry, "entries": [written]});
    let admin = serving(vec![(200, answer)]).await;
    let (code, out, _) = run("register chat --show", &admin).await;
    assert_eq!(code, ExitCode::SUCCESS);
    golden(
        &out,
        "
chat
  file    nothing
  frozen  b: minor, sha256:0a, owner ml
  evidence  reports/0711
  error_rate: fine up to +0.1 pp, bad from +0.5 pp
  entry 7  2026-11-20T14:00:00.000Z  start by alice  b: minor, sha256:0a, owner ml
",
    );
}

#[test]
fn a_changed_digest_is_said_on_the_screen() {
    let mut json = rollout();
    json["register"] = json!({"digest": "sha256:0a", "kind": "minor", "risk": "high", "owner": "ml", "contacts": ["a", "b"], "frozen": true, "changed": "b was registered as another"});
    let text = screen::one(&read(json.clone()), Paint(false));
    assert!(
        text.contains(
            "  register    minor, high risk, sha256:0a, owner ml (a, b)\n  CHANGED     b was registered as another\n"
        ),
        "{text}"
    );
    json["register"]["frozen"] = json!(false);
    assert!(screen::one(&read(json), Paint(false)).contains("(a, b); of the file, not started\n"));
}

#[test]
fn a_journals_signatures_are_checked_with_the_keys_that_are_given() {
    use crate::journal::{Journal, Options, Signer};
    let Command::Local(Local::JournalVerify { keys, .. }) = typed("journal verify state --key a.pem --key b.pem")
    else {
        panic!("another command")
    };
    assert_eq!(keys.len(), 2);
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let (journal, public) = (dir.path().join("journal"), dir.path().join("public.pem"));
    std::fs::write(&public, pair.public_key_pem()).unwrap();
    let signer = std::sync::Arc::new(Signer::from_pem(pair.serialize_pem().as_bytes()).unwrap());
    drop(Journal::open_with(&journal, Options { signer: Some(signer), ..Options::default() }).unwrap());
    let verify = |key: &std::path::Path, output| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let local = Local::JournalVerify { path: journal.clone(), keys: vec![key.to_owned()], output };
        let code = perform(&local, &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let (code, out, _) = verify(&public, Output::Human);
    assert_eq!((code, out.as_str()), (ExitCode::SUCCESS, "good: the journal is empty\n"));
    let (_, out, _) = verify(&public, Output::Json);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["signatures"], 0);
    let other = dir.path().join("other.pem");
    std::fs::write(&other, rcgen::KeyPair::generate().unwrap().public_key_pem()).unwrap();
    let (code, out, err) = verify(&other, Output::Human);
    assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
    assert!(err.contains("other.pem: holds no ed25519 public key in PEM form; openssl pkey -in KEY -pubout"), "{err}");
    let (_, _, err) = verify(&dir.path().join("gone.pem"), Output::Human);
    assert!(err.contains("gone.pem: No such file"), "{err}");
}

#[tokio::test]
async fn a_gate_that_holds_is_said_with_since_when_and_why_and_is_a_transition_of_its_own() {
    let mut held = rollout();
    held["why"] = json!("ready; confirm-promotion holds: board answered 403 (asked since 14:02 UTC)");
    held["confirm"] = json!({"hook": "confirm-promotion", "since": "2026-11-20T14:02:11Z",
        "holds": [{"gate": "board", "why": "answered 403"}]});
    let text = screen::one(&read(held.clone()), Paint(false));
    let line = "  held by     board (confirm-promotion, asked since 2026-11-20T14:02:11Z): answered 403\n";
    assert!(text.contains(line), "{text}");
    let admin = serving(vec![(200, rollout()), (200, held.clone()), (200, held), in_phase("completed", 100.0)]).await;
    let (code, out, err) = run("status chat", &admin).await;
    assert_eq!((code, out.lines().count()), (ExitCode::SUCCESS, 3), "{out}{err}");
    assert!(out.lines().nth(1).unwrap().contains("confirm-promotion holds: board answered 403"), "{out}");
}
