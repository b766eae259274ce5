//! What a restart keeps: stage, weight, latch and evidence, after a good end and after kill -9.

use std::path::Path;

use serde_json::{Value, json};
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};

use crate::client::{Admin, Caller};
use crate::fixture::{House, head, rollout, shared, until};
use crate::process::Process;

const NAMES: [&str; 4] = ["staged", "plain", "dead", "cleared"];

fn config(server: &ModelServer) -> String {
    let plan = "[[rollouts.staged.plan.stages]]\nweight = 1.0\nresidence = \"24h\"\n\
                [[rollouts.staged.plan.stages]]\nweight = 25.0\nresidence = \"24h\"\n\
                [[rollouts.staged.plan.stages]]\nweight = 100.0\n\
                [rollouts.staged.gates.error_rate]\nrollback = \"+5pp\"\npromote = \"+1pp\"\n\
                [rollouts.staged.evaluator]\nwarm_up = \"0s\"\n";
    let on = |name: &str, more: &str| rollout(name, server.addr(), server.addr(), more);
    head(2, true)
        + &on("staged", "")
        + plan
        + &on("plain", "weight = 0.0")
        + &on("dead", "weight = 0.0")
        + &on("cleared", "weight = 0.0")
}

/// Brings every rollout to the point of its life that a restart must find again.
fn live_a_little(admin: &mut Admin) {
    admin.verb("staged", "start");
    admin.verb("staged", "promote");
    admin.weight("plain", 12.345);
    admin.weight("dead", 7.0);
    admin.verb("dead", "abort");
    admin.weight("cleared", 9.0);
    admin.verb("cleared", "abort");
    admin.verb("cleared", "clear");
}

/// What must be the same afterwards.
fn life(admin: &mut Admin) -> Value {
    NAMES
        .map(|name| {
            let said = admin.must("GET", &format!("/api/v1/rollouts/{name}"), &json!(null));
            let keys = ["name", "phase", "weight", "generation", "latch", "started_by"];
            let mut kept: Vec<Value> = keys.iter().map(|key| said[*key].clone()).collect();
            kept.push(said["stage"]["index"].clone());
            kept.push(said["stage"]["entered_at"].clone());
            Value::from(kept)
        })
        .to_vec()
        .into()
}

/// Samples of the staged rollout's gate.
fn samples(admin: &mut Admin) -> u64 {
    let said = admin.must("GET", "/api/v1/rollouts/staged", &json!(null));
    said["gates"][0]["samples"].as_u64().unwrap_or(0)
}

fn requests(edge: std::net::SocketAddr, range: std::ops::Range<u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut caller = Caller::connect(edge).await.unwrap();
        for user in range {
            let answer = caller.get("/staged/x", &format!("u{user}")).await.unwrap();
            assert_eq!(answer.status, 200);
        }
    });
}

/// The arms of some units by the requests' own tags.
fn arms(edge: std::net::SocketAddr) -> Vec<(bool, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut caller = Caller::connect(edge).await.unwrap();
        let mut arms = Vec::new();
        for name in ["plain", "dead"] {
            for user in 0..100 {
                let answer = caller.get(&format!("/{name}/x"), &format!("u{user}")).await.unwrap();
                arms.push((answer.canary, answer.why));
            }
        }
        arms
    })
}

fn server() -> ModelServer {
    ModelServer::start(Script::named("a"), 21, Clock::system()).unwrap()
}

#[test]
fn a_stop_and_a_start_keep_stage_weight_latch_arms_and_evidence() {
    let _machine = shared();
    let server = server();
    let mut house = House::start(&config(&server), &Clock::system());
    let mut admin = Admin::new(house.admin());
    live_a_little(&mut admin);
    requests(house.edge(), 0..400);
    let kept = until("evidence", || Some(samples(&mut admin)).filter(|n| *n >= 50));
    let (before, placed) = (life(&mut admin), arms(house.edge()));
    assert!(placed.iter().any(|(canary, _)| *canary) && placed.iter().any(|(_, why)| why == "latched"));
    for restart in 0..3 {
        house.serin.take().unwrap().stop();
        house.open();
        let mut admin = Admin::new(house.admin());
        assert_eq!(life(&mut admin), before, "restart {restart}");
        assert_eq!(arms(house.edge()), placed, "restart {restart}: the store's secret places the units");
        let again = samples(&mut admin);
        assert!(again >= kept, "restart {restart}: {again} of {kept} samples");
    }
    let mut admin = Admin::new(house.admin());
    let (status, said) = admin.call("PUT", "/api/v1/rollouts/dead/weight", &json!({"weight": 5.0, "reason": "test"}));
    assert_eq!(status, 409, "a latch wants a person's clear: {said}");
}

/// Whether a whole checkpoint of the evidence is on the disk: of both rollouts that have canary traffic.
fn kept(dir: &Path) -> Option<()> {
    let files = std::fs::read_dir(dir.join("state/evidence")).ok()?.flatten();
    let whole = files.filter(|file| file.path().extension().is_some_and(|end| end == "evidence")).count();
    (whole >= 2).then_some(())
}

#[test]
fn a_kill_9_keeps_what_was_acknowledged_and_the_evidence_of_the_last_checkpoint() {
    let _machine = shared();
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("serin.toml");
    std::fs::write(&file, config(&server).replace("DIR", dir.path().to_str().unwrap())).unwrap();
    let process = Process::start(&file);
    let mut admin = Admin::new(process.admin);
    live_a_little(&mut admin);
    requests(process.edge, 0..400);
    let proven = until("evidence", || Some(samples(&mut admin)).filter(|n| *n >= 50));
    let (before, placed) = (life(&mut admin), arms(process.edge));
    until("a checkpoint", || kept(dir.path()));
    process.crash();
    for crash in 0..4 {
        let process = Process::start(&file);
        let mut admin = Admin::new(process.admin);
        assert_eq!(life(&mut admin), before, "crash {crash}: {:#?}", process.said());
        assert_eq!(arms(process.edge), placed, "crash {crash}");
        let again = samples(&mut admin);
        assert!(again >= proven, "crash {crash}: {again} of {proven} samples");
        // An answered change is kept, however soon the crash comes.
        if crash == 3 {
            admin.verb("plain", "abort");
            process.crash();
            let process = Process::start(&file);
            let mut admin = Admin::new(process.admin);
            let said = admin.must("GET", "/api/v1/rollouts/plain", &json!(null));
            assert!(said["latch"].is_object() && said["phase"] == "rolled_back", "{said}");
        } else {
            process.crash();
        }
    }
}
