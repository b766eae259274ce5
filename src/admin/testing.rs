//! A whole admin side in memory, with an evaluator that answers as it is told.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::{Context, Parts, Side, router};
use crate::clock::Clock;
use crate::config;
use crate::evaluator::mailbox::{Inbox, mailbox};
use crate::evaluator::view::{Approvals, ArmView, Arms, EndpointsView, Exposed, RolloutView, Share, StageView};
use crate::evaluator::{Answer, Ask, Board, Command, Heartbeat, Letter};
use crate::journal::Journal;
use crate::judge::{Evidence, GateReport, GateResult, On};
use crate::measure::{Gauges, Recorders, SampleStore, SharedMemory};
use crate::names::Wall;
use crate::snapshot::{Builder, Live, Runtime};
use crate::split::{OpenCohorts, Weight};

/// 2026-11-20T14:00:00Z.
pub const START: Wall = Wall(1_795_183_200_000);

pub const TOKENS: &str = r#"
[[admin.tokens]]
name = "vera"
roles = ["viewer"]
secret = "viewer-secret-0123456789"
[[admin.tokens]]
name = "rob"
roles = ["reporter"]
secret = "reporter-secret-0123456789"
[[admin.tokens]]
name = "olga"
roles = ["operator"]
secret = "operator-secret-0123456789"
[[admin.tokens]]
name = "anna"
roles = ["approver"]
secret = "approver-secret-0123456789"
[[admin.tokens]]
name = "owen"
roles = ["owner"]
secret = "owner-secret-0123456789"
"#;

pub const CHAT: &str = r#"
[listeners.edge]
listen = "127.0.0.1:0"
[rollouts.chat]
match = { host = "*", path_prefix = "/" }
unit = ["header:x-user-id"]
[[rollouts.chat.cohorts]]
name = "internal"
when = { header = "x-org", is = ["acme"] }
to = "canary"
[rollouts.chat.stable]
version = "a"
endpoints = ["http://127.0.0.1:9001"]
[rollouts.chat.canary]
version = "b"
endpoints = ["http://127.0.0.1:9002"]
[rollouts.chat.plan]
preset = "standard"
"#;

pub struct Bench {
    pub cx: Context,
    pub router: Router,
    pub clock: Clock,
    pub inbox: Arc<Mutex<Inbox>>,
    pub board: Board,
    pub live: Live,
    pub gauges: Arc<Gauges>,
    pub recorders: Arc<Recorders>,
    pub journal: Arc<Journal>,
    pub token: Option<&'static str>,
}

pub struct Seen {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// The admin side of this configuration, everything at weight 0 and idle.
pub fn bench(tokens: &str) -> Bench {
    bench_with(tokens, "")
}

/// The same with more behind it.
pub fn bench_with(tokens: &str, more: &str) -> Bench {
    let listen = "[admin]\nlisten = \"127.0.0.1:8081\"\nhosts = [\"serin.internal\"]\n";
    let text = format!("{listen}{tokens}{CHAT}{more}");
    let config = config::parse(&text, "test.toml", &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let recorders = Arc::new(Recorders::new(2));
    let builder = Builder::new(Arc::default(), Arc::clone(&recorders), b"secret");
    let prepared = builder.prepare(Arc::new(config)).unwrap();
    let live = Live::new(prepared.merge(|_| Runtime::default()));
    let (mailbox, inbox) = mailbox();
    let clock = Clock::manual(START);
    let (board, heartbeat, gauges) = (Board::default(), Heartbeat::default(), Arc::new(Gauges::new(2, clock.now())));
    let journal = Arc::new(Journal::memory().unwrap());
    gauges.serving.store(true, Ordering::Relaxed);
    heartbeat.beat(clock.now(), clock.wall());
    let parts = Parts {
        live: live.clone(),
        board: board.clone(),
        mailbox,
        heartbeat: heartbeat.clone(),
        recorders: Arc::clone(&recorders),
        gauges: Arc::clone(&gauges),
        clock: clock.clone(),
        reload: Arc::new(|| Err("serin.toml:3:1: admin.listne: unknown key".to_owned())),
        settle: Arc::new(|| Box::pin(std::future::ready(()))),
        journal: Arc::clone(&journal),
        told: Arc::default(),
        memory: SharedMemory::new(1_000),
        references: builder.references(),
        samples: (SampleStore::default(), crate::measure::sample::samples().0),
    };
    let side = Side::Tcp { local: "127.0.0.1:8081".parse().unwrap(), tls: false };
    let cx = Context::new(parts, side);
    let router = router(cx.clone());
    let inbox = Arc::new(Mutex::new(inbox));
    Bench { cx, router, clock, inbox, board, live, gauges, recorders, journal, token: None }
}

impl Bench {
    pub fn with_token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    /// The canary has this share and the board says so.
    pub fn running(&self, weight: f64) {
        let share = Weight::from_percent(weight).unwrap();
        self.live.update_runtime("chat", |_| {
            Some(Runtime { weight: share, latch: None, open: OpenCohorts::AllBut(Vec::new()) })
        });
        self.board.post(vec![Arc::new(view("running", weight))]);
    }

    /// Answers the next letter so, on a thread of its own; gives back the command.
    pub fn answer(
        &self,
        answer: impl FnOnce(&Command) -> Answer + Send + 'static,
    ) -> std::thread::JoinHandle<Option<Command>> {
        let inbox = Arc::clone(&self.inbox);
        std::thread::spawn(move || {
            let letter = inbox.lock().unwrap().next(Duration::from_secs(5)).ok()??;
            let Letter { ask: Ask::Command(command), answer: back } = letter else { return None };
            back(answer(&command));
            Some(command)
        })
    }

    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Seen {
        self.send(method, path, &[], body).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Seen {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "127.0.0.1:8081");
        }
        if let Some(token) = self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), 4 << 20).await.unwrap();
        Seen { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }
}

/// A rollout as the evaluator would post it.
pub fn view(phase: &'static str, weight: f64) -> RolloutView {
    let arm = |version: &str, users, requests| ArmView {
        version: Some(version.to_owned()),
        users,
        requests,
        share: Share { users: Some(80.1), requests: Some(80.06), cost: Some(79.0) },
        endpoints: EndpointsView { healthy: 2, all: 2 },
        ..ArmView::default()
    };
    RolloutView {
        name: "chat".into(),
        phase,
        why: "10 % since 14:02; latency_p99 needs about 1 h 50 m more".into(),
        verdict: "hold",
        verdict_reason: "latency_p99: log evidence 1.8 of 3.0".into(),
        generation: 41,
        weight,
        weight_actual: Some(weight * 0.99),
        stages: vec![1.0, 5.0, 10.0, 25.0, 50.0, 100.0],
        stage: Some(StageView {
            index: 2,
            of: 6,
            weight: 10.0,
            entered_at: Some("2026-11-20T14:02:11Z".into()),
            residence_left_s: 3_600.0,
            deadline_at: None,
            waits_for: Some("residence"),
            approvals: Approvals { needed: 1, given: vec!["anna".into()] },
        }),
        started_by: Some("olga".into()),
        paused: None,
        soak_ends_at: None,
        next_version: None,
        latch: None,
        arms: Arms {
            stable: arm("a", 9_000, 120_034),
            baseline: arm("a", 1_284, 13_000),
            canary: arm("b", 1_284, 13_207),
        },
        gates: vec![gate("error_rate", "ratio", GateResult::Pass), gate("latency_p99", "ms", GateResult::Inconclusive)],
        exposed: Exposed { users: 1_284, requests: 41_207, cost_usd: 112.4, ..Exposed::default() },
        drill: None,
        confirm: None,
        register: None,
        heartbeat_age_s: 0.2,
        allowed: vec!["promote", "pause", "set weight", "step-back", "extend", "abort", "drill"],
    }
}

pub fn gate(name: &str, unit: &'static str, result: GateResult) -> GateReport {
    let scale = if unit == "ms" { 1_000.0 } else { 0.003 };
    GateReport {
        name: name.into(),
        unit,
        on: On::Rollback,
        required: true,
        result,
        stable: Some(scale),
        canary: Some(scale * 1.05),
        difference: Some(scale * 0.05),
        interval: Some([-scale * 0.1, scale * 0.3]),
        promote: Some(scale * 0.2),
        rollback: Some(scale * 0.5),
        limit: None,
        evidence: Evidence { rollback: 0.4, bar: 7.6, promote: 1.8, promote_bar: 3.0 },
        samples: 5_120,
        samples_needed: Some(8_400),
        users: 311,
        design_effect: 1.3,
        eta_s: Some(6_600.0),
        why: "not proven either way".into(),
    }
}
