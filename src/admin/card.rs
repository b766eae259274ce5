//! One rollout on the dashboard: where it stands, the split, the walk through its stages, its gates, what may be done.

use std::time::Duration;

use super::picture;
use crate::evaluator::RolloutView;
use crate::evaluator::view::{ArmView, StageView};
use crate::judge::{GateReport, GateResult, On, show};
use crate::report::Html;
use crate::rollout::{Actor, Verb, VerbArgs};
use crate::split::Weight;

/// The card.
#[must_use]
pub fn card(view: &RolloutView, actor: &Actor) -> String {
    let mut html = Html::new();
    html.raw("<article class=\"card\" id=\"rollout-").text(&view.name).raw("\">");
    head(&mut html, view);
    banners(&mut html, view);
    split(&mut html, view);
    walk(&mut html, view);
    gates(&mut html, &view.gates);
    foot(&mut html, view, actor);
    html.raw("</article>");
    html.done()
}

fn percent(value: f64) -> String {
    format!("{} %", (value * 1_000.0).round() / 1_000.0)
}

fn count(n: u64) -> String {
    show::number(n as f64)
}

fn head(html: &mut Html, view: &RolloutView) {
    let tone = match view.phase {
        "running" | "soaking" => "calm",
        "awaiting" | "paused" => "warn",
        "completed" => "good",
        "rolled_back" => "bad",
        _ => "",
    };
    html.raw("<header><h2>").text(&view.name).raw("</h2><span class=\"chip ").raw(tone).raw("\">");
    html.text(&view.phase.replace('_', " ")).raw("</span><span class=\"versions\">");
    html.text(view.arms.stable.version.as_deref().unwrap_or("?"));
    if let Some(canary) = &view.arms.canary.version {
        html.raw(" → <b>").text(canary).raw("</b>");
    }
    html.raw("</span><div class=\"weight num\"><strong>").text(&percent(view.weight)).raw("</strong><small>");
    match view.weight_actual {
        Some(actual) => html.text(&format!("desired; {} of requests seen", percent(round2(actual)))),
        None => html.text("desired; no canary traffic seen"),
    };
    html.raw("</small></div></header><p class=\"why\">").text(&sentence(&view.why)).raw("</p>");
    if !view.verdict_reason.is_empty() {
        html.raw("<p class=\"verdict\">Verdict <b>").text(view.verdict).raw("</b> – ").text(&view.verdict_reason);
        html.raw("</p>");
    }
}

fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// A text that ends with a full stop and begins with a capital, except where it begins with a name (`latency_p99`).
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let name = text.split_whitespace().next().is_some_and(|word| word.contains(['_', '-', ':', '.']));
    if name {
        let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
        return format!("{text}{stop}");
    }
    let mut out: String = chars.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    out.push_str(chars.as_str());
    if !out.is_empty() && !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

fn banners(html: &mut Html, view: &RolloutView) {
    if let Some(latch) = &view.latch {
        html.raw("<div class=\"banner bad\"><b>Latched at 0 %.</b> ").text(&sentence(&latch.reason)).raw("<small>by ");
        html.text(&latch.actor).raw(", ").text(&latch.at);
        html.raw("; stays until a person clears it with the root cause</small></div>");
    }
    if let Some(paused) = &view.paused {
        html.raw("<div class=\"banner\"><b>Paused.</b> ").text(&sentence(&paused.why)).raw("<small>by ");
        html.text(&paused.by).raw("; it was ").text(paused.from).raw("</small></div>");
    }
    if let Some(changed) = view.register.as_ref().and_then(|register| register.changed.as_ref()) {
        html.raw("<div class=\"banner\"><b>Nothing rises.</b> ").text(&sentence(changed)).raw("</div>");
    }
    if let Some(next) = &view.next_version {
        html.raw("<div class=\"banner\"><b>").text(next).raw("</b> waits for this rollout to end.</div>");
    }
}

fn split(html: &mut Html, view: &RolloutView) {
    html.raw("<div class=\"split\">").raw(&picture::bar(view)).raw("<div class=\"arms\">");
    for (name, arm) in [("canary", &view.arms.canary), ("stable", &view.arms.stable), ("baseline", &view.arms.baseline)]
    {
        arm_of(html, name, arm);
    }
    html.raw("</div></div>");
}

fn arm_of(html: &mut Html, name: &str, arm: &ArmView) {
    let Some(version) = &arm.version else { return };
    html.raw("<div class=\"arm num\"><i class=\"").raw(name).raw("\"></i><div><b>").raw(name).raw("</b> ");
    html.text(version).raw("</div><span>");
    html.text(&format!("{} users, {} requests", count(arm.users), count(arm.requests)));
    if let Some(share) = arm.share.requests {
        html.text(&format!(" ({})", percent(round2(share))));
    }
    if arm.cost_usd > 0.0 {
        html.text(&format!(", {}", show::value("usd", arm.cost_usd)));
    }
    html.raw("</span>");
    let endpoints = arm.endpoints;
    let class = if endpoints.healthy < endpoints.all { " class=\"down\"" } else { "" };
    html.raw(&format!("<span{class}>"));
    html.text(&format!("{} of {} endpoints in use", endpoints.healthy, endpoints.all)).raw("</span></div>");
}

fn walk(html: &mut Html, view: &RolloutView) {
    if view.stages.is_empty() {
        return;
    }
    let at = view.stage.as_ref().map(|stage| stage.index);
    let all_done = matches!(view.phase, "completed");
    html.raw("<ol class=\"walk num\">");
    for (index, weight) in view.stages.iter().enumerate() {
        let class = match at {
            _ if all_done => "done",
            Some(at) if index < at => "done",
            Some(at) if index == at => "here",
            _ => "next",
        };
        html.raw("<li class=\"").raw(class).raw("\">").text(&percent(*weight));
        if let Some(stage) = view.stage.as_ref().filter(|_| class == "here") {
            html.raw("<small>").text(&waits(stage)).raw("</small>");
        }
        html.raw("</li>");
    }
    html.raw("</ol>");
}

fn waits(stage: &StageView) -> String {
    let approvals = &stage.approvals;
    match stage.waits_for {
        Some("residence") => format!("{} more", minutes(stage.residence_left_s)),
        Some("approval") => format!("{} of {} approvals", approvals.given.len(), approvals.needed),
        Some(other) => format!("waits for {other}"),
        None => String::new(),
    }
}

/// A time that does not tick each second where it is long, so that the card stays still.
fn minutes(seconds: f64) -> String {
    if seconds > 120.0 { show::seconds((seconds / 60.0).ceil() * 60.0) } else { show::seconds(seconds.ceil()) }
}

fn gates(html: &mut Html, gates: &[GateReport]) {
    if gates.is_empty() {
        return;
    }
    html.raw(
        "<div class=\"gates\"><table><thead><tr><th>Gate</th><th class=\"num\">Stable</th><th class=\"num\">Canary</th>\
         <th class=\"num\">Difference</th><th>95 % interval and margins</th><th>Result</th><th class=\"num\">Samples</th>\
         </tr></thead><tbody>",
    );
    for gate in gates {
        row(html, gate);
    }
    html.raw(
        "</tbody></table><p class=\"legend\"><i class=\"g\"></i>within the promote margin\
         <i class=\"r\"></i>beyond the rollback margin<i class=\"z\"></i>no difference</p></div>",
    );
}

fn row(html: &mut Html, gate: &GateReport) {
    let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| show::value(gate.unit, value));
    html.raw("<tr title=\"").text(&gate.why).raw("\"><td><b>").text(&gate.name).raw("</b>");
    html.raw(match gate.on {
        On::Rollback => "",
        On::StepBack => "<small>steps back</small>",
        On::Hold => "<small>holds only</small>",
    });
    html.raw("</td><td class=\"num\">")
        .text(&value(gate.stable))
        .raw("</td><td class=\"num\">")
        .text(&value(gate.canary));
    html.raw("</td><td class=\"num\">");
    html.text(&gate.difference.map_or_else(|| "–".to_owned(), |by| show::difference(gate.unit, by)));
    html.raw("</td><td>").raw(&picture::interval(gate)).raw("</td><td>");
    let (tone, word) = match gate.result {
        GateResult::Pass => ("good", "pass"),
        GateResult::Fail => ("bad", "fail"),
        GateResult::Inconclusive => ("", "open"),
        GateResult::Unarmed => ("", "unarmed"),
    };
    html.raw("<span class=\"chip ").raw(tone).raw("\">").raw(word).raw("</span>");
    let eta = gate.eta_s.filter(|_| gate.result == GateResult::Inconclusive);
    if let Some(eta) = eta {
        html.raw("<small>about ").text(&minutes(eta)).raw("</small>");
    }
    html.raw("</td><td class=\"num\">").text(&count(gate.samples));
    if let Some(needed) = gate.samples_needed.filter(|needed| *needed > gate.samples) {
        html.raw("<small>of ").text(&count(needed)).raw("</small>");
    }
    html.raw("</td></tr>");
}

fn foot(html: &mut Html, view: &RolloutView, actor: &Actor) {
    html.raw("<footer><span class=\"facts num\">");
    let exposed = &view.exposed;
    html.text(&format!("Exposed: {} users, {} requests", count(exposed.users), count(exposed.requests)));
    if exposed.cost_usd > 0.0 {
        html.text(&format!(", {}", show::value("usd", exposed.cost_usd)));
    }
    if let Some(bound) = exposed.spent {
        html.text(&format!("; exposure.{bound} is spent"));
    }
    if let Some(by) = &view.started_by {
        html.text(&format!(". Started by {by}"));
    }
    if let Some(at) = &view.soak_ends_at {
        html.text(&format!(". Soak ends {at}"));
    }
    html.raw("</span>");
    // The button that takes everything back stands at the end, where nobody reaches by mistake.
    let (abort, others): (Vec<_>, Vec<_>) = view
        .allowed
        .iter()
        .filter_map(|name| verb(name))
        .filter(|verb| actor.may(*verb))
        .partition(|v| *v == Verb::Abort);
    for verb in others.into_iter().chain(abort) {
        button(html, view, verb, actor);
    }
    html.raw("</footer>");
}

fn verb(name: &str) -> Option<Verb> {
    let args = VerbArgs { full: false, by: Some(Duration::from_secs(1)), weight: Some(Weight::ZERO) };
    Verb::parse(name, args).ok()
}

fn button(html: &mut Html, view: &RolloutView, verb: Verb, actor: &Actor) {
    let (title, about, fields) = match verb {
        Verb::Start => ("Start", "Enters the first stage.", ""),
        Verb::Approve => ("Approve", "Signs that this stage may be left.", ""),
        Verb::Promote { .. } if actor.may(Verb::Promote { full: true }) => {
            ("Promote", "Skips this stage's residence and gates. It never replaces an approval.", "full")
        }
        Verb::Promote { .. } => {
            ("Promote", "Skips this stage's residence and gates. It never replaces an approval.", "")
        }
        Verb::Pause => ("Pause", "Stands at this weight; the gates stay armed.", ""),
        Verb::Resume => ("Resume", "Goes on where it stood.", ""),
        Verb::StepBack => ("Step back", "Enters the stage before, with fresh evidence.", ""),
        Verb::Extend { .. } => ("Extend", "Watches this stage longer.", "by"),
        Verb::Abort => ("Abort", "0 % at once, latched until somebody clears it.", ""),
        Verb::Clear => ("Clear", "Lifts the latch. The reason is the root cause.", ""),
        Verb::Drill => ("Drill", "Rehearses a rollback without touching users.", ""),
        Verb::SetWeight(_) => {
            ("Set weight", "By hand: needs no proof, is recorded as unproven, pauses the plan.", "weight")
        }
        Verb::Gates => ("Take gates", "Takes the file's changed gates into the running rollout.", ""),
        Verb::Register => ("Register", "Writes the file's entry of this version into the register.", ""),
    };
    let class = match verb {
        Verb::Abort => "danger",
        Verb::Start | Verb::Approve | Verb::Resume | Verb::Clear => "lead",
        _ => "",
    };
    html.raw("<button class=\"").raw(class).raw("\" data-key=\"").text(&format!("{} {}", view.name, verb.name()));
    html.raw("\" data-verb=\"").raw(verb.name()).raw("\" data-name=\"").text(&view.name);
    html.raw(&format!("\" data-generation=\"{}\" data-title=\"{title}\" data-about=\"{about}\"", view.generation));
    html.raw(&format!(" data-fields=\"{fields}\">{title}</button>"));
}
