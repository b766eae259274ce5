//! The evaluator's sign of life: it beats under load; when it stops nothing rises, and traffic does not notice.

use std::time::Duration;

use serde_json::json;
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};
use serin::names::Wall;

use crate::client::{Admin, Caller};
use crate::fixture::{House, hang, head, rollout, shared, until};
use crate::receiver::Receiver;

/// The metric, in milliseconds.
fn beat(admin: &mut Admin) -> i64 {
    let text = admin.text("/metrics");
    let line = text.lines().find(|line| line.starts_with("serin_evaluator_heartbeat_timestamp_seconds")).unwrap();
    (line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() * 1e3) as i64
}

#[test]
fn the_evaluator_beats_four_times_a_second_and_a_hung_one_freezes_rises_but_no_traffic() {
    let _machine = shared();
    let clock = Clock::system();
    let server = ModelServer::start(Script::named("a"), 41, clock.clone()).unwrap();
    let text = head(2, false)
        + &rollout("chat", server.addr(), server.addr(), "weight = 10.0")
        + "[rollouts.chat.evaluator]\nheartbeat_timeout = \"1s\"\n";
    let house = House::start(&text, &clock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut caller = runtime.block_on(Caller::connect(house.edge())).unwrap();
    let mut serve = || runtime.block_on(caller.get("/chat/x", "u")).unwrap().status;
    let mut admin = Admin::new(house.admin());

    let (begun, mut beats) = (clock.now(), vec![beat(&mut admin)]);
    until("two seconds", || {
        assert_eq!(serve(), 200);
        let now = beat(&mut admin);
        if *beats.last().unwrap() != now {
            beats.push(now);
        }
        (clock.now().since(begun) >= Duration::from_secs(2)).then_some(())
    });
    let gap = beats.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!("{} beats in two seconds, {gap} ms between two at most", beats.len());
    assert!(beats.len() >= 8, "{beats:?}");

    let go_on = hang(house.serin());
    let body = json!({"weight": 20.0, "reason": "test"});
    let mut still = (beat(&mut admin), clock.now());
    until("a stale heartbeat", || {
        let now = beat(&mut admin);
        if now != still.0 {
            still = (now, clock.now());
        }
        assert_eq!((serve(), admin.call("GET", "/livez", &json!(null)).0), (200, 200));
        (clock.now().since(still.1) > Duration::from_millis(1_200)).then_some(())
    });
    let asked = clock.now();
    let (status, said) = admin.call("PUT", "/api/v1/rollouts/chat/weight", &body);
    assert_eq!(status, 503, "{said}");
    assert!(clock.now().since(asked) < Duration::from_secs(1), "refused at once, not after waiting");
    assert_eq!((serve(), admin.call("GET", "/livez", &json!(null)).0), (200, 200));

    drop(go_on);
    // The first beat is that of the turn that hung, and says when it began.
    until("it beats again", || (beat(&mut admin) > still.0 + 1_000).then_some(()));
    assert_eq!(admin.weight("chat", 20.0)["weight"], 20.0);
}

/// How old the sign of life is, by the API.
fn age(admin: &mut Admin) -> f64 {
    admin.must("GET", "/api/v1/rollouts/chat", &json!(null))["heartbeat_age_s"].as_f64().unwrap()
}

#[test]
fn a_judge_that_hangs_for_ten_minutes_freezes_rises_wakes_somebody_and_clears_by_itself_when_it_is_back() {
    let _machine = shared();
    let clock = Clock::manual(Wall(1_795_183_200_000));
    let server = ModelServer::start(Script::named("a"), 42, Clock::system()).unwrap();
    let ops = Receiver::start();
    let of = |name: &str| {
        rollout(name, server.addr(), server.addr(), "")
            + &format!(
                "[[rollouts.{name}.plan.stages]]\nweight = 10.0\nresidence = \"24h\"\n\
                 [[rollouts.{name}.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\n\
                 [[rollouts.{name}.plan.stages]]\nweight = 100.0\n"
            )
    };
    let house = House::start(&(head(1, false) + &ops.config("ops") + &of("chat") + &of("tools")), &clock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let serve =
        || runtime.block_on(async { Caller::connect(house.edge()).await.unwrap().get("/chat/x", "u").await.unwrap() });
    let mut admin = Admin::new(house.admin());
    admin.verb("chat", "start");
    admin.verb("tools", "start");
    until("a quiet judge", || (age(&mut admin) == 0.0).then_some(()));
    let (last, go_on) = (beat(&mut admin), hang(house.serin()));

    // Ten seconds of silence are none yet.
    clock.advance(Duration::from_secs(10));
    assert!((age(&mut admin) - 10.0).abs() < 0.001);
    assert_eq!(ops.told("heartbeat").len(), 0);
    clock.advance(Duration::from_secs(1));
    assert!((age(&mut admin) - 11.0).abs() < 0.001);
    assert_eq!(beat(&mut admin), last, "the metric says when it last lived");
    let lost = ops.wait("heartbeat", 1).remove(0);
    assert_eq!(
        (&lost["data"]["raises"], &lost["data"]["severity"]),
        (&json!("heartbeat"), &json!("warning")),
        "{lost}"
    );
    // Nothing rises, and nothing else that needs the judge is taken; traffic and liveness do not notice.
    let body = json!({"reason": "test"});
    for verb in ["promote", "approve", "resume", "pause", "step-back", "extend", "clear", "drill"] {
        let body = if verb == "extend" { json!({"reason": "test", "by": "1h"}) } else { body.clone() };
        let (status, said) = admin.call("POST", &format!("/api/v1/rollouts/chat/{verb}"), &body);
        assert_eq!(status, 503, "{verb}: {said}");
        assert!(said["detail"].as_str().unwrap().contains("silent for 11 s"), "{said}");
    }
    let (status, said) = admin.call("PUT", "/api/v1/rollouts/chat/weight", &json!({"weight": 20.0, "reason": "test"}));
    assert_eq!(status, 503, "{said}");
    assert_eq!((serve().status, admin.call("GET", "/livez", &json!(null)).0), (200, 200));

    // Nobody is woken before ten minutes are over.
    clock.advance(Duration::from_secs(588));
    assert!((age(&mut admin) - 599.0).abs() < 0.001);
    let body = json!({"reason": "nobody judges it"});
    let said = admin.must("POST", "/api/v1/rollouts/chat/abort", &body);
    assert_eq!((&said["phase"], &said["weight"]), (&json!("rolled_back"), &json!(0.0)), "{said}");
    assert_eq!(serve().why, "latched");
    assert_eq!(ops.told("heartbeat").len(), 1);
    clock.advance(Duration::from_secs(1));
    let page = ops.wait("heartbeat", 2).remove(1);
    assert_eq!(
        (&page["data"]["raises"], &page["data"]["severity"]),
        (&json!("heartbeat"), &json!("critical")),
        "{page}"
    );

    // It is back: told, cleared, the abort recorded as it was, and what was frozen rises again.
    drop(go_on);
    let found = ops.wait("heartbeat", 3).remove(2);
    assert_eq!(found["data"]["clears"], json!(["heartbeat"]), "{found}");
    until("a fresh sign of life", || (age(&mut admin) == 0.0 && beat(&mut admin) == last + 600_000).then_some(()));
    let said = admin.must("GET", "/api/v1/rollouts/chat", &json!(null));
    assert_eq!(
        (&said["phase"], &said["latch"]["reason"]),
        (&json!("rolled_back"), &json!("nobody judges it")),
        "{said}"
    );
    assert_eq!(admin.verb("tools", "promote")["weight"], 50.0, "what was frozen may rise again");
    let journal = admin.must("GET", "/api/v1/journal?limit=1000", &json!(null));
    let items = journal["items"].as_array().unwrap();
    let of = |name: &str| {
        let mine = items.iter().filter(|item| item["rollout"] == name);
        mine.map(|item| item["decision"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("tools"), ["start", "freeze", "thaw", "promote"]);
    let chat = of("chat");
    assert_eq!(chat.iter().filter(|decision| *decision == "abort").count(), 1, "{chat:?}");
    assert_eq!(ops.wait("aborted", 1).len(), 1);
    assert_eq!(ops.told("heartbeat").len(), 3, "each told once");
}
