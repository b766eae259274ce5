//! A lockstep group falls together while the evaluator hangs: by a person's abort, and by the guard's breaker.

use std::net::SocketAddr;

use serde_json::{Value, json};
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};

use crate::client::{Admin, Caller};
use crate::fixture::{House, hang, head, rollout, shared, until};

const PAIR: [&str; 2] = ["r0", "r1"];

fn house(stable: SocketAddr, canary_of_r0: SocketAddr) -> House {
    let one = |name: &str, canary: SocketAddr, group: &str| {
        rollout(name, stable, canary, "fallback = \"none\"")
            + &format!(
                "[rollouts.{name}.plan]\n{group}\n[[rollouts.{name}.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\n\
                 [[rollouts.{name}.plan.stages]]\nweight = 100.0\n"
            )
    };
    let text = head(1, false)
        + &one("r0", canary_of_r0, "lockstep = \"pair\"")
        + &one("r1", stable, "lockstep = \"pair\"")
        + &one("alone", stable, "")
        + &one("idle", stable, "lockstep = \"pair\"");
    let house = House::start(&text, &Clock::system());
    let mut admin = Admin::new(house.admin());
    for name in ["r0", "r1", "alone"] {
        assert_eq!(admin.verb(name, "start")["weight"], 50.0, "{name}");
    }
    house
}

fn latched(house: &House, name: &str) -> bool {
    house.serin().live.load().rollout(name).unwrap().split.latched
}

fn look(admin: &mut Admin, name: &str) -> Value {
    admin.must("GET", &format!("/api/v1/rollouts/{name}"), &json!(null))
}

/// The pair is latched, in the cell and for callers; the others go on.
fn fell_together(house: &House) {
    for (name, expect) in [("r0", true), ("r1", true), ("alone", false), ("idle", false)] {
        assert_eq!(latched(house, name), expect, "{name}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let why = |name: &str| {
        let path = format!("/{name}/x");
        runtime.block_on(async { Caller::connect(house.edge()).await.unwrap().get(&path, "u").await.unwrap().why })
    };
    assert_eq!(PAIR.map(why), ["latched", "latched"]);
}

/// The evaluator is back: it takes the latches over as they are, and says why.
fn is_taken_over(house: &House, by: &str, reason: &str) {
    let mut admin = Admin::new(house.admin());
    until("the group in the evaluator's words", || {
        PAIR.iter().all(|name| look(&mut admin, name)["phase"] == "rolled_back").then_some(())
    });
    let (first, second) = (look(&mut admin, "r0"), look(&mut admin, "r1"));
    assert_eq!(first["latch"]["actor"], by, "{first}");
    assert!(first["latch"]["reason"].as_str().unwrap().contains(reason), "{first}");
    assert_eq!(second["latch"]["actor"], "group", "{second}");
    assert!(second["latch"]["reason"].as_str().unwrap().starts_with("r0 of the same group fell: "), "{second}");
    assert_eq!(look(&mut admin, "alone")["phase"], "running");
    assert_eq!(look(&mut admin, "idle")["phase"], "idle");
    for name in PAIR {
        admin.verb(name, "clear");
        assert!(!latched(house, name), "{name}");
    }
}

fn server() -> ModelServer {
    ModelServer::start(Script::named("a"), 21, Clock::system()).unwrap()
}

#[test]
fn an_abort_takes_the_whole_group_to_zero_while_the_evaluator_hangs() {
    let _machine = shared();
    let server = server();
    let house = house(server.addr(), server.addr());
    let go_on = hang(house.serin());
    let said = Admin::new(house.admin()).verb("r0", "abort");
    assert!(said["weight"] == 0.0 && said["latch"].is_object(), "{said}");
    fell_together(&house);
    drop(go_on);
    is_taken_over(&house, "local", "test");
}

#[test]
fn the_guards_breaker_takes_the_whole_group_to_zero_while_the_evaluator_hangs() {
    let _machine = shared();
    let server = server();
    let house = house(server.addr(), "127.0.0.1:9".parse().unwrap());
    let go_on = hang(house.serin());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut user = 0;
    until("the breaker", || {
        user += 1;
        runtime.block_on(async {
            let mut caller = Caller::connect(house.edge()).await.unwrap();
            caller.get("/r0/x", &format!("u{user}")).await.unwrap();
        });
        latched(&house, "r0").then_some(())
    });
    fell_together(&house);
    drop(go_on);
    is_taken_over(&house, "breaker", "");
}
