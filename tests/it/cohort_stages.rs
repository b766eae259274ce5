//! Stages of weight 0 on real sockets: the first cohort's people prove the canary to the second's, and both to drawn ones.

use super::support::{Client, Proxy, Upstream, canary, chat, eventually, stable};

const PLAN: &str = "[rollouts.chat.plan]\nstart = \"on_new_version\"\n\
    [[rollouts.chat.plan.stages]]\nweight = 0.0\ncohorts = [\"internal\"]\nresidence = \"1s\"\nsamples = 20\n\
    [[rollouts.chat.plan.stages]]\nweight = 0.0\ncohorts = [\"beta\"]\nresidence = \"1s\"\nsamples = 20\n\
    [[rollouts.chat.plan.stages]]\nweight = 5.0\nresidence = \"1h\"\nsamples = 500\n\
    [[rollouts.chat.plan.stages]]\nweight = 100.0\n\
    [rollouts.chat.evaluator]\nwarm_up = \"0s\"\n";

fn stage(proxy: &Proxy) -> Option<usize> {
    let view = proxy.serin().board.rollout("chat")?;
    view.stage.as_ref().map(|stage| stage.index)
}

#[test]
fn cohort_stages_are_passed_by_their_own_peoples_answers() {
    let (a, b) = (Upstream::ok(), Upstream::ok());
    let cohorts: String = ["internal", "beta"]
        .iter()
        .map(|name| {
            format!("[[rollouts.chat.cohorts]]\nname = \"{name}\"\nwhen = {{ header = \"x-org\", is = [\"{name}\"] }}\nto = \"canary\"\n")
        })
        .collect();
    let tables = [stable(a.addr, "").as_str(), canary(b.addr, "").as_str(), cohorts.as_str(), PLAN].concat();
    let proxy = Proxy::start(&chat("", &tables));
    let mut client = proxy.connect();
    let arm = |client: &mut Client, org: &str| {
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user-id: u\r\nx-org: {org}\r\n\r\n"));
        client.response().unwrap().header("serin-arm").unwrap().to_owned()
    };
    eventually("stage 0", || stage(&proxy) == Some(0));
    assert_eq!((arm(&mut client, "internal").as_str(), arm(&mut client, "beta").as_str()), ("canary", "stable"));
    for _ in 0..30 {
        arm(&mut client, "internal");
    }
    eventually("stage 1", || stage(&proxy) == Some(1));
    assert_eq!(arm(&mut client, "beta"), "canary");
    for org in ["beta", "internal"] {
        for _ in 0..15 {
            assert_eq!(arm(&mut client, org), "canary");
        }
    }
    eventually("drawn units", || stage(&proxy) == Some(2));
    assert_eq!(proxy.serin().live.load().rollout("chat").unwrap().split.weight.percent(), 5.0);
    assert_eq!(proxy.metric("serin_rollout_stage", &[]), 2.0);
}
