//! A judge whose every fact and tick is recorded where `trace` is set, and the thread that writes the files.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::config::model_rollout::Trace;
use crate::judge::{Fact, Item, Judge, Policy, Stage, TraceWriter, Verdict};
use crate::names::Mono;

/// Batches on their way to the writer: with [`ITEMS`] some 30 MB, and a minute of a hung disk at four ticks a second.
const BATCHES: usize = 256;
/// A batch goes at each tick, and when it has this many.
const ITEMS: usize = 1_024;
/// A trace begins anew, with the judge's evidence, after this long (13 days): a JSON reader's numbers hold that many
/// nanoseconds exactly.
const LONGEST_NS: u64 = 1 << 50;
/// After something was lost, the judge's evidence is offered no more often than this.
const OFFER_EVERY_NS: u64 = 1_000_000_000;
/// Kept free for the last line.
const END_ROOM: u64 = 64;

/// The way to the thread that writes.
pub type Tracing = SyncSender<Batch>;

/// What one judge was told, for one file.
#[derive(Debug)]
pub struct Batch {
    trace: Arc<Trace>,
    items: Vec<Item>,
    ended: Arc<AtomicBool>,
}

/// A judge, and the record of what it is told. Reading goes to the judge itself.
pub struct TracedJudge {
    judge: Judge,
    /// What was asked for, also when its file has ended.
    trace: Option<Trace>,
    tracer: Option<Tracer>,
}

impl Deref for TracedJudge {
    type Target = Judge;

    fn deref(&self) -> &Judge {
        &self.judge
    }
}

impl TracedJudge {
    /// A judge that has seen nothing, not recorded.
    #[must_use]
    pub fn new(policy: Arc<Policy>, at: Mono) -> Self {
        Self { judge: Judge::new(policy, at), trace: None, tracer: None }
    }

    /// Records from now on as `trace` says; this judge has seen nothing.
    pub fn record_new(&mut self, tracing: Option<&Tracing>, trace: Option<&Trace>, at: Mono) {
        self.trace = trace.cloned();
        self.tracer = tracing.zip(trace).map(|(tracing, trace)| Tracer::new(tracing.clone(), trace.clone(), at));
        self.note(|| Item::Begin { at, evidence: None });
    }

    /// Records from now on as `trace` says, beginning with the evidence so far. Nothing happens where it already does.
    pub fn record(&mut self, tracing: Option<&Tracing>, trace: Option<&Trace>, at: Mono) {
        if self.trace.as_ref() == trace {
            return;
        }
        self.trace = trace.cloned();
        self.tracer = tracing.zip(trace).map(|(tracing, trace)| Tracer::new(tracing.clone(), trace.clone(), at));
        self.note_begin(at);
    }

    /// Another judge, that has seen nothing, takes the seat.
    pub fn renew(&mut self, policy: Arc<Policy>, at: Mono) {
        self.judge = Judge::new(policy, at);
        self.note(|| Item::Begin { at, evidence: None });
        self.rebase(at);
    }

    /// A judge with evidence takes the seat.
    pub fn replace(&mut self, judge: Judge, at: Mono) {
        self.judge = judge;
        self.note_begin(at);
    }

    /// [`Judge::observe`].
    pub fn observe(&mut self, fact: &Fact) {
        self.judge.observe(fact);
        self.note(|| Item::Fact(fact.clone()));
    }

    /// [`Judge::records_dropped`].
    pub fn records_dropped(&mut self, at: Mono) {
        self.judge.records_dropped(at);
        self.note(|| Item::Dropped { at, lost: 0 });
    }

    /// [`Judge::enter_stage`].
    pub fn enter_stage(&mut self, stage: Stage, at: Mono) {
        self.judge.enter_stage(stage, at);
        self.note(|| Item::Stage { at, stage });
    }

    /// [`Judge::weight_changed`].
    pub fn weight_changed(&mut self, weight: f64, at: Mono) {
        self.judge.weight_changed(weight, at);
        self.note(|| Item::Weight { at, weight });
    }

    /// [`Judge::tick`].
    pub fn tick(&mut self, now: Mono) -> Verdict {
        let verdict = self.judge.tick(now);
        self.note(|| Item::Tick(now));
        let Some(tracer) = &mut self.tracer else { return verdict };
        if tracer.ended.load(Ordering::Relaxed) {
            self.tracer = None;
        } else if tracer.lost > 0 {
            tracer.offer(&self.judge, now);
        } else if now.0.saturating_sub(tracer.origin.0) > LONGEST_NS {
            self.note_begin(now);
        } else {
            tracer.send();
        }
        verdict
    }

    fn note(&mut self, item: impl FnOnce() -> Item) {
        if let Some(tracer) = &mut self.tracer {
            tracer.note(item());
        }
    }

    fn note_begin(&mut self, at: Mono) {
        if self.tracer.is_some() {
            let evidence = self.judge.checkpoint();
            self.note(|| Item::Begin { at, evidence: Some(evidence) });
            self.rebase(at);
        }
    }

    fn rebase(&mut self, at: Mono) {
        if let Some(tracer) = &mut self.tracer {
            tracer.origin = at;
        }
    }
}

/// The judge's end of the way. Never waits: what finds no room is counted, and the trace says so when there is room.
struct Tracer {
    tracing: Tracing,
    trace: Arc<Trace>,
    items: Vec<Item>,
    /// Since this was last 0, nothing is sent but the news of it, with evidence to go on from.
    lost: u64,
    offered: Mono,
    origin: Mono,
    ended: Arc<AtomicBool>,
}

impl Tracer {
    fn new(tracing: Tracing, trace: Trace, origin: Mono) -> Self {
        let trace = Arc::new(trace);
        Self { tracing, trace, items: Vec::new(), lost: 0, offered: Mono(0), origin, ended: Arc::default() }
    }

    fn note(&mut self, item: Item) {
        if self.lost > 0 {
            self.lost += 1;
            return;
        }
        self.items.push(item);
        if self.items.len() >= ITEMS {
            self.send();
        }
    }

    fn send(&mut self) {
        if self.items.is_empty() {
            return;
        }
        let items = std::mem::take(&mut self.items);
        let count = items.len() as u64;
        if !self.try_send(items) {
            self.lost += count;
            tracing::warn!(trace.path = %self.trace.path.display(), "the trace has a gap: its disk is behind");
        }
    }

    /// Tells of the loss, and of all that the judge knows now: from here on the trace is exact again.
    fn offer(&mut self, judge: &Judge, now: Mono) {
        if now.0.saturating_sub(self.offered.0) < OFFER_EVERY_NS {
            return;
        }
        self.offered = now;
        let begin = Item::Begin { at: now, evidence: Some(judge.checkpoint()) };
        if self.try_send(vec![Item::Dropped { at: now, lost: self.lost }, begin]) {
            self.lost = 0;
            self.origin = now;
        }
    }

    fn try_send(&self, items: Vec<Item>) -> bool {
        let batch = Batch { trace: Arc::clone(&self.trace), items, ended: Arc::clone(&self.ended) };
        match self.tracing.try_send(batch) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => {
                self.ended.store(true, Ordering::Relaxed);
                true
            }
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.lost == 0 {
            self.send();
        }
    }
}

/// Starts the thread that writes traces: its own, so that a hung disk delays nobody. It ends, the traces whole, when the
/// last judge is gone.
///
/// # Errors
/// No thread could be started.
pub fn spawn() -> io::Result<(Tracing, JoinHandle<()>)> {
    let (tracing, batches) = sync_channel(BATCHES);
    let handle = std::thread::Builder::new().name("serin-trace".to_owned()).spawn(move || write_all(&batches))?;
    Ok((tracing, handle))
}

fn write_all(batches: &Receiver<Batch>) {
    let mut outputs: HashMap<PathBuf, Output> = HashMap::new();
    while let Ok(Batch { trace, items, ended }) = batches.recv() {
        let output = outputs.entry(trace.path.clone()).or_insert_with(|| Output::open(&trace));
        output.allow(&trace);
        output.take(items);
        if output.file.is_none() {
            ended.store(true, Ordering::Relaxed);
        }
    }
    for output in outputs.values_mut() {
        output.finish();
    }
}

/// One file.
struct Output {
    trace: Arc<Trace>,
    /// None, once nothing more is written.
    file: Option<File>,
    bytes: u64,
    writer: TraceWriter,
    last_ts: LastTs,
}

/// How the last line written begins: `{"ts":` and its time. The writer itself may be further than the file.
struct LastTs(Vec<u8>);

impl LastTs {
    fn follow(&mut self, lines: &[u8]) {
        if let Some(line) = lines.split_inclusive(|byte| *byte == b'\n').next_back()
            && let Some(head) = line.split(|byte| *byte == b',').next()
        {
            self.0 = head.to_vec();
        }
    }
}

impl Output {
    fn open(trace: &Arc<Trace>) -> Self {
        let (file, bytes) = match open(&trace.path) {
            Ok((file, bytes)) => (Some(file), bytes),
            Err(error) => {
                tracing::error!(trace.path = %trace.path.display(), error = %error, "the trace cannot be written: what is judged is not recorded");
                (None, 0)
            }
        };
        Self {
            trace: Arc::clone(trace),
            file,
            bytes,
            writer: TraceWriter::default(),
            last_ts: LastTs(br#"{"ts":0"#.to_vec()),
        }
    }

    /// A reload may have given it more room.
    fn allow(&mut self, trace: &Arc<Trace>) {
        if self.trace.max_bytes == trace.max_bytes {
            return;
        }
        self.trace = Arc::clone(trace);
        if self.file.is_none() {
            *self = Self::open(trace);
        }
    }

    fn take(&mut self, items: Vec<Item>) {
        if self.file.is_none() {
            return;
        }
        let mut lines = Vec::new();
        for item in items {
            self.writer.take(item, &mut lines);
        }
        self.write(&lines);
    }

    fn finish(&mut self) {
        let mut lines = Vec::new();
        self.writer.finish(&mut lines);
        self.write(&lines);
    }

    /// Writes whole lines, as many as there is room for; those that are too many end the trace.
    fn write(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let room = self.trace.max_bytes.saturating_sub(self.bytes);
        if lines.len() as u64 + END_ROOM <= room {
            self.bytes += lines.len() as u64;
            self.last_ts.follow(lines);
            if let Err(error) = file.write_all(lines) {
                tracing::error!(trace.path = %self.trace.path.display(), error = %error, "the trace has ended: it cannot be written");
                self.file = None;
            }
            return;
        }
        let fits = usize::try_from(room.saturating_sub(END_ROOM)).unwrap_or(usize::MAX).min(lines.len());
        let whole = memchr::memrchr(b'\n', &lines[..fits]).map_or(0, |at| at + 1);
        let mut last = lines[..whole].to_vec();
        self.last_ts.follow(&last);
        if room >= END_ROOM {
            last.extend_from_slice(&self.last_ts.0);
            last.extend_from_slice(b",\"event\":\"end\"}\n");
        }
        if let Err(error) = file.write_all(&last) {
            tracing::error!(trace.path = %self.trace.path.display(), error = %error, "the end of the trace is lost");
        }
        self.file = None;
        tracing::warn!(trace.path = %self.trace.path.display(), max_bytes = self.trace.max_bytes, "the trace is full and has ended: what is judged from here on is not recorded");
    }
}

/// Opens a trace to go on with it, without the half line that a killed process may have left.
fn open(path: &Path) -> io::Result<(File, u64)> {
    const BLOCK: u64 = 1 << 16;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = Vec::new();
    while end > 0 {
        let from = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(from))?;
        (&file).take(end - from).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            end = from + at as u64 + 1;
            break;
        }
        end = from;
    }
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    Ok((file, end))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::judge::replay::{Speaker, replay_heard};
    use crate::judge::{End, Flags, Metric, Outcome, Rule, Stat};
    use crate::names::{Arm, Script, Wall};

    const POLICY: &str = r#"
[evaluator]
min_stage_s = 40
warmup_s = 5
min_canary_requests = 50
min_canary_users = 5
[[rule]]
name = "errors"
metric = "error"
stat = "rate"
promote = 0.05
rollback = 0.2
hard = true
[[rule]]
name = "latency"
metric = "latency_ms"
stat = "quantile"
q = 0.9
promote = 1.5
rollback = 3.0
[[rule]]
name = "ttft"
metric = "ttft_ms"
stat = "quantile"
q = 0.5
promote = 1.5
rollback = 3.0
[[rule]]
name = "tokens"
metric = "tokens"
stat = "mean"
promote = 1.5
rollback = 3.0
[[rule]]
name = "cost"
metric = "cost"
stat = "mean"
promote = 1.5
rollback = 3.0
[[rule]]
name = "quality"
metric = "quality"
stat = "mean"
promote = 0.8
rollback = 0.5
direction = "lower"
[[rule]]
name = "safety"
metric = "safety"
stat = "zero"
"#;

    fn policy() -> Policy {
        let mut policy = Policy::from_toml(POLICY).unwrap();
        let like = policy.rules[5].clone();
        let score = Rule { name: "tone".into(), metric: Metric::Score("tone".into()), required: false, ..like.clone() };
        let metric = Metric::Prometheus("load".into());
        let query = Rule { name: "load".into(), metric, stat: Stat::Breaches(20), required: false, ..like };
        policy.rules.extend([score, query]);
        policy
    }

    struct Dice(u64);

    impl Dice {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn below(&mut self, n: u64) -> u64 {
            self.next() % n
        }

        fn share(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1u64 << 53) as f64
        }

        fn chance(&mut self, p: f64) -> bool {
            self.share() < p
        }
    }

    /// The live side: a judge under an evaluator's hands, and what it said.
    struct Live {
        policy: Arc<Policy>,
        clock: Clock,
        dice: Dice,
        judge: TracedJudge,
        tracing: Tracing,
        trace: Trace,
        origin: Mono,
        speaker: Speaker,
        lines: Vec<u8>,
        said: Vec<(Mono, Verdict)>,
        /// By when they come to the judge.
        coming: BTreeMap<(u64, u64), Fact>,
        sequence: u64,
        ids: u64,
        weight: f64,
        sick: bool,
    }

    impl Live {
        fn new(seed: u64, tracing: Tracing, trace: Trace) -> Self {
            let policy = Arc::new(policy());
            let clock = Clock::manual(Wall(0));
            let mut dice = Dice(seed);
            // The machine's clock counts from 1970.
            clock.advance(Duration::from_nanos(1_700_000_000_000_000_000 + dice.below(1 << 40)));
            let origin = clock.now();
            let mut judge = TracedJudge::new(Arc::clone(&policy), origin);
            judge.record_new(Some(&tracing), Some(&trace), origin);
            let speaker = Speaker::default();
            let (lines, said, coming) = (Vec::new(), Vec::new(), BTreeMap::new());
            let (sequence, ids, weight, sick) = (0, 0, 0.0, false);
            Self {
                policy,
                clock,
                dice,
                judge,
                tracing,
                trace,
                origin,
                speaker,
                lines,
                said,
                coming,
                sequence,
                ids,
                weight,
                sick,
            }
        }

        /// Comes to the judge at about the time at which it becomes known: a little before (a drain after `now` was
        /// taken), or late, or much too late.
        fn send(&mut self, fact: Fact) {
            let known = fact.known().0;
            let comes = match self.dice.below(200) {
                0 => known + self.dice.below(4_000_000_000),
                1..10 => known.saturating_sub(self.dice.below(5_000_000)),
                _ => known + self.dice.below(15_000_000),
            };
            self.sequence += 1;
            self.coming.insert((comes, self.sequence), fact);
        }

        fn exchange(&mut self, now: u64) {
            self.ids += 1;
            let (id, dice) = (self.ids, &mut self.dice);
            let at = now - dice.below(20_000_000);
            let user = 1 + dice.below(200) * 0x0123_4567_89ab_cdef;
            let canary = dice.chance(self.weight);
            let arm = if canary { Arm::Canary } else { [Arm::Stable, Arm::Baseline][dice.below(2) as usize] };
            let drawn = !dice.chance(0.05);
            let bad = dice.chance(if canary && self.sick { 0.6 } else { 0.02 });
            let took = 50_000_000 + (dice.share().powi(3) * 3e9) as u64;
            let first = at + (took as f64 * dice.share()) as u64;
            let streams = dice.chance(0.7);
            let outcomes = [Outcome::UpstreamError, Outcome::Timeout, Outcome::Throttled, Outcome::Cancelled];
            let outcome = if bad { outcomes[dice.below(4) as usize] } else { Outcome::Success };
            let end = End {
                outcome,
                status: if bad { [500, 504, 429, 0][dice.below(4) as usize] } else { 200 },
                ttft_us: dice.chance(0.5).then(|| (first - at) / 1_000 + u64::from(dice.chance(0.1))),
                tpot_us: dice.chance(0.5).then(|| dice.below(100_000)),
                tokens_out: dice.chance(0.9).then(|| dice.below(3_000)),
                cost_nano: dice.chance(0.9).then(|| dice.below(50_000_000)),
                flags: Flags {
                    empty: dice.chance(0.01),
                    cut: dice.chance(0.01),
                    tool_called: dice.chance(0.2),
                    ..Flags::default()
                },
                script: dice.chance(0.3).then_some(Script::Han),
                tool: dice.chance(0.3).then_some(3),
            };
            let lost = dice.chance(0.01);
            let scored = dice.chance(0.3);
            let metric = if dice.chance(0.5) { Metric::Quality } else { Metric::Score("tone".into()) };
            let value = dice.share();
            let later = dice.below(20_000_000_000);
            self.send(Fact::Start { id, at: Mono(at), arm, user, drawn });
            if streams {
                self.send(Fact::FirstByte { id, at: Mono(first) });
            }
            if !lost {
                self.send(Fact::End { id, at: Mono(at + took), end });
            }
            if scored {
                let known = Mono(at + took + later);
                self.send(Fact::Score { arm, user, drawn, metric, value, arrived: Mono(at), known });
            }
        }

        fn tick(&mut self) {
            let now = self.clock.now();
            let verdict = self.judge.tick(now);
            let ts = (now.0 - self.origin.0) as f64 / 1e9;
            if let Some(line) = self.speaker.line(ts, &verdict, self.judge.canary_requests()) {
                self.lines.extend_from_slice(&line);
                self.lines.push(b'\n');
            }
            if matches!(verdict, Verdict::Rollback { .. }) && self.weight > 0.0 {
                self.weight = 0.0;
                self.judge.weight_changed(0.0, now);
            }
            self.said.push((now, verdict));
        }

        fn stage(&mut self, weight: f64) {
            self.weight = weight;
            let stage = Stage { weight, residence: Duration::new(30, 123_456_789), samples: 50 };
            self.judge.enter_stage(stage, self.clock.now());
            self.speaker.stage();
        }

        /// A life: history, a stage, a weight by hand, restarts, a rollback (perhaps), the next release.
        fn run(mut self, mut pump: impl FnMut(u64)) -> (Vec<u8>, Vec<(Mono, Verdict)>) {
            let fate = self.dice.below(3);
            let mut next_tick = 0;
            let mut kept = None;
            let mut done = 0;
            loop {
                self.clock.advance(Duration::from_nanos(1 + self.dice.below(50_000_000)));
                let now = self.clock.now();
                let second = (now.0 - self.origin.0) / 1_000_000_000;
                pump(second);
                if self.dice.chance(0.6) {
                    self.exchange(now.0);
                }
                if self.dice.chance(0.01) {
                    let (stable, canary) = (self.dice.share(), self.dice.share());
                    self.send(Fact::Query { name: "load".into(), stable, canary, known: now });
                }
                while let Some(entry) = self.coming.first_entry().filter(|entry| entry.key().0 <= now.0) {
                    let fact = entry.remove();
                    self.judge.observe(&fact);
                }
                if self.dice.chance(0.0005) {
                    self.judge.records_dropped(now);
                }
                match (done, second) {
                    (0, 40..) => self.stage(0.25),
                    (1, 60..) => {
                        self.weight = 0.4;
                        self.judge.weight_changed(0.4, now);
                        self.sick = fate == 0;
                    }
                    (2, 75..) => {
                        let judge = Judge::restore(Arc::clone(&self.policy), &self.judge.checkpoint()).unwrap();
                        self.judge.replace(judge, now);
                    }
                    (3, 83..) => kept = Some(self.judge.checkpoint()),
                    (4, 88..) => {
                        // Killed, and started with what was kept five seconds ago; what was in flight is gone, and
                        // names of exchanges are used again.
                        self.coming.clear();
                        self.ids = 0;
                        self.judge = TracedJudge::new(Arc::clone(&self.policy), now);
                        self.judge.record_new(Some(&self.tracing), Some(&self.trace), now);
                        let judge = Judge::restore(Arc::clone(&self.policy), kept.as_ref().unwrap()).unwrap();
                        self.judge.replace(judge, now);
                        self.sick |= fate == 1;
                    }
                    (5, 130..) => {
                        self.sick = false;
                        self.judge.renew(Arc::clone(&self.policy), now);
                    }
                    (6, 140..) => self.stage(0.5),
                    (7, 185..) => return (self.lines, self.said),
                    _ => done -= 1,
                }
                done += 1;
                if now.0 >= next_tick {
                    next_tick = now.0 + 250_000_000;
                    self.tick();
                }
            }
        }
    }

    fn trace(path: &Path) -> Trace {
        Trace { path: path.to_owned(), max_bytes: 1 << 30 }
    }

    fn replayed(trace: &[u8]) -> (Vec<u8>, Vec<(Mono, Verdict)>) {
        let (mut lines, mut said) = (Vec::new(), Vec::new());
        // What `replay -c` takes of the plan; the trace's stages say their own.
        let policy = Policy { min_stage: Duration::from_secs(9), min_requests: 9, ..policy() };
        replay_heard(policy, trace, &mut lines, &mut |now, verdict| said.push((now, verdict.clone()))).unwrap();
        (lines, said)
    }

    fn take_all(batches: &Receiver<Batch>, writer: &mut TraceWriter, out: &mut Vec<u8>) {
        while let Ok(batch) = batches.try_recv() {
            for item in batch.items {
                writer.take(item, out);
            }
        }
    }

    #[test]
    fn a_replay_repeats_every_live_verdict_byte_for_byte() {
        let mut words = BTreeMap::<&str, usize>::new();
        let mut seen = BTreeMap::<&str, usize>::new();
        for seed in 0..20 {
            let (tracing, batches) = sync_channel(1 << 16);
            let (mut writer, mut text) = (TraceWriter::default(), Vec::new());
            let (lines, said) = Live::new(seed, tracing, trace(Path::new("t.jsonl"))).run(|_| ());
            take_all(&batches, &mut writer, &mut text);
            writer.finish(&mut text);
            let (again, heard) = replayed(&text);
            for (live, again) in said.iter().zip(&heard) {
                assert_eq!(live, again, "seed {seed}");
            }
            assert_eq!(said.len(), heard.len(), "seed {seed}");
            assert_eq!(String::from_utf8(lines).unwrap(), String::from_utf8(again).unwrap(), "seed {seed}");
            for (_, verdict) in &said {
                *words.entry(verdict.word()).or_default() += 1;
            }
            let text = String::from_utf8(text).unwrap();
            for what in ["\"late\":", "\"open\":true", "\"finish\"", "\"after\":", "\"at\":", "\"query\"", "\"begin\""]
            {
                *seen.entry(what).or_default() += text.matches(what).count();
            }
        }
        // What was to be repeated did occur.
        assert!(["rollback", "advance", "hold"].iter().all(|word| words.get(word).copied() > Some(5)), "{words:?}");
        assert!(seen.values().all(|count| *count > 10), "{seen:?}");
    }

    #[test]
    fn after_a_gap_the_trace_is_exact_again_and_says_so() {
        for seed in 0..4 {
            let (tracing, batches) = sync_channel(8);
            let (mut writer, mut text) = (TraceWriter::default(), Vec::new());
            let (_, said) = Live::new(seed, tracing, trace(Path::new("t.jsonl"))).run(|second| {
                // The disk hangs for ten seconds.
                if !(50..60).contains(&second) {
                    take_all(&batches, &mut writer, &mut text);
                }
            });
            take_all(&batches, &mut writer, &mut text);
            writer.finish(&mut text);
            let (_, heard) = replayed(&text);
            assert!(String::from_utf8(text).unwrap().contains("\"dropped\",\"lost\":"));
            assert!(heard.len() < said.len() && heard.len() > said.len() - 80, "{} {}", heard.len(), said.len());
            let said: BTreeMap<_, _> = said.into_iter().collect();
            for (now, verdict) in &heard {
                assert_eq!(said.get(now), Some(verdict), "seed {seed}");
            }
        }
    }

    #[test]
    fn the_thread_writes_goes_on_after_a_crash_and_stops_at_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.jsonl");
        let (tracing, thread) = spawn().unwrap();
        let (lines, _) = Live::new(7, tracing, trace(&path)).run(|_| std::thread::yield_now());
        thread.join().unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert!(whole.ends_with(b"\"event\":\"end\"}\n"));
        let text = String::from_utf8(whole.clone()).unwrap();
        if !text.contains("\"lost\"") {
            assert_eq!(replayed(&whole).0, lines);
        }
        // A killed process left half a line, and there is little room.
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"ts\":1,\"ver").unwrap();
        let (tracing, thread) = spawn().unwrap();
        let bounded = Trace { path: path.clone(), max_bytes: whole.len() as u64 + 100_000 };
        drop(Live::new(8, tracing, bounded).run(|_| std::thread::yield_now()));
        thread.join().unwrap();
        let both = std::fs::read(&path).unwrap();
        assert!(both.starts_with(&whole) && both.len() > whole.len() + 90_000 && both.len() <= whole.len() + 100_000);
        assert!(both.ends_with(b"\"event\":\"end\"}\n"));
        assert!(!both[whole.len()..].starts_with(b"{\"ts\":1,\"ver"));
        replayed(&both);
    }

    #[test]
    fn no_raw_unit_and_a_bounded_hold() {
        let (mut writer, mut out) = (TraceWriter::default(), Vec::new());
        writer.take(Item::Begin { at: Mono(5), evidence: None }, &mut out);
        let start = |id: u64| Fact::Start { id, at: Mono(10 + id), arm: Arm::Stable, user: id, drawn: true };
        writer.take(Item::Fact(start(0)), &mut out);
        for id in 1..80_000 {
            writer.take(Item::Fact(start(id)), &mut out);
            let end = End::plain(Outcome::Success, 200);
            writer.take(Item::Fact(Fact::End { id, at: Mono(11 + id), end }), &mut out);
            if id % 100 == 0 {
                writer.take(Item::Tick(Mono(12 + id)), &mut out);
            }
            assert!(writer.held() <= crate::judge::MOST_HELD + 100);
        }
        writer
            .take(Item::Fact(Fact::End { id: 0, at: Mono(90_000), end: End::plain(Outcome::Success, 200) }), &mut out);
        writer.finish(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("\"open\":true").count(), 1);
        assert_eq!(text.matches("\"event\":\"finish\",\"id\":0").count(), 1);
        assert!(text.contains(r#""user":"h0000000000000001""#));
        let count = text.lines().count();
        assert_eq!(count, 80_000 + 1 + 1 + 1 + 799);
    }
}
