//! What a terminal shows: tables and paragraphs of rollouts. Text in, text out.

use super::seen::{Arm, Exposed, Gate, Register, Rollout, Stage};
use crate::judge::show;

/// How text is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// A phase, result or verdict in the colour of its meaning.
    fn word(self, word: &str, shown: &str) -> String {
        let code = match word {
            "pass" | "advance" | "completed" => "32",
            "fail" | "step-back" | "rollback" | "rolled_back" => "1;31",
            "paused" | "awaiting" => "33",
            "running" | "soaking" => "36",
            _ => "2",
        };
        self.wrap(code, shown)
    }
}

/// Cells in columns; a cell is its text and what is shown of it (with colours).
struct Table {
    rows: Vec<Vec<(String, String)>>,
    /// Columns that are set to the right.
    right: &'static [usize],
}

impl Table {
    fn new(head: &[&str], right: &'static [usize], paint: Paint) -> Self {
        let head = head.iter().map(|text| ((*text).to_owned(), paint.dim(text))).collect();
        Self { rows: vec![head], right }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = (String, String)>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn text(&self, indent: &str) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::from(indent);
            for (column, (text, shown)) in row.iter().enumerate() {
                let gap = " ".repeat(widths.get(column).copied().unwrap_or(0).saturating_sub(text.chars().count()));
                if self.right.contains(&column) {
                    line.push_str(&gap);
                    line.push_str(shown);
                } else {
                    line.push_str(shown);
                    line.push_str(&gap);
                }
                line.push_str("  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

fn plain(text: impl Into<String>) -> (String, String) {
    let text = text.into();
    (text.clone(), text)
}

/// A phase as people write it.
fn phase(word: &str) -> String {
    word.replace('_', " ")
}

fn percent(value: f64) -> String {
    let rounded = (value * 1_000.0).round() / 1_000.0;
    format!("{rounded} %")
}

/// All rollouts, a line each.
#[must_use]
pub fn list(rollouts: &[Rollout], paint: Paint) -> String {
    if rollouts.is_empty() {
        return "no rollout is configured\n".to_owned();
    }
    let head = ["NAME", "PHASE", "WEIGHT", "STAGE", "VERDICT", "CANARY", "WHY"];
    let mut table = Table::new(&head, &[2, 3], paint);
    for one in rollouts {
        let stage = one.stage.as_ref().map_or_else(|| "-".to_owned(), |s| format!("{}/{}", s.index + 1, s.of));
        let canary = one.arms.canary.version.clone().unwrap_or_else(|| "-".to_owned());
        let why = one.why.chars().take(72).collect::<String>();
        table.row([
            (one.name.clone(), paint.bold(&one.name)),
            (phase(&one.phase), paint.word(&one.phase, &phase(&one.phase))),
            plain(percent(one.weight)),
            plain(stage),
            (one.verdict.clone(), paint.word(&one.verdict, &one.verdict)),
            plain(canary),
            plain(why),
        ]);
    }
    table.text("")
}

/// One rollout in full.
#[must_use]
pub fn one(rollout: &Rollout, paint: Paint) -> String {
    let mut out = String::new();
    let shown = paint.word(&rollout.phase, &phase(&rollout.phase));
    let actual = rollout.weight_actual.map_or_else(String::new, |seen| format!(" ({} seen)", percent(seen)));
    let weight = percent(rollout.weight);
    line(&mut out, &format!("{}  {shown}  {weight}{actual}", paint.bold(&rollout.name)));
    let field = |out: &mut String, name: &str, text: &str| line(out, &format!("  {}{text}", paint.dim(&pad(name))));
    if let Some(latch) = &rollout.latch {
        let text = format!("{} by {}: {}", latch.at, latch.actor, latch.reason);
        line(&mut out, &format!("  {}{}", paint.word("fail", &pad("LATCHED")), text));
    }
    field(&mut out, "why", &rollout.why);
    let verdict = paint.word(&rollout.verdict, &rollout.verdict);
    field(&mut out, "verdict", &format!("{verdict}: {}", rollout.verdict_reason));
    if let Some(stage) = &rollout.stage {
        field(&mut out, "stage", &of_stage(stage));
    }
    if !rollout.stages.is_empty() {
        field(&mut out, "plan", &plan(rollout, paint));
    }
    if let Some(paused) = &rollout.paused {
        field(&mut out, "paused", &format!("by {} (was {}): {}", paused.by, phase(&paused.from), paused.why));
    }
    let said =
        [("started by", &rollout.started_by), ("soak ends", &rollout.soak_ends_at), ("waiting", &rollout.next_version)];
    for (name, text) in said {
        if let Some(text) = text {
            field(&mut out, name, text);
        }
    }
    for (confirm, held) in
        rollout.confirm.iter().flat_map(|confirm| confirm.holds.iter().map(move |held| (confirm, held)))
    {
        field(
            &mut out,
            "held by",
            &format!("{} ({}, asked since {}): {}", held.gate, confirm.hook, confirm.since, held.why),
        );
    }
    if let Some(register) = &rollout.register {
        field(&mut out, "register", &registered(register));
        if let Some(changed) = &register.changed {
            line(&mut out, &format!("  {}{changed}", paint.word("paused", &pad("CHANGED"))));
        }
    }
    out.push('\n');
    out.push_str(&arms(rollout, paint));
    if !rollout.gates.is_empty() {
        out.push('\n');
        out.push_str(&gates(&rollout.gates, paint));
    }
    out.push('\n');
    let exposed = &rollout.exposed;
    let cost = show::value("usd", exposed.cost_usd);
    let text = format!("{} users, {} requests, {cost}", count(exposed.users), count(exposed.requests));
    field(&mut out, "exposed", &(text + &budget(exposed)));
    let age = format!("{} ago, generation {}", show::seconds(rollout.heartbeat_age_s), rollout.generation);
    field(&mut out, "heartbeat", &age);
    let allowed = if rollout.allowed.is_empty() { "nothing".to_owned() } else { rollout.allowed.join(", ") };
    field(&mut out, "allowed", &allowed);
    out
}

/// The exposure budget, where there is one, and whether it is spent.
fn budget(exposed: &Exposed) -> String {
    let bounds = [
        exposed.max_users.map(|most| format!("{} users", count(most))),
        exposed.max_requests.map(|most| format!("{} requests", count(most))),
        exposed.max_tokens.map(|most| format!("{} tokens ({} seen)", count(most), count(exposed.tokens))),
        exposed.max_cost_usd.map(|most| show::value("usd", most)),
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    let spent = match (&exposed.spent, exposed.on.as_str()) {
        (Some(bound), "stop") => format!("; {bound} is spent: the canary is stopped"),
        (Some(bound), _) => format!("; {bound} is spent: it rises no further"),
        (None, _) => String::new(),
    };
    if bounds.is_empty() { String::new() } else { format!("; at most {}{spent}", bounds.join(", ")) }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

fn pad(name: &str) -> String {
    format!("{name:<12}")
}

fn count(n: u64) -> String {
    show::number(n as f64)
}

fn of_stage(stage: &Stage) -> String {
    let mut text = format!("{} of {} at {}", stage.index + 1, stage.of, percent(stage.weight));
    if let Some(entered) = &stage.entered_at {
        text.push_str(&format!(" since {entered}"));
    }
    if stage.residence_left_s > 0.0 {
        text.push_str(&format!(", {} of residence left", show::seconds(stage.residence_left_s)));
    }
    if let Some(waits) = &stage.waits_for {
        text.push_str(&format!(", waits for {waits}"));
    }
    if stage.approvals.needed > 0 {
        let given = if stage.approvals.given.is_empty() { "none".to_owned() } else { stage.approvals.given.join(", ") };
        text.push_str(&format!("; approvals: {} needed, given by {given}", stage.approvals.needed));
    }
    if let Some(deadline) = &stage.deadline_at {
        text.push_str(&format!("; deadline {deadline}"));
    }
    text
}

/// `minor, medium risk, sha256:9f86…, owner ml-platform (#release); of the file, not started`.
fn registered(register: &Register) -> String {
    let risk = register.risk.as_ref().map_or_else(String::new, |risk| format!(", {risk} risk"));
    let contacts =
        if register.contacts.is_empty() { String::new() } else { format!(" ({})", register.contacts.join(", ")) };
    let since = if register.frozen { "" } else { "; of the file, not started" };
    format!("{}{risk}, {}, owner {}{contacts}{since}", register.kind, register.digest, register.owner)
}

fn plan(rollout: &Rollout, paint: Paint) -> String {
    let at = rollout.stage.as_ref().map(|stage| stage.index);
    let stage = |(index, weight): (usize, &f64)| {
        let text = format!("{weight}");
        if at == Some(index) { paint.bold(&format!("[{text}]")) } else { text }
    };
    rollout.stages.iter().enumerate().map(stage).collect::<Vec<_>>().join(" → ") + " %"
}

fn arms(rollout: &Rollout, paint: Paint) -> String {
    let head = ["ARM", "VERSION", "USERS", "REQUESTS", "SHARE", "COST", "ENDPOINTS"];
    let mut table = Table::new(&head, &[2, 3, 4, 5, 6], paint);
    let all =
        [("stable", &rollout.arms.stable), ("baseline", &rollout.arms.baseline), ("canary", &rollout.arms.canary)];
    for (name, arm) in all {
        let arm: &Arm = arm;
        let Some(version) = &arm.version else { continue };
        table.row([
            plain(name),
            plain(version.clone()),
            plain(count(arm.users)),
            plain(count(arm.requests)),
            plain(arm.share.requests.map_or_else(|| "-".to_owned(), percent)),
            plain(show::value("usd", arm.cost_usd)),
            plain(format!("{}/{}", arm.endpoints.healthy, arm.endpoints.all)),
        ]);
    }
    table.text("  ")
}

/// The table of gates.
fn gates(gates: &[Gate], paint: Paint) -> String {
    let head =
        ["GATE", "RESULT", "STABLE", "CANARY", "DIFFERENCE", "95 % INTERVAL", "PROMOTE", "ROLLBACK", "SAMPLES", "MORE"];
    let mut table = Table::new(&head, &[2, 3, 4, 5, 6, 7, 8, 9], paint);
    for gate in gates {
        let value = |value: Option<f64>| plain(value.map_or_else(|| "-".to_owned(), |v| show::value(&gate.unit, v)));
        let difference =
            |by: Option<f64>| plain(by.map_or_else(|| "-".to_owned(), |by| show::difference(&gate.unit, by)));
        let interval = gate.interval.map_or_else(
            || "-".to_owned(),
            |[low, high]| format!("{} … {}", show::difference(&gate.unit, low), show::difference(&gate.unit, high)),
        );
        let samples = match gate.samples_needed {
            Some(needed) => format!("{} of {}", count(gate.samples), count(needed)),
            None => count(gate.samples),
        };
        table.row([
            plain(gate.name.clone()),
            (gate.result.clone(), paint.word(&gate.result, &gate.result)),
            value(gate.stable),
            value(gate.canary),
            difference(gate.difference),
            plain(interval),
            difference(gate.promote),
            difference(gate.rollback),
            plain(samples),
            plain(gate.eta_s.filter(|_| gate.result == "inconclusive").map_or_else(|| "-".to_owned(), show::seconds)),
        ]);
    }
    table.text("  ")
}

/// The verdict in words and numbers, gate by gate.
#[must_use]
pub fn explain(rollout: &Rollout, paint: Paint) -> String {
    let mut out = String::new();
    let verdict = paint.word(&rollout.verdict, &rollout.verdict);
    let name = paint.bold(&rollout.name);
    line(&mut out, &format!("{name} is {} at {}: {}.", phase(&rollout.phase), percent(rollout.weight), rollout.why));
    if let Some(latch) = &rollout.latch {
        line(&mut out, &format!("It is latched since {} by {}: {}.", latch.at, latch.actor, latch.reason));
    }
    line(&mut out, &format!("The verdict is {verdict}: {}.", rollout.verdict_reason.trim_end_matches('.')));
    for gate in &rollout.gates {
        out.push('\n');
        line(&mut out, &format!("{} {}", paint.bold(&gate.name), paint.word(&gate.result, &gate.result)));
        for sentence in sentences(gate) {
            line(&mut out, &format!("  {sentence}"));
        }
    }
    out
}

fn sentences(gate: &Gate) -> Vec<String> {
    let mut all = Vec::new();
    if let (Some(stable), Some(canary)) = (gate.stable, gate.canary) {
        let (stable, canary) = (show::value(&gate.unit, stable), show::value(&gate.unit, canary));
        all.push(format!(
            "stable {stable}, canary {canary}, from {} canary samples of {} users",
            count(gate.samples),
            count(gate.users)
        ));
    } else if gate.result != "unarmed" {
        all.push("its source has not spoken for both arms".to_owned());
    }
    if let (Some(by), Some([low, high])) = (gate.difference, gate.interval) {
        let say = |by| show::difference(&gate.unit, by);
        all.push(format!("difference {}, surely between {} and {}", say(by), say(low), say(high)));
    }
    let margin = |by: Option<f64>| by.map(|by| show::difference(&gate.unit, by));
    if let (Some(promote), Some(rollback)) = (margin(gate.promote), margin(gate.rollback)) {
        let deed = match gate.on.as_str() {
            "hold" => "holds",
            "step-back" => "steps back",
            _ => "rolls back",
        };
        all.push(format!("fine up to {promote}; {deed} from {rollback}"));
    }
    if let Some(limit) = gate.limit {
        all.push(format!("never above {} for the canary alone", show::value(&gate.unit, limit)));
    }
    if let Some(eta) = gate.eta_s.filter(|_| gate.result == "inconclusive") {
        all.push(format!("an answer is expected in about {}", show::seconds(eta)));
    }
    if !gate.why.is_empty() {
        all.push(gate.why.clone());
    }
    all
}

/// How the last drill went.
#[must_use]
pub fn drilled(rollout: &Rollout) -> String {
    match &rollout.drill {
        None => format!("{}: no drill has been made\n", rollout.name),
        Some(drill) => match &drill.failed {
            None => {
                format!("{}: a rehearsed rollback reached 0 on every worker in {:.3} ms\n", rollout.name, drill.took_ms)
            }
            Some(why) => format!("{}: the drill failed: {why}\n", rollout.name),
        },
    }
}

/// One transition, for `status`.
#[must_use]
pub fn transition(rollout: &Rollout, paint: Paint) -> String {
    let stage = rollout.stage.as_ref().map_or_else(String::new, |s| format!(" stage {}/{}", s.index + 1, s.of));
    let word = paint.word(&rollout.phase, &phase(&rollout.phase));
    let why = rollout.latch.as_ref().map_or(&rollout.why, |latch| &latch.reason);
    format!("{} {word} {}{stage}: {why}\n", rollout.name, percent(rollout.weight))
}
