//! A weight is in force on every worker before its change is answered.

use serde_json::json;
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};

use crate::client::{Admin, Caller};
use crate::fixture::{House, head, rollout, shared};

const WORKERS: usize = 4;
const CALLERS: usize = 16;

#[test]
fn after_the_answer_to_a_weight_every_request_on_every_worker_sees_it() {
    let _machine = shared();
    let server = ModelServer::start(Script::named("a"), 31, Clock::system()).unwrap();
    let text = head(WORKERS, false) + &rollout("chat", server.addr(), server.addr(), "weight = 0.0");
    let house = House::start(&text, &Clock::system());
    let mut admin = Admin::new(house.admin());
    // The place of each unit, as `which` says it without any traffic.
    let places: Vec<(String, u64)> = (0..200)
        .map(|user| {
            let unit = format!("u{user}");
            let said = admin.must("GET", &format!("/api/v1/rollouts/chat/which?unit={unit}"), &json!(null));
            (unit, said["bucket"].as_u64().unwrap())
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut callers = runtime.block_on(async {
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            let mut caller = Caller::connect(house.edge()).await.unwrap();
            caller.get("/chat/x", "u").await.unwrap();
            callers.push(caller);
        }
        callers
    });
    let (mut seed, mut asked, mut canary) = (0x5eed_u64, 0, 0);
    for change in 0..300 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let weight = (seed >> 33) % 100_001;
        let said = admin.weight("chat", weight as f64 / 1_000.0);
        assert_eq!(said["weight"], weight as f64 / 1_000.0, "change {change}");
        // All connections at once, so every worker is asked: each must choose by the new weight.
        let answers =
            runtime.block_on(futures_util::future::join_all(callers.iter_mut().enumerate().map(|(number, caller)| {
                let (unit, bucket) = &places[(change * CALLERS + number) % places.len()];
                async move { (unit, *bucket, caller.get("/chat/x", unit).await.unwrap()) }
            })));
        for (unit, bucket, answer) in answers {
            assert_eq!(answer.canary, bucket < weight, "change {change}: {unit} in {bucket} at {weight}: {answer:?}");
            asked += 1;
            canary += u64::from(answer.canary);
        }
    }
    let workers = house.serin().recorders.all().len();
    assert!(workers > 0 && canary > asked / 4 && canary < asked * 3 / 4, "{canary} of {asked} on the canary");
    println!("300 weights, {asked} requests after their answers on {WORKERS} workers: all by the new weight");
}
