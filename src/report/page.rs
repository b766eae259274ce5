//! The report as one page that needs nothing else: style and plots inside, no script, no other origin; light, dark, paper.

use super::clauses::CAVEAT;
use super::html::Html;
use super::plot;
use super::release::{
    Completion, Exposure, Incident, Initiation, Line, Outcome, PlanShown, Promotion, Release, Report, title,
};
use super::told::Told;
use super::words;
use crate::rollout::{GateNumbers, GateResult, Registration};

const STYLE: &str = include_str!("../../assets/report/style.css");
const BIRD: &str = "<svg viewBox=\"0 0 32 32\" aria-hidden=\"true\"><path class=\"bird\" d=\"M4 20c0-8 6-13 12-13 4 0 7 2 8 5l5 2-4 2c0 7-5 11-11 11-4 0-7-1-10-4l-2-1z\"/><path class=\"beak\" d=\"m24 12 5 2-4 2z\"/><circle class=\"eye\" cx=\"20.5\" cy=\"12\" r=\"1.4\"/></svg>";

/// The whole page.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut page = Html::new();
    page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>");
    page.text(&report.rollout).raw(": release record</title><style>").raw(STYLE).raw("</style></head><body><main>");
    page.raw("<header class=\"head\"><div class=\"mark\">").raw(BIRD).raw("serin · release record</div><h1>");
    page.text(&report.rollout).raw("</h1><p>");
    page.text(&format!(
        "Rendered {} from journal entries {} to {}.",
        words::moment(report.made_at.0),
        report.journal.first,
        report.journal.last
    ));
    if report.journal.omitted > 0 {
        page.text(&format!(" The {} oldest records of this rollout are left out.", report.journal.omitted));
    }
    if !report.told_known {
        page.text(" ").text(words::NOBODY_KNOWS);
    }
    page.raw("</p>");
    if !report.journal.hash.is_empty() {
        page.raw("<p class=\"hash\">head ").text(&report.journal.hash).raw("</p>");
    }
    page.raw("</header>");
    for one in &report.releases {
        release(&mut page, one);
    }
    drills(&mut page, report);
    clauses(&mut page, report);
    page.raw("</main></body></html>\n");
    page.done()
}

fn release(page: &mut Html, release: &Release) {
    page.raw("<article class=\"release\"><header><h2>").text(&release.version).raw("</h2>");
    let class = match release.outcome {
        Outcome::Completed => "good",
        Outcome::RolledBack | Outcome::Aborted => "bad",
        Outcome::Underway => "warn",
        Outcome::Replaced => "",
    };
    page.raw("<span class=\"badge ").raw(class).raw("\">").text(release.outcome.words()).raw("</span>");
    page.raw("<span class=\"muted\">compared with ").text(&release.stable).raw("</span></header>");
    page.raw("<dl class=\"facts\">");
    fact(page, "began", &words::moment(release.began_at.0));
    if let Some(ended) = release.ended_at {
        fact(page, "ended", &words::moment(ended.0));
        fact(page, "took", &words::span(ended.since(release.began_at)));
    }
    let (users, requests, cost) = release
        .exposure
        .iter()
        .fold((0, 0, 0), |sum, stay| (sum.0 + stay.new_users, sum.1 + stay.requests, sum.2 + stay.cost_nano));
    fact(page, "seen by", &format!("{} users, {} requests", words::count(users), words::count(requests)));
    fact(page, "cost of that", &words::dollars(cost));
    page.raw("</dl><section><h3>Weight over time</h3><div class=\"scroll\">")
        .raw(&plot::weights(release))
        .raw("</div>");
    page.raw("<p class=\"key\"><span><i class=\"g\"></i>on proof, or start</span><span><i class=\"s\"></i>approval</span><span><i class=\"h\"></i>by hand</span><span><i class=\"w\"></i>stands or steps back</span></p></section>");
    if let Some(one) = &release.incident {
        incident(page, one);
    }
    if let Some(one) = &release.completion {
        completion(page, one);
    }
    if let Some(one) = &release.initiation {
        initiation(page, one);
    }
    promotions(page, &release.promotions);
    exposure(page, &release.exposure);
    if !release.overrides.is_empty() {
        page.raw("<section><h3>Decided by people beyond the proof</h3>");
        lines(page, &release.overrides);
        page.raw("</section>");
    }
    page.raw("<section><h3>Timeline</h3>");
    lines(page, &release.timeline);
    page.raw("</section>");
    told(page, &release.told);
    page.raw("</article>");
}

fn fact(page: &mut Html, name: &str, value: &str) {
    page.raw("<div><dt>").text(name).raw("</dt><dd>").text(value).raw("</dd></div>");
}

fn entry(page: &mut Html, n: u64) {
    page.raw(" <span class=\"muted\">· entry ").text(&n.to_string()).raw("</span>");
}

fn incident(page: &mut Html, incident: &Incident) {
    page.raw("<section class=\"note bad\"><div><h3>Rollback incident <span class=\"badge bad\">");
    page.text(incident.severity).raw("</span>");
    entry(page, incident.n);
    page.raw("</h3><p>").text(&incident.reason).raw("</p></div><dl class=\"facts\">");
    fact(page, "latched", &words::moment(incident.at.0));
    fact(page, "by", &incident.by);
    if let Some(gate) = &incident.gate {
        fact(page, "gate", gate);
    }
    let stage = incident.stage.map_or_else(String::new, |stage| format!(", stage {}", stage + 1));
    fact(page, "weight before", &format!("{}{stage}", words::percent(incident.weight_before)));
    if let Some(seconds) = incident.at_weight_s {
        fact(page, "at that weight for", &words::span(seconds));
    }
    let (users, requests) = (words::count(incident.exposed.users), words::count(incident.exposed.requests));
    fact(
        page,
        "exposed",
        &format!("{users} users, {requests} requests, {}", words::dollars(incident.exposed.cost_nano)),
    );
    fact(page, "rollbacks of this version", &incident.rollbacks.to_string());
    match &incident.review {
        Some(review) => {
            fact(page, "cleared", &format!("{} by {}", words::moment(review.at.0), review.by));
            fact(page, "root cause", &review.root_cause);
        }
        None => fact(page, "review", "open: the version is latched at 0 until a person clears it"),
    }
    page.raw("</dl>");
    gates(page, &incident.gates);
    page.raw("</section>");
}

fn completion(page: &mut Html, done: &Completion) {
    page.raw("<section class=\"note good\"><div><h3>Completion certificate");
    entry(page, done.n);
    page.raw("</h3><p>").text(&done.reason).raw("</p></div><dl class=\"facts\">");
    fact(page, "completed", &words::moment(done.at.0));
    fact(page, "by", &done.by);
    fact(page, "took", &words::span(done.took_s));
    fact(page, "soak ended", if done.proven { "on fresh proof" } else { "by a person's word" });
    fact(page, "signed on the way", &words::signers(&done.approvals));
    fact(page, "rises without proof", &done.unproven.to_string());
    let (users, requests) = (words::count(done.exposed.users), words::count(done.exposed.requests));
    fact(page, "exposed", &format!("{users} users, {requests} requests, {}", words::dollars(done.exposed.cost_nano)));
    let stable = done.made_stable_at.map_or_else(|| "not yet".to_owned(), |at| words::moment(at.0));
    fact(page, "made stable in the configuration", &stable);
    page.raw("</dl>");
    gates(page, &done.gates);
    page.raw("</section>");
}

fn initiation(page: &mut Html, begun: &Initiation) {
    page.raw("<section><h3>Initiation");
    entry(page, begun.n);
    page.raw("</h3><dl class=\"facts\">");
    fact(page, "started", &words::moment(begun.at.0));
    fact(page, "by", &begun.by);
    fact(page, "reason", if begun.reason.is_empty() { "none given" } else { &begun.reason });
    page.raw("<div><dt>gates frozen as</dt><dd class=\"hash\">").text(&begun.gates).raw("</dd></div></dl>");
    if let Some(entry) = &begun.register {
        register(page, entry);
    }
    if let Some(plan) = &begun.plan {
        plan_table(page, plan);
    }
    page.raw("</section>");
}

fn register(page: &mut Html, entry: &Registration) {
    page.raw("<p class=\"muted\">Registered as</p><dl class=\"facts\">");
    for (name, value) in words::entry(entry) {
        match value.strip_prefix('`').and_then(|value| value.strip_suffix('`')) {
            Some(digest) => {
                page.raw("<div><dt>").text(name).raw("</dt><dd class=\"hash\">").text(digest).raw("</dd></div>");
            }
            None => fact(page, name, &value),
        }
    }
    page.raw("</dl><div class=\"scroll\"><table><thead><tr><th>gate</th><th class=\"num\">fine up to</th><th class=\"num\">bad from</th><th class=\"num\">limit</th><th>a fail</th></tr></thead><tbody>");
    for threshold in &entry.thresholds {
        page.raw("<tr><td>").text(&threshold.gate).raw("</td><td class=\"num\">").text(&threshold.promote);
        page.raw("</td><td class=\"num\">").text(&threshold.rollback).raw("</td><td class=\"num\">");
        page.text(threshold.limit.as_deref().unwrap_or("–")).raw("</td><td>").text(words::on(threshold.on));
        page.raw("</td></tr>");
    }
    page.raw("</tbody></table></div>");
}

fn plan_table(page: &mut Html, plan: &PlanShown) {
    let preset = plan.preset.as_ref().map_or_else(|| "own stages".to_owned(), |preset| format!("preset {preset}"));
    let group = plan.lockstep.as_ref().map_or_else(String::new, |group| format!(", in lockstep with group {group}"));
    page.raw("<p class=\"muted\">").text(&format!(
        "Plan: {preset}{group}; {} stay on stable until the soak of {} ends.",
        words::percent(plan.holdback),
        words::span(plan.soak_s)
    ));
    page.raw("</p><div class=\"scroll\"><table><thead><tr><th class=\"num\">stage</th><th class=\"num\">weight</th><th>at least</th><th class=\"num\">requests</th><th>approval to leave</th><th>cohorts</th></tr></thead><tbody>");
    for (index, stage) in plan.stages.iter().enumerate() {
        page.raw("<tr><td class=\"num\">").text(&(index + 1).to_string());
        page.raw("</td><td class=\"num\">").text(&words::percent(stage.weight));
        page.raw("</td><td>").text(&words::span(stage.residence_s));
        page.raw("</td><td class=\"num\">").text(&words::count(stage.samples));
        page.raw("</td><td>").text(stage.approval);
        page.raw("</td><td>").text(&stage.cohorts.join(", ")).raw("</td></tr>");
    }
    page.raw("</tbody></table></div>");
}

fn promotions(page: &mut Html, promotions: &[Promotion]) {
    if promotions.is_empty() {
        return;
    }
    page.raw("<section><h3>Stage promotions</h3>");
    for one in promotions {
        let (class, ground) = if one.proven { ("good", "proven") } else { ("warn", "by hand") };
        let stage = one.to_stage.map_or_else(String::new, |stage| format!(" · stage {}", stage + 1));
        page.raw("<details><summary><b>").text(&format!(
            "{} → {}",
            words::percent(one.weight_before),
            words::percent(one.weight)
        ));
        page.raw("</b><span class=\"badge ").raw(class).raw("\">").text(ground).raw("</span><span class=\"muted\">");
        page.text(&format!("{}{stage} · entry {}", words::moment(one.at.0), one.n)).raw("</span></summary><p>");
        page.text(&one.reason).raw("</p><p class=\"muted\">");
        let signed =
            if one.approvals.is_empty() { String::new() } else { format!("; signed by {}", one.approvals.join(", ")) };
        page.text(&format!("Decided by {}{signed}.", one.by)).raw("</p>");
        gates(page, &one.gates);
        page.raw("</details>");
    }
    page.raw("</section>");
}

fn gates(page: &mut Html, gates: &[GateNumbers]) {
    if gates.is_empty() {
        return;
    }
    let plot = plot::gates(gates);
    if !plot.is_empty() {
        page.raw("<figure class=\"scroll\">").raw(&plot).raw("</figure>");
    }
    page.raw("<div class=\"scroll\"><table><thead><tr><th>gate</th><th>result</th><th class=\"num\">stable</th><th class=\"num\">canary</th><th class=\"num\">difference</th><th class=\"num\">95 % interval</th><th class=\"num\">rollback at</th><th class=\"num\">values</th><th class=\"num\">users</th></tr></thead><tbody>");
    for gate in gates {
        let class = match gate.result {
            GateResult::Pass => "good-text",
            GateResult::Fail => "bad-text",
            GateResult::Inconclusive | GateResult::Unarmed => "muted",
        };
        page.raw("<tr><td>")
            .text(&gate.name)
            .raw("</td><td class=\"")
            .raw(class)
            .raw("\">")
            .text(gate.result.as_str())
            .raw("</td>");
        for cell in [
            words::value(&gate.unit, gate.stable),
            words::value(&gate.unit, gate.canary),
            words::difference(&gate.unit, gate.difference),
            words::interval(&gate.unit, gate.interval),
            words::difference(&gate.unit, gate.rollback),
            words::count(gate.samples),
            words::count(gate.users),
        ] {
            page.raw("<td class=\"num\">").text(&cell).raw("</td>");
        }
        page.raw("</tr>");
    }
    page.raw("</tbody></table></div>");
}

fn exposure(page: &mut Html, stays: &[Exposure]) {
    if stays.is_empty() {
        return;
    }
    page.raw("<section><h3>Exposure ledger</h3><div class=\"scroll\">").raw(&plot::exposure(stays)).raw("</div>");
    page.raw("<div class=\"scroll\"><table><thead><tr><th class=\"num\">stage</th><th class=\"num\">weight</th><th>from</th><th>for</th><th class=\"num\">new users</th><th class=\"num\">requests</th><th class=\"num\">cost</th></tr></thead><tbody>");
    for stay in stays {
        page.raw("<tr><td class=\"num\">").text(&stay.stage.map_or_else(|| "–".to_owned(), |s| (s + 1).to_string()));
        page.raw("</td><td class=\"num\">").text(&words::percent(stay.weight));
        page.raw("</td><td class=\"when\">").text(&words::moment(stay.from.0));
        page.raw("</td><td>")
            .text(&stay.to.map_or_else(|| "goes on".to_owned(), |to| words::span(to.since(stay.from))));
        page.raw("</td><td class=\"num\">").text(&words::count(stay.new_users));
        page.raw("</td><td class=\"num\">").text(&words::count(stay.requests));
        page.raw("</td><td class=\"num\">").text(&words::dollars(stay.cost_nano)).raw("</td></tr>");
    }
    page.raw("</tbody></table></div></section>");
}

fn lines(page: &mut Html, lines: &[Line]) {
    page.raw("<div class=\"scroll\"><table><thead><tr><th class=\"num\">entry</th><th>when</th><th>what</th><th class=\"num\">weight</th><th>by</th><th>why</th></tr></thead><tbody>");
    for line in lines {
        page.raw("<tr><td class=\"num\">").text(&line.n.to_string());
        page.raw("</td><td class=\"when\">").text(&words::moment(line.at.0));
        page.raw("</td><td>").text(title(line.decision));
        page.raw("</td><td class=\"num\">").text(&words::percent(line.weight));
        page.raw("</td><td>").text(&line.by);
        page.raw("</td><td class=\"words\">").text(&line.reason).raw("</td></tr>");
    }
    page.raw("</tbody></table></div>");
}

fn told(page: &mut Html, told: &[Told]) {
    if told.is_empty() {
        return;
    }
    page.raw("<section><h3>Who was told</h3><div class=\"scroll\"><table><thead><tr><th class=\"num\">entry</th><th>when</th><th>notice</th><th>to</th><th>what became of it</th></tr></thead><tbody>");
    for one in told {
        let entry = one.n.map_or_else(|| "–".to_owned(), |n| n.to_string());
        page.raw("<tr><td class=\"num\">").text(&entry).raw("</td><td class=\"when\">").text(&words::moment(one.at.0));
        page.raw("</td><td>").text(&one.kind).raw("</td><td>").text(&one.to).raw("</td><td class=\"words\">");
        page.text(&words::became(one)).raw("</td></tr>");
    }
    page.raw("</tbody></table></div></section>");
}

fn drills(page: &mut Html, report: &Report) {
    if report.drills.is_empty() {
        return;
    }
    page.raw("<article class=\"release\"><section><h3>Drills</h3><div class=\"scroll\"><table><thead><tr><th class=\"num\">entry</th><th>when</th><th>result</th></tr></thead><tbody>");
    for drill in &report.drills {
        page.raw("<tr><td class=\"num\">").text(&drill.n.to_string()).raw("</td><td class=\"when\">");
        page.text(&words::moment(drill.at.0)).raw("</td><td class=\"words\">").text(&drill.result).raw("</td></tr>");
    }
    page.raw("</tbody></table></div></section></article>");
}

fn clauses(page: &mut Html, report: &Report) {
    page.raw("<article class=\"release\"><section><h3>Clauses that these records serve</h3><p class=\"muted\">")
        .text(CAVEAT);
    page.raw("</p><div class=\"scroll\"><table><thead><tr><th>source</th><th>clause</th><th>about</th><th>served by</th><th>how</th></tr></thead><tbody>");
    for clause in report.clauses {
        page.raw("<tr><td>").text(clause.source).raw("</td><td>").text(clause.clause);
        page.raw("</td><td class=\"words\">").text(clause.about).raw("</td><td>").text(&clause.served_by.join(", "));
        page.raw("</td><td class=\"words\">").text(clause.how).raw("</td></tr>");
    }
    page.raw("</tbody></table></div></section></article>");
}
