//! Users who talk to a model: sticky names, Zipf activity, Poisson arrivals that wait for nobody, and what they saw.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::behaviour::{HARM, QUALITY};
use super::client::{Client, Lease};
use super::dice::Dice;
use super::model_server::UPSTREAM_VERSION;

/// How a population behaves.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where it sends to.
    pub addr: SocketAddr,
    /// How many users there are; user `n` is called `user-n`.
    pub users: u32,
    /// Activity of the n-th user is n^−zipf: 0 for all alike, 1 for a few who do most.
    pub zipf: f64,
    /// Requests a second of all together, on average.
    pub rate: f64,
    /// Share of requests that ask for a stream.
    pub stream_share: f64,
    /// Most requests at once; what comes above it is counted as shed.
    pub in_flight_max: usize,
    /// Stop after so many requests; 0 goes on until told.
    pub requests_max: u64,
    /// Where users report what they think of answers; `None`: nowhere.
    pub feedback: Option<Feedback>,
    /// Which arrivals, users and streams are drawn.
    pub seed: u64,
}

/// Where users report to: `POST /api/v1/feedback` of an admin API without tokens.
#[derive(Clone, Debug)]
pub struct Feedback {
    /// The admin API's address.
    pub admin: SocketAddr,
    /// The rollout that they report on.
    pub rollout: &'static str,
}

impl Load {
    /// Two hundred users, a hundred requests a second, half of them streams.
    #[must_use]
    pub const fn on(addr: SocketAddr) -> Self {
        Self {
            addr,
            users: 200,
            zipf: 0.8,
            rate: 100.0,
            stream_share: 0.5,
            in_flight_max: 1_024,
            requests_max: 0,
            feedback: None,
            seed: 1,
        }
    }
}

/// How an answer looked to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// Whole and not empty.
    Good,
    /// 5xx.
    Failed,
    /// 429.
    Throttled,
    /// Another 4xx, or anything else that is not 200.
    Rejected,
    /// 200 with an error inside.
    InBandError,
    /// 200 without a word.
    Empty,
    /// Ended in the middle.
    Cut,
    /// No head came at all.
    NoAnswer,
}

/// What a population saw of one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PerVersion {
    /// Answers, by how they looked.
    pub sights: BTreeMap<Sight, u64>,
    /// Users who got an answer from it last.
    pub users: u64,
    /// Sum of the times to the end of the answer, in ms.
    pub total_ms: f64,
}

impl PerVersion {
    /// All answers.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.sights.values().sum()
    }

    /// Answers that looked so.
    #[must_use]
    pub fn saw(&self, sight: Sight) -> u64 {
        self.sights.get(&sight).copied().unwrap_or(0)
    }
}

/// What a population has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Requests sent.
    pub sent: u64,
    /// Reports about answers that were accepted, and those that were not.
    pub reports: Reports,
    /// Arrivals above the bound on requests at once, not sent.
    pub shed: u64,
    /// By the version that the answer named; `none` where it named none.
    pub versions: BTreeMap<String, PerVersion>,
    /// How often a user's next answer came from another version, by `from → to`.
    pub moves: BTreeMap<String, u64>,
}

impl Tally {
    /// All answers, and requests that ended without one.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.versions.values().map(PerVersion::answers).sum()
    }

    /// Answers that looked so, whatever the version.
    #[must_use]
    pub fn saw(&self, sight: Sight) -> u64 {
        self.versions.values().map(|version| version.saw(sight)).sum()
    }
}

/// Reports by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reports {
    /// Answered 202.
    pub accepted: u64,
    /// Answered otherwise, or not at all.
    pub rejected: u64,
}

#[derive(Debug, Default)]
struct Book {
    tally: Tally,
    last: BTreeMap<u32, (u64, String)>,
}

impl Book {
    /// Enters one answer; `number` orders a user's requests, so that answers that overtake each other are no moves.
    fn enter(&mut self, number: u64, user: u32, version: Option<String>, sight: Sight, ms: f64) {
        let name = version.clone().unwrap_or_else(|| "none".to_owned());
        let entry = self.tally.versions.entry(name).or_default();
        *entry.sights.entry(sight).or_default() += 1;
        entry.total_ms += ms;
        let Some(version) = version else { return };
        let (last, before) = match self.last.get(&user) {
            Some((last, before)) => (Some(*last), Some(before.clone())),
            None => (None, None),
        };
        if last.is_some_and(|last| last > number) {
            return;
        }
        if before.as_deref() != Some(version.as_str()) {
            if let Some(before) = &before {
                *self.tally.moves.entry(format!("{before} → {version}")).or_default() += 1;
                if let Some(left) = self.tally.versions.get_mut(before) {
                    left.users = left.users.saturating_sub(1);
                }
            }
            self.tally.versions.entry(version.clone()).or_default().users += 1;
        }
        self.last.insert(user, (number, version));
    }
}

/// A population at work, on a thread of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Population {
    book: Arc<Mutex<Book>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Population {
    /// Lets the users begin.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(load: Load) -> io::Result<Self> {
        let book = Arc::new(Mutex::new(Book::default()));
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = book.clone();
        let thread = std::thread::Builder::new()
            .name("users".to_owned())
            .spawn(move || runtime.block_on(live(load, shared, stopped)))?;
        Ok(Self { book, stop, thread: Some(thread) })
    }

    /// What they have seen so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).tally.clone()
    }

    /// Waits until they have sent [`Load::requests_max`] requests and seen the end of each.
    #[must_use]
    pub fn finish(mut self) -> Tally {
        self.join();
        self.tally()
    }

    /// Ends the sending, waits for answers under way (10 s at most), and says what was seen.
    #[must_use]
    pub fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        self.join();
        self.tally()
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // It panicked, which its own output has said; what was seen until then stands.
        }
    }
}

impl Drop for Population {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.join();
    }
}

/// How long answers under way are waited for at the end.
const LAST_WAIT: Duration = Duration::from_secs(10);

async fn live(load: Load, book: Arc<Mutex<Book>>, mut stopped: watch::Receiver<bool>) {
    let client = Client::new(load.addr);
    let reporter = load.feedback.map(|to| Reporter { client: Client::new(to.admin), rollout: to.rollout });
    let room = Arc::new(Semaphore::new(load.in_flight_max));
    let activity = cumulative_activity(load.users, load.zipf);
    let mut dice = Dice::new(load.seed);
    let mut under_way = JoinSet::new();
    let start = Instant::now();
    let mut due_s = 0.0;
    let mut number = 0;
    while load.requests_max == 0 || number < load.requests_max {
        due_s += dice.exponential() / load.rate.max(1e-6);
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            () = sleep_until(start + Duration::from_secs_f64(due_s)) => {}
        }
        while under_way.try_join_next().is_some() {}
        let user = pick(&activity, dice.unit());
        let stream = dice.chance(load.stream_share);
        let Ok(permit) = room.clone().try_acquire_owned() else {
            book.lock().unwrap_or_else(PoisonError::into_inner).tally.shed += 1;
            continue;
        };
        book.lock().unwrap_or_else(PoisonError::into_inner).tally.sent += 1;
        let (client, book, reporter) = (client.clone(), book.clone(), reporter.clone());
        under_way.spawn(async move {
            let begun = Instant::now();
            let Answer { version, sight, opinions } = ask(&client, user, stream).await;
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            book.lock().unwrap_or_else(PoisonError::into_inner).enter(number, user, version, sight, ms);
            drop(permit);
            let Some(reporter) = reporter else { return };
            for opinion in opinions {
                let accepted = reporter.report(opinion).await;
                let reports = &mut book.lock().unwrap_or_else(PoisonError::into_inner).tally.reports;
                *(if accepted { &mut reports.accepted } else { &mut reports.rejected }) += 1;
            }
        });
        number += 1;
    }
    let rest = async { while under_way.join_next().await.is_some() {} };
    if load.requests_max > 0 {
        tokio::select! {
            () = rest => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    } else if timeout(LAST_WAIT, rest).await.is_err() {
        // What has not ended by now is not counted as an answer.
    }
}

/// Running sums of n^−zipf, the last one 1.
#[must_use]
pub fn cumulative_activity(users: u32, zipf: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut sums: Vec<f64> = (1..=users.max(1))
        .map(|rank| {
            sum += f64::from(rank).powf(-zipf);
            sum
        })
        .collect();
    sums.iter_mut().for_each(|value| *value /= sum);
    sums
}

/// The user at `unit` (0..1) of the running sums of activity.
#[must_use]
pub fn pick(activity: &[f64], unit: f64) -> u32 {
    let index = activity.partition_point(|sum| *sum <= unit).min(activity.len() - 1);
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// What came back for one question.
struct Answer {
    version: Option<String>,
    sight: Sight,
    opinions: Vec<Opinion>,
}

impl Answer {
    const NONE: Self = Self { version: None, sight: Sight::NoAnswer, opinions: Vec::new() };
}

/// What a user thinks of one answer; reported under the user's name, which is what every form of serin can match.
struct Opinion {
    unit: String,
    metric: &'static str,
    value: f64,
}

/// Sends opinions to an admin API.
#[derive(Clone)]
struct Reporter {
    client: Client,
    rollout: &'static str,
}

impl Reporter {
    async fn report(&self, opinion: Opinion) -> bool {
        let body = json!({"unit": opinion.unit, "rollout": self.rollout,
                          "metric": opinion.metric, "value": opinion.value});
        let request = Request::post("/api/v1/feedback")
            .header(HOST, self.client.addr().to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())));
        let Ok(request) = request else { return false };
        let Ok((response, lease)) = self.client.send(request).await else { return false };
        let accepted = response.status() == StatusCode::ACCEPTED;
        let (body, whole) = read(response.into_body(), lease).await;
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        accepted && whole && said["accepted"] == 1
    }
}

async fn ask(client: &Client, user: u32, stream: bool) -> Answer {
    let unit = format!("user-{user}");
    let body = json!({"model": "demo", "stream": stream, "messages": [{"role": "user", "content": "sing me a song"}]});
    let request = Request::post("/v1/chat/completions")
        .header(HOST, "serin.demo")
        .header(CONTENT_TYPE, "application/json")
        .header("x-user-id", &unit)
        .body(Full::new(Bytes::from(body.to_string())));
    let Ok(request) = request else { return Answer::NONE };
    let Ok((response, lease)) = client.send(request).await else { return Answer::NONE };
    let version = version_of(response.headers());
    let opinions = opinions_of(&unit, response.headers());
    let status = response.status().as_u16();
    let (body, whole) = read(response.into_body(), lease).await;
    let sight = match status {
        429 => Sight::Throttled,
        500.. => Sight::Failed,
        200 if stream => stream_sight(&body, whole),
        200 => json_sight(&body, whole),
        _ => Sight::Rejected,
    };
    Answer { version, sight, opinions }
}

/// The scripted model says what a fair judge would think; the user reports it.
fn opinions_of(unit: &str, headers: &HeaderMap) -> Vec<Opinion> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let opinion = |metric, value| Opinion { unit: unit.to_owned(), metric, value };
    let quality = text(QUALITY.as_str()).and_then(|quality| quality.parse().ok());
    let harm = text(HARM.as_str()).map(|_| opinion("safety", 1.0));
    quality.map(|quality| opinion("quality", quality)).into_iter().chain(harm).collect()
}

/// `Serin-Version` when serin stands between, else what the model server says of itself.
fn version_of(headers: &HeaderMap) -> Option<String> {
    let name = headers.get("serin-version").or_else(|| headers.get(UPSTREAM_VERSION))?;
    name.to_str().ok().map(str::to_owned)
}

/// All bytes, and whether the body came to its proper end.
async fn read(mut body: Incoming, lease: Lease) -> (Bytes, bool) {
    let mut bytes = BytesMut::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    bytes.extend_from_slice(data);
                }
            }
            Some(Err(_)) => return (bytes.freeze(), false),
            None => {
                lease.give_back();
                return (bytes.freeze(), true);
            }
        }
    }
}

fn json_sight(body: &[u8], whole: bool) -> Sight {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return Sight::Cut };
    let message = &value["choices"][0]["message"];
    if value.get("error").is_some() {
        Sight::InBandError
    } else if !whole {
        Sight::Cut
    } else if is_said(&message["content"]) || is_said(&message["refusal"]) {
        Sight::Good
    } else {
        Sight::Empty
    }
}

fn stream_sight(body: &[u8], whole: bool) -> Sight {
    let text = String::from_utf8_lossy(body);
    let mut said = false;
    let mut done = false;
    for payload in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if payload == "[DONE]" {
            done = true;
            continue;
        }
        let Ok(chunk) = serde_json::from_str::<Value>(payload) else { continue };
        if chunk.get("error").is_some() {
            return Sight::InBandError;
        }
        let delta = &chunk["choices"][0]["delta"];
        said |= is_said(&delta["content"]) || is_said(&delta["refusal"]);
    }
    match (whole && done, said) {
        (false, _) => Sight::Cut,
        (true, true) => Sight::Good,
        (true, false) => Sight::Empty,
    }
}

fn is_said(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, ModelServer, Script, Spread};
    use super::*;
    use crate::clock::Clock;

    fn crowd(script: Script, change: impl FnOnce(&mut Load)) -> Tally {
        let server = ModelServer::start(script, 5, Clock::system()).unwrap();
        let mut load = Load { rate: 5_000.0, requests_max: 400, users: 50, ..Load::on(server.addr()) };
        change(&mut load);
        Population::start(load).unwrap().finish()
    }

    #[test]
    fn every_request_is_seen_once_under_the_version_that_answered() {
        let tally = crowd(Script::named("m-1"), |_| ());
        assert_eq!((tally.sent, tally.shed, tally.answers()), (400, 0, 400));
        assert_eq!(tally.versions["m-1"].saw(Sight::Good), 400);
        assert!(tally.moves.is_empty());
    }

    #[test]
    fn users_see_what_the_script_does_to_them() {
        let whole = |stream_share: f64| move |load: &mut Load| load.stream_share = stream_share;
        for stream in [0.0, 1.0] {
            for (script, sight) in [
                (Script { error_rate: 1.0, error_status: 503, ..Script::default() }, Sight::Failed),
                (Script { error_rate: 1.0, error_status: 429, ..Script::default() }, Sight::Throttled),
                (Script { error_rate: 1.0, error_status: 404, ..Script::default() }, Sight::Rejected),
                (Script { in_band_error_rate: 1.0, ..Script::default() }, Sight::InBandError),
                (Script { empty_rate: 1.0, ..Script::default() }, Sight::Empty),
                (Script { cut_rate: 1.0, ..Script::default() }, Sight::Cut),
                (Script { refusal_rate: 1.0, ..Script::default() }, Sight::Good),
                (Script { fault: Fault::ResetBeforeHead, ..Script::default() }, Sight::NoAnswer),
                (Script { fault: Fault::ResetAfterHead, ..Script::default() }, Sight::Cut),
            ] {
                let tally = crowd(script.clone(), whole(stream));
                assert_eq!(tally.saw(sight), 400, "stream {stream}, {script:?}: {tally:?}");
            }
        }
    }

    #[test]
    fn the_first_users_of_zipf_do_most_of_the_work() {
        let activity = cumulative_activity(100, 1.0);
        let mut dice = Dice::new(2);
        let first_ten = (0..10_000).filter(|_| pick(&activity, dice.unit()) < 10).count();
        // H(10)/H(100) = 2.929/5.187
        assert!((first_ten as f64 / 10_000.0 - 0.5647).abs() < 0.02, "{first_ten}");
        let alike = cumulative_activity(100, 0.0);
        let first_ten = (0..10_000).filter(|_| pick(&alike, dice.unit()) < 10).count();
        assert!((first_ten as f64 / 10_000.0 - 0.1).abs() < 0.02, "{first_ten}");
    }

    #[test]
    fn arrivals_wait_for_nobody_and_what_is_above_the_bound_is_shed() {
        let server =
            ModelServer::start(Script { fault: Fault::Hang, ..Script::default() }, 5, Clock::system()).unwrap();
        let load = Load { rate: 5_000.0, requests_max: 0, in_flight_max: 20, ..Load::on(server.addr()) };
        let population = Population::start(load).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(server.until(|counts| counts.held == 20));
        server.change(|script| script.fault = Fault::None);
        server.release();
        let tally = population.stop();
        assert!(tally.answers() >= 20 && tally.answers() == tally.sent, "{tally:?}");
    }

    #[test]
    fn a_users_change_of_version_is_a_move_and_an_overtaken_answer_is_none() {
        let mut book = Book::default();
        let mut enter = |number, version: &str| book.enter(number, 7, Some(version.to_owned()), Sight::Good, 1.0);
        enter(0, "a");
        enter(2, "b");
        enter(1, "a");
        enter(3, "b");
        assert_eq!(book.tally.moves, BTreeMap::from([("a → b".to_owned(), 1)]));
        assert_eq!((book.tally.versions["a"].users, book.tally.versions["b"].users), (0, 1));
    }

    #[test]
    fn what_a_user_thinks_is_reported_under_his_name_and_a_refused_report_is_counted() {
        let mut headers = HeaderMap::new();
        headers.insert(QUALITY, "0.8".parse().unwrap());
        headers.insert(HARM, "1".parse().unwrap());
        let said: Vec<_> = opinions_of("user-3", &headers).into_iter().map(|o| (o.unit, o.metric, o.value)).collect();
        assert_eq!(said, [("user-3".to_owned(), "quality", 0.8), ("user-3".to_owned(), "safety", 1.0)]);
        assert!(opinions_of("user-3", &HeaderMap::new()).is_empty());
        let server = ModelServer::start(Script::default(), 5, Clock::system()).unwrap();
        let reporter = Reporter { client: Client::new(server.addr()), rollout: "demo" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accepted = runtime.block_on(reporter.report(opinions_of("user-3", &headers).remove(0)));
        let request = server.requests().remove(0);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body, json!({"unit": "user-3", "rollout": "demo", "metric": "quality", "value": 0.8}));
        assert!(request.uri.path() == "/api/v1/feedback" && !accepted, "a model server accepts no feedback");
    }

    #[test]
    fn waiting_for_tokens_takes_the_time_that_the_script_says() {
        let script = Script {
            first_token_ms: Spread::fixed(20.0),
            per_token_ms: 2.0,
            tokens: Spread::fixed(6.0),
            ..Script::default()
        };
        let tally = crowd(script, |load| {
            load.requests_max = 20;
            load.stream_share = 1.0;
        });
        let mean = tally.versions["model"].total_ms / 20.0;
        assert!(mean >= 30.0, "20 ms to the first token and five times 2 ms took {mean} ms");
    }
}
