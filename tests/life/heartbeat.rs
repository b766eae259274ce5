//! The evaluator's sign of life: it beats under load; when it stops nothing rises, and traffic does not notice.

use std::time::Duration;

use serde_json::json;
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};

use crate::client::{Admin, Caller};
use crate::fixture::{House, hang, head, rollout, shared, until};

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
