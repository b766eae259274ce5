//! Plots as inline SVG: the weight over time, the gates as intervals against their margins, the exposure by stage.
//!
//! Colours are classes of the page's style, so that they follow light, dark and paper; numbers are in the text beside
//! every plot, so nothing is told by colour alone.

use std::fmt::Write as _;

use super::html::Html;
use super::release::{Exposure, Moment, Outcome, Release};
use super::words;
use crate::rollout::{Decision, GateNumbers, GateResult};

/// Width of every drawing; the page scales it.
const WIDTH: f64 = 860.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 18.0;
/// The most marks on one drawing: a long life is thinned out, its table is whole.
const MARKS_MAX: usize = 400;

/// The weight over time: a step line on a scale that shows 1 % as well as 100 %, with approvals, waits and the fall.
#[must_use]
pub fn weights(release: &Release) -> String {
    const TOP: f64 = 16.0;
    const HEIGHT: f64 = 230.0;
    const BOTTOM: f64 = TOP + HEIGHT;
    let first = release.began_at;
    let last = release.timeline.last().map_or(first, |line| line.at);
    let whole = last.since(first).max(1.0);
    let x = |at: Moment| LEFT + (at.since(first) / whole).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
    let y = |weight: f64| BOTTOM - (weight.clamp(0.0, 100.0) / 100.0).powf(0.42) * HEIGHT;
    let mut svg = begin("weight of the version over time", BOTTOM + 34.0);
    for weight in [0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0] {
        let at = y(weight);
        line(&mut svg, "grid", [LEFT, at, WIDTH - RIGHT, at]);
        label(&mut svg, "tick end", [LEFT - 8.0, at + 4.0], &words::percent(weight));
    }
    for (at, text) in ticks(whole) {
        let at = LEFT + at / whole * (WIDTH - LEFT - RIGHT);
        line(&mut svg, "grid faint", [at, TOP, at, BOTTOM]);
        label(&mut svg, "tick middle", [at, BOTTOM + 18.0], &text);
    }
    let mut path = format!("M{:.1} {:.1}", x(first), y(0.0));
    let mut now = 0.0;
    let step = release.timeline.len().div_ceil(MARKS_MAX).max(1);
    for decided in &release.timeline {
        if decided.weight == now {
            continue;
        }
        let at = x(decided.at);
        push(&mut path, format_args!(" L{at:.1} {:.1} L{at:.1} {:.1}", y(now), y(decided.weight)));
        now = decided.weight;
    }
    push(&mut path, format_args!(" L{:.1} {:.1}", x(last), y(now)));
    let area = format!("{path} L{:.1} {:.1} Z", x(last), y(0.0));
    svg.raw(&format!("<path class=\"area\" d=\"{area}\"/><path class=\"curve\" d=\"{path}\"/>"));
    for decided in release.timeline.iter().step_by(step) {
        let (at, high) = (x(decided.at), y(decided.weight));
        let class = match decided.decision {
            Decision::Advance | Decision::Complete | Decision::Start => "mark good",
            Decision::Promote | Decision::SetWeight | Decision::Resume => "mark hand",
            Decision::Approve => "mark sign",
            Decision::Pause | Decision::Deadline | Decision::StepBack => "mark wait",
            _ => continue,
        };
        svg.raw(&format!("<circle class=\"{class}\" cx=\"{at:.1}\" cy=\"{high:.1}\" r=\"4\"><title>"));
        svg.text(&format!("{}: {}", words::moment(decided.at.0), super::release::title(decided.decision)));
        svg.raw("</title></circle>");
    }
    if let Some(incident) = &release.incident {
        let at = x(incident.at);
        line(&mut svg, "fall", [at, y(incident.weight_before), at, BOTTOM]);
        let end = if at > WIDTH * 0.75 { "say bad end" } else { "say bad" };
        let beside = if at > WIDTH * 0.75 { -8.0 } else { 8.0 };
        label(&mut svg, end, [at + beside, y(incident.weight_before) - 6.0], "to 0, latched");
    } else if release.outcome == Outcome::Completed {
        label(&mut svg, "say good end", [WIDTH - RIGHT - 6.0, TOP - 4.0], "completed");
    }
    svg.raw("</svg>");
    svg.done()
}

/// Each gate's interval, with its rollback margin at 1: left of the promote margin is fine, beyond 1 is surely bad.
/// Empty where no gate has an interval and a margin.
#[must_use]
pub fn gates(gates: &[GateNumbers]) -> String {
    const NAMES: f64 = 210.0;
    const ROW: f64 = 30.0;
    const LOW: f64 = -1.25;
    const HIGH: f64 = 1.75;
    let drawn: Vec<(&GateNumbers, f64)> = gates
        .iter()
        .filter_map(|gate| Some((gate, gate.rollback.filter(|m| *m != 0.0)?)))
        .filter(|(g, _)| g.interval.is_some())
        .collect();
    if drawn.is_empty() {
        return String::new();
    }
    let x = |margin: f64| NAMES + (margin.clamp(LOW, HIGH) - LOW) / (HIGH - LOW) * (WIDTH - NAMES - RIGHT);
    let bottom = 12.0 + drawn.len() as f64 * ROW;
    let mut svg = begin("gates against their margins", bottom + 40.0);
    svg.raw(&format!(
        "<rect class=\"zone\" x=\"{:.1}\" y=\"6\" width=\"{:.1}\" height=\"{:.1}\"/>",
        x(1.0),
        x(HIGH) - x(1.0),
        bottom
    ));
    for (margin, text) in [(-1.0, "−1"), (0.0, "no difference"), (1.0, "rollback margin")] {
        line(&mut svg, if margin == 1.0 { "edge" } else { "grid" }, [x(margin), 6.0, x(margin), bottom + 6.0]);
        label(&mut svg, "tick middle", [x(margin), bottom + 24.0], text);
    }
    for (row, (gate, margin)) in drawn.iter().enumerate() {
        let middle = 12.0 + (row as f64 + 0.5) * ROW;
        label(&mut svg, "name end", [NAMES - 14.0, middle + 4.0], &gate.name);
        let class = match gate.result {
            GateResult::Pass => "good",
            GateResult::Fail => "bad",
            GateResult::Inconclusive | GateResult::Unarmed => "open",
        };
        if let Some(promote) = gate.promote {
            let at = x(promote / margin);
            line(&mut svg, "promote", [at, middle - 9.0, at, middle + 9.0]);
        }
        let ends = gate.interval.map(|[a, b]| (a / margin, b / margin)).unwrap_or_default();
        let (low, high) = (ends.0.min(ends.1), ends.0.max(ends.1));
        line(&mut svg, &format!("span {class}"), [x(low), middle, x(high), middle]);
        for (end, beyond) in [(low, low < LOW), (high, high > HIGH)] {
            let at = x(end);
            if beyond {
                let tip = if end < 0.0 { -6.0 } else { 6.0 };
                svg.raw(&format!(
                    "<path class=\"tip {class}\" d=\"M{at:.1} {:.1} l{tip} 5 l{} 5 z\"/>",
                    middle - 5.0,
                    -tip
                ));
            } else {
                line(&mut svg, &format!("span {class}"), [at, middle - 5.0, at, middle + 5.0]);
            }
        }
        if let Some(difference) = gate.difference {
            svg.raw(&format!(
                "<circle class=\"dot {class}\" cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4.5\"/>",
                x(difference / margin)
            ));
        }
    }
    svg.raw("</svg>");
    svg.done()
}

/// Requests by stay at a weight, as bars.
#[must_use]
pub fn exposure(stays: &[Exposure]) -> String {
    const NAMES: f64 = 140.0;
    const ROW: f64 = 28.0;
    let most = stays.iter().map(|stay| stay.requests).max().unwrap_or(0);
    if most == 0 || stays.len() > 60 {
        return String::new();
    }
    let room = WIDTH - NAMES - 220.0;
    let mut svg = begin("requests that the version served, by stay at a weight", 10.0 + stays.len() as f64 * ROW);
    for (row, stay) in stays.iter().enumerate() {
        let top = 6.0 + row as f64 * ROW;
        let long = stay.requests as f64 / most as f64 * room;
        let name = match stay.stage {
            Some(stage) => format!("stage {} · {}", stage + 1, words::percent(stay.weight)),
            None => words::percent(stay.weight),
        };
        label(&mut svg, "name end", [NAMES - 12.0, top + 15.0], &name);
        svg.raw(&format!(
            "<rect class=\"bar\" x=\"{NAMES}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"20\" rx=\"4\"/>",
            long.max(2.0)
        ));
        let text = format!("{} requests · {} new users", words::count(stay.requests), words::count(stay.new_users));
        label(&mut svg, "tick", [NAMES + long.max(2.0) + 8.0, top + 15.0], &text);
    }
    svg.raw("</svg>");
    svg.done()
}

/// At most seven round points on an axis of so many seconds, with their names.
fn ticks(whole: f64) -> Vec<(f64, String)> {
    const STEPS: [f64; 17] = [
        1.0,
        5.0,
        15.0,
        60.0,
        300.0,
        900.0,
        3_600.0,
        10_800.0,
        21_600.0,
        43_200.0,
        86_400.0,
        172_800.0,
        345_600.0,
        864_000.0,
        1_728_000.0,
        5_184_000.0,
        15_552_000.0,
    ];
    let step = STEPS.into_iter().find(|step| whole / step <= 7.0).unwrap_or(whole / 5.0);
    let count = (whole / step) as usize;
    (0..=count)
        .map(|at| {
            let at = at as f64 * step;
            (at, if at == 0.0 { "start".to_owned() } else { format!("+{}", words::span(at)) })
        })
        .collect()
}

fn begin(title: &str, height: f64) -> Html {
    let mut svg = Html::new();
    svg.raw(&format!("<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\""));
    svg.text(title).raw("\">");
    svg
}

fn line(svg: &mut Html, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
    svg.raw(&format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"));
}

fn label(svg: &mut Html, class: &str, [x, y]: [f64; 2], text: &str) {
    svg.raw(&format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">")).text(text).raw("</text>");
}

fn push(path: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let written = path.write_fmt(part);
    debug_assert!(written.is_ok());
}
