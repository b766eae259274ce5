//! The report as Markdown: the same records and numbers as the page, as tables.

use super::clauses::CAVEAT;
use super::release::{Completion, Exposure, Incident, Initiation, Line, Promotion, Release, Report, title};
use super::told::Told;
use super::words;
use crate::rollout::{GateNumbers, Registration};

/// The whole report.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = Text::default();
    text.line(&format!("# {}: release record", one_line(&report.rollout)));
    text.line(&format!(
        "Rendered {} from journal entries {} to {}{}.",
        words::moment(report.made_at.0),
        report.journal.first,
        report.journal.last,
        if report.journal.hash.is_empty() { String::new() } else { format!(", head `{}`", report.journal.hash) }
    ));
    if report.journal.omitted > 0 {
        text.line(&format!("The {} oldest records of this rollout are left out.", report.journal.omitted));
    }
    if !report.told_known {
        text.line(words::NOBODY_KNOWS);
    }
    for one in &report.releases {
        release(&mut text, one);
    }
    if !report.drills.is_empty() {
        text.line("## Drills");
        let rows = report.drills.iter().map(|d| vec![d.n.to_string(), words::moment(d.at.0), d.result.clone()]);
        text.table(&["entry", "when", "result"], rows);
    }
    text.line("## Clauses that these records serve");
    text.line(CAVEAT);
    let rows = report.clauses.iter().map(|c| {
        vec![c.source.to_owned(), c.clause.to_owned(), c.about.to_owned(), c.served_by.join(", "), c.how.to_owned()]
    });
    text.table(&["source", "clause", "about", "served by", "how"], rows);
    text.0
}

fn release(text: &mut Text, release: &Release) {
    text.line(&format!("## {}: {}", one_line(&release.version), release.outcome.words()));
    let ended = release.ended_at.map_or_else(String::new, |ended| {
        format!(", ended {} after {}", words::moment(ended.0), words::span(ended.since(release.began_at)))
    });
    text.line(&format!(
        "Compared with {}; began {}{ended}.",
        one_line(&release.stable),
        words::moment(release.began_at.0)
    ));
    if let Some(one) = &release.incident {
        incident(text, one);
    }
    if let Some(one) = &release.completion {
        completion(text, one);
    }
    if let Some(one) = &release.initiation {
        initiation(text, one);
    }
    if !release.promotions.is_empty() {
        text.line("### Stage promotions");
        release.promotions.iter().for_each(|one| promotion(text, one));
    }
    exposure(text, &release.exposure);
    if !release.overrides.is_empty() {
        text.line("### Decided by people beyond the proof");
        lines(text, &release.overrides);
    }
    text.line("### Timeline");
    lines(text, &release.timeline);
    told(text, &release.told);
}

fn incident(text: &mut Text, incident: &Incident) {
    text.line(&format!("### Rollback incident ({}, entry {})", incident.severity, incident.n));
    text.line(&one_line(&incident.reason));
    let stage = incident.stage.map_or_else(String::new, |stage| format!(", stage {}", stage + 1));
    let mut facts = vec![
        ("latched", words::moment(incident.at.0)),
        ("by", incident.by.clone()),
        ("gate", incident.gate.clone().unwrap_or_else(|| "–".to_owned())),
        ("weight before", format!("{}{stage}", words::percent(incident.weight_before))),
        ("at that weight for", incident.at_weight_s.map_or_else(|| "–".to_owned(), words::span)),
        ("exposed", exposed(incident.exposed)),
        ("rollbacks of this version", incident.rollbacks.to_string()),
    ];
    match &incident.review {
        Some(review) => {
            facts.push(("cleared", format!("{} by {} (entry {})", words::moment(review.at.0), review.by, review.n)));
            facts.push(("root cause", review.root_cause.clone()));
        }
        None => facts.push(("review", "open: latched at 0 until a person clears it".to_owned())),
    }
    text.facts(facts);
    gates(text, &incident.gates);
}

fn completion(text: &mut Text, done: &Completion) {
    text.line(&format!("### Completion certificate (entry {})", done.n));
    text.line(&one_line(&done.reason));
    text.facts(vec![
        ("completed", words::moment(done.at.0)),
        ("by", done.by.clone()),
        ("took", words::span(done.took_s)),
        ("soak ended", if done.proven { "on fresh proof" } else { "by a person's word" }.to_owned()),
        ("signed on the way", words::signers(&done.approvals)),
        ("rises without proof", done.unproven.to_string()),
        ("exposed", exposed(done.exposed)),
        ("made stable", done.made_stable_at.map_or_else(|| "not yet".to_owned(), |at| words::moment(at.0))),
    ]);
    gates(text, &done.gates);
}

fn initiation(text: &mut Text, begun: &Initiation) {
    text.line(&format!("### Initiation (entry {})", begun.n));
    text.facts(vec![
        ("started", words::moment(begun.at.0)),
        ("by", begun.by.clone()),
        ("reason", begun.reason.clone()),
        ("gates frozen as", format!("`{}`", begun.gates)),
    ]);
    if let Some(entry) = &begun.register {
        register(text, entry);
    }
    let Some(plan) = &begun.plan else { return };
    let rows = plan.stages.iter().enumerate().map(|(index, stage)| {
        vec![
            (index + 1).to_string(),
            words::percent(stage.weight),
            words::span(stage.residence_s),
            words::count(stage.samples),
            stage.approval.to_owned(),
            stage.cohorts.join(", "),
        ]
    });
    text.table(&["stage", "weight", "at least", "requests", "approval to leave", "cohorts"], rows);
}

fn register(text: &mut Text, entry: &Registration) {
    text.line("Registered as:");
    text.facts(words::entry(entry));
    let rows = entry.thresholds.iter().map(|t| {
        let limit = t.limit.clone().unwrap_or_else(|| "–".to_owned());
        vec![t.gate.clone(), t.promote.clone(), t.rollback.clone(), limit, words::on(t.on).to_owned()]
    });
    text.table(&["gate", "fine up to", "bad from", "limit", "a fail"], rows);
}

fn promotion(text: &mut Text, one: &Promotion) {
    let ground = if one.proven { "proven" } else { "by hand" };
    let (from, to) = (words::percent(one.weight_before), words::percent(one.weight));
    text.line(&format!("#### {from} → {to} ({ground}, {}, entry {})", words::moment(one.at.0), one.n));
    let signed =
        if one.approvals.is_empty() { String::new() } else { format!("; signed by {}", one.approvals.join(", ")) };
    text.line(&one_line(&format!("Decided by {}{signed}: {}", one.by, one.reason)));
    gates(text, &one.gates);
}

fn gates(text: &mut Text, gates: &[GateNumbers]) {
    if gates.is_empty() {
        return;
    }
    let rows = gates.iter().map(|gate| {
        vec![
            gate.name.clone(),
            gate.result.as_str().to_owned(),
            words::value(&gate.unit, gate.stable),
            words::value(&gate.unit, gate.canary),
            words::difference(&gate.unit, gate.difference),
            words::interval(&gate.unit, gate.interval),
            words::difference(&gate.unit, gate.rollback),
            words::count(gate.samples),
            words::count(gate.users),
        ]
    });
    let head = ["gate", "result", "stable", "canary", "difference", "95 % interval", "rollback at", "values", "users"];
    text.table(&head, rows);
}

fn exposure(text: &mut Text, stays: &[Exposure]) {
    if stays.is_empty() {
        return;
    }
    text.line("### Exposure ledger");
    let rows = stays.iter().map(|stay| {
        vec![
            stay.stage.map_or_else(|| "–".to_owned(), |stage| (stage + 1).to_string()),
            words::percent(stay.weight),
            words::moment(stay.from.0),
            stay.to.map_or_else(|| "goes on".to_owned(), |to| words::span(to.since(stay.from))),
            words::count(stay.new_users),
            words::count(stay.requests),
            words::dollars(stay.cost_nano),
        ]
    });
    text.table(&["stage", "weight", "from", "for", "new users", "requests", "cost"], rows);
}

fn lines(text: &mut Text, lines: &[Line]) {
    let rows = lines.iter().map(|line| {
        vec![
            line.n.to_string(),
            words::moment(line.at.0),
            title(line.decision).to_owned(),
            words::percent(line.weight),
            line.by.clone(),
            line.reason.clone(),
        ]
    });
    text.table(&["entry", "when", "what", "weight", "by", "why"], rows);
}

fn told(text: &mut Text, told: &[Told]) {
    if told.is_empty() {
        return;
    }
    text.line("### Who was told");
    let rows = told.iter().map(|one| {
        vec![
            one.n.map_or_else(|| "–".to_owned(), |n| n.to_string()),
            words::moment(one.at.0),
            one.kind.clone(),
            one.to.clone(),
            words::became(one),
        ]
    });
    text.table(&["entry", "when", "notice", "to", "what became of it"], rows);
}

fn exposed(exposed: crate::rollout::Exposed) -> String {
    let (users, requests) = (words::count(exposed.users), words::count(exposed.requests));
    format!("{users} users, {requests} requests, {}", words::dollars(exposed.cost_nano))
}

/// Anybody's text on one line, with what Markdown would read as markup made plain.
fn one_line(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => plain.push(' '),
            '|' | '<' | '>' | '*' | '_' | '[' | ']' | '\\' => {
                plain.push('\\');
                plain.push(c);
            }
            c => plain.push(c),
        }
    }
    plain
}

#[derive(Default)]
struct Text(String);

impl Text {
    /// A paragraph of its own.
    fn line(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn facts(&mut self, facts: Vec<(&str, String)>) {
        self.0.push('\n');
        for (name, value) in facts {
            let value = if value.starts_with('`') { value } else { one_line(&value) };
            self.0.push_str(&format!("- {name}: {value}\n"));
        }
    }

    fn table(&mut self, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        self.0.push('\n');
        self.0.push_str(&format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len())));
        for row in rows {
            let cells: Vec<String> = row.iter().map(|cell| one_line(cell)).collect();
            self.0.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
    }
}
