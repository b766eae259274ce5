//! A latch that is set while the judge hangs is in force at once and outlives a crash: it is in the journal before the judge
//! has ever seen it, and the judge that comes back, here or after a restart, records it once.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};
use serin::journal::{Body, Latched, verify, visit};
use serin::names::Wall;
use serin::rollout::{Decision, Record};

use crate::client::{Admin, Caller};
use crate::fixture::{House, hang, head, rollout, shared, until};

/// 2026-11-20T14:00:00Z.
const FRIDAY: Wall = Wall(1_795_183_200_000);

/// A healthy stable version and a canary that answers nothing but 500.
struct Models {
    stable: ModelServer,
    canary: ModelServer,
}

impl Models {
    fn start() -> Self {
        let broken = Script { error_rate: 1.0, error_status: 500, ..Script::named("b") };
        let start = |script, seed| ModelServer::start(script, seed, Clock::system()).unwrap();
        Self { stable: start(Script::named("a"), 51), canary: start(broken, 52) }
    }

    /// Two rollouts that fall together, and one that does not, all with half of their units at the canary.
    fn config(&self) -> String {
        let plan = |name: &str, more: &str| {
            rollout(name, self.stable.addr(), self.canary.addr(), "")
                + &format!(
                    "[rollouts.{name}.plan]\n{more}\n[[rollouts.{name}.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\n\
                     [[rollouts.{name}.plan.stages]]\nweight = 100.0\n"
                )
        };
        let pair = "lockstep = \"pair\"";
        head(1, true) + &plan("chat", pair) + &plan("tools", pair) + &plan("alone", "")
    }
}

fn look(admin: &mut Admin, name: &str) -> Value {
    admin.must("GET", &format!("/api/v1/rollouts/{name}"), &json!(null))
}

/// One rollout's latches past the judge, and its records that are about a fall.
fn falls(dir: &Path, name: &str) -> (Vec<Latched>, Vec<Record>) {
    let (mut latches, mut records) = (Vec::new(), Vec::new());
    visit(&dir.join("state"), &mut |entry| match entry.body {
        Body::Latch(latched) if latched.rollout.as_str() == name => latches.push(*latched),
        Body::Record(record) if record.rollout.as_str() == name && record.state.latch.is_some() => {
            records.push(*record);
        }
        _ => {}
    })
    .unwrap();
    (latches, records)
}

/// What a crash of this moment would leave on the disk: another house begins with it.
fn crash(house: &House) -> House {
    let left = House { serin: None, dir: tempfile::tempdir().unwrap(), clock: Clock::manual(FRIDAY) };
    for folder in ["state", "state/journal", "state/evidence"] {
        std::fs::create_dir(left.dir.path().join(folder)).unwrap();
        for file in std::fs::read_dir(house.dir.path().join(folder)).unwrap().flatten() {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), left.dir.path().join(folder).join(file.file_name())).unwrap();
            }
        }
    }
    left
}

/// The house that a crash left begins again: latched as it was, at 0, recorded once, and only a person lifts it.
fn comes_back(left: &mut House, text: &str, name: &str, actor: &str, reason: &str, decision: Decision) {
    assert!(falls(left.dir.path(), name).1.is_empty(), "the judge has recorded nothing");
    left.write(text);
    for start in 0..2 {
        left.open();
        let mut admin = Admin::new(left.admin());
        let said = look(&mut admin, name);
        assert_eq!((&said["phase"], &said["weight"]), (&json!("rolled_back"), &json!(0.0)), "start {start}: {said}");
        assert_eq!((&said["latch"]["actor"], &said["latch"]["reason"]), (&json!(actor), &json!(reason)), "{said}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let edge = left.edge();
        let answer = runtime
            .block_on(async { Caller::connect(edge).await.unwrap().get(&format!("/{name}/x"), "u").await.unwrap() });
        assert_eq!((answer.why.as_str(), answer.canary), ("latched", false), "start {start}");
        until("the judge's own record", || (!falls(left.dir.path(), name).1.is_empty()).then_some(()));
        left.serin.take().unwrap().stop();
        let (_, records) = falls(left.dir.path(), name);
        assert_eq!(records.len(), 1, "start {start}: recorded once: {records:#?}");
        assert_eq!((records[0].decision, records[0].actor.as_str()), (decision, actor));
        assert_eq!((records[0].reason.as_str(), records[0].weight_before.percent()), (reason, 50.0));
        verify(&left.dir.path().join("state")).unwrap();
    }
    left.open();
    let mut admin = Admin::new(left.admin());
    let (status, said) = admin.call("POST", &format!("/api/v1/rollouts/{name}/start"), &json!({"reason": "again"}));
    assert_eq!(status, 409, "{said}");
    assert_eq!(admin.verb(name, "clear")["phase"], "idle");
    assert_eq!(admin.verb(name, "start")["weight"], 50.0);
    left.serin.take().unwrap().stop();
    left.open();
    let said = look(&mut Admin::new(left.admin()), name);
    assert_eq!(
        (&said["phase"], &said["latch"]),
        (&json!("running"), &json!(null)),
        "what was cleared stays so: {said}"
    );
}

#[test]
fn an_abort_while_the_judge_hangs_outlives_a_crash_with_who_and_why_and_is_recorded_once() {
    let _machine = shared();
    let models = Models::start();
    let text = models.config();
    let house = House::start(&text, &Clock::manual(FRIDAY));
    let mut admin = Admin::new(house.admin());
    for name in ["chat", "tools", "alone"] {
        admin.verb(name, "start");
    }
    let go_on = hang(house.serin());
    house.clock.advance(Duration::from_secs(11));
    let said = admin.must("POST", "/api/v1/rollouts/chat/abort", &json!({"reason": "it burns"}));
    assert_eq!((&said["latch"]["actor"], &said["weight"]), (&json!("local"), &json!(0.0)), "{said}");
    // Acknowledged and durable, though the judge has not spoken.
    let (latches, records) = falls(house.dir.path(), "chat");
    assert_eq!((latches.len(), records.len()), (1, 0));
    let of_group = "chat of the same group fell: it burns";
    comes_back(&mut crash(&house), &text, "chat", "local", "it burns", Decision::Abort);
    comes_back(&mut crash(&house), &text, "tools", "group", of_group, Decision::Abort);
    let alone = look(&mut admin, "alone");
    assert_eq!((&alone["phase"], &alone["weight"]), (&json!("running"), &json!(50.0)), "{alone}");
    // Here, without a crash, the judge takes it up when it goes on; it is no second fall.
    drop(go_on);
    until("its record", || (!falls(house.dir.path(), "tools").1.is_empty()).then_some(()));
    let said = look(&mut admin, "chat");
    assert_eq!((&said["phase"], &said["latch"]["reason"]), (&json!("rolled_back"), &json!("it burns")), "{said}");
    admin.verb("chat", "clear");
    for name in ["chat", "tools"] {
        let (latches, records) = falls(house.dir.path(), name);
        assert_eq!((latches.len(), records.len()), (1, 1), "{name}: {records:#?}");
        assert_eq!(records[0].state.rollbacks.iter().map(|(_, n)| *n).sum::<u32>(), 1, "{name} fell once");
    }
}

#[test]
fn a_breaker_that_opens_while_the_judge_hangs_outlives_a_crash_with_its_numbers() {
    let _machine = shared();
    let models = Models::start();
    let text = models.config();
    let house = House::start(&text, &Clock::manual(FRIDAY));
    let mut admin = Admin::new(house.admin());
    admin.verb("alone", "start");
    let go_on = hang(house.serin());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut caller = runtime.block_on(Caller::connect(house.edge())).unwrap();
    let mut unit = 0;
    until("the breaker", || {
        unit += 1;
        house.clock.advance(Duration::from_millis(10));
        let answer = runtime.block_on(caller.get("/alone/x", &format!("u{unit}"))).unwrap();
        (answer.why == "latched").then_some(())
    });
    let said = look(&mut admin, "alone");
    assert_eq!((&said["latch"]["actor"], &said["weight"]), (&json!("breaker"), &json!(0.0)), "{said}");
    let reason = said["latch"]["reason"].as_str().unwrap().to_owned();
    until("the guard's own entry", || (!falls(house.dir.path(), "alone").0.is_empty()).then_some(()));
    comes_back(&mut crash(&house), &text, "alone", "breaker", &reason, Decision::Rollback);
    drop(go_on);
    until("its record", || (!falls(house.dir.path(), "alone").1.is_empty()).then_some(()));
    assert_eq!(falls(house.dir.path(), "alone").0.len(), 1, "no second latch");
}
