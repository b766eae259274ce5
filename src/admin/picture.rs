//! The dashboard's drawings, as SVG without inline style: the split as a bar, a gate's interval between its margins.

use std::fmt::Write as _;

use crate::evaluator::RolloutView;
use crate::judge::{GateReport, show};

/// Width and height of an interval's drawing.
const WIDE: f64 = 190.0;
const HIGH: f64 = 30.0;

/// The split: canary from the left, baseline as large at the right, stable between.
#[must_use]
pub fn bar(view: &RolloutView) -> String {
    let canary = view.weight.clamp(0.0, 100.0);
    let baseline = if view.arms.baseline.version.is_some() { canary.min(100.0 - canary) } else { 0.0 };
    let stable = 100.0 - canary - baseline;
    let mut svg = format!(
        "<svg class=\"bar\" viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"canary {canary} %, stable {stable} %, baseline {baseline} %\">"
    );
    for (class, from, wide) in
        [("canary", 0.0, canary), ("stable", canary, stable), ("baseline", canary + stable, baseline)]
    {
        if wide > 0.0 {
            put(
                &mut svg,
                format_args!("<rect class=\"{class}\" x=\"{from:.3}\" y=\"0\" width=\"{wide:.3}\" height=\"4\"/>"),
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

fn put(svg: &mut String, part: std::fmt::Arguments<'_>) {
    if svg.write_fmt(part).is_err() {
        debug_assert!(false, "writing to a String does not fail");
    }
}

/// A gate's difference with its interval, before the promote and rollback margins. Empty where nothing is known.
#[must_use]
pub fn interval(gate: &GateReport) -> String {
    let (Some(difference), Some([low, high])) = (gate.difference, gate.interval) else { return String::new() };
    if ![difference, low, high].iter().all(|value| value.is_finite()) {
        return String::new();
    }
    let scale = Scale::new(gate, [difference, low, high]);
    let label = format!(
        "difference {}, between {} and {}",
        show::difference(gate.unit, difference),
        show::difference(gate.unit, low),
        show::difference(gate.unit, high)
    );
    let mut svg = format!(
        "<svg class=\"interval\" viewBox=\"0 0 {WIDE} {HIGH}\" role=\"img\" aria-label=\"{label}\"><title>{label}</title>"
    );
    let lower_is_worse = gate.rollback.is_some_and(|by| by < 0.0);
    if let Some(rollback) = gate.rollback {
        zone(&mut svg, "badzone", scale.at(rollback), if lower_is_worse { 0.0 } else { WIDE });
    }
    if let Some(promote) = gate.promote {
        zone(&mut svg, "goodzone", scale.at(promote), if lower_is_worse { WIDE } else { 0.0 });
    }
    let middle = HIGH / 2.0;
    put(&mut svg, format_args!("<line class=\"axis\" x1=\"0\" x2=\"{WIDE}\" y1=\"{middle}\" y2=\"{middle}\"/>"));
    for (class, value) in [("zero", Some(0.0)), ("promote", gate.promote), ("rollback", gate.rollback)] {
        if let Some(value) = value {
            let x = scale.at(value);
            put(&mut svg, format_args!("<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"3\" y2=\"27\"/>"));
        }
    }
    let (from, to, point) = (scale.at(low), scale.at(high), scale.at(difference));
    put(
        &mut svg,
        format_args!(
            "<line class=\"range\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
             <circle class=\"point\" cx=\"{point:.1}\" cy=\"{middle}\" r=\"4\"/></svg>"
        ),
    );
    svg
}

fn zone(svg: &mut String, class: &str, a: f64, b: f64) {
    let (from, wide) = (a.min(b), (a - b).abs());
    put(svg, format_args!("<rect class=\"{class}\" x=\"{from:.1}\" y=\"3\" width=\"{wide:.1}\" height=\"24\"/>"));
}

/// Values to places. Margins are always in the picture; an interval that is far wider runs off its edge.
struct Scale {
    low: f64,
    span: f64,
}

impl Scale {
    fn new(gate: &GateReport, [difference, low, high]: [f64; 3]) -> Self {
        let margins = [Some(0.0), gate.promote, gate.rollback];
        let fixed = || margins.into_iter().flatten().filter(|value| value.is_finite());
        let reach = fixed().fold(0.0_f64, |reach, value| reach.max(value.abs()));
        // So far beyond the margins an interval says no more than "far".
        let most = if reach > 0.0 { reach * 1.8 } else { low.abs().max(high.abs()) };
        let seen = [difference, low, high].map(|value| value.clamp(-most, most));
        let least = fixed().chain(seen).fold(f64::INFINITY, f64::min);
        let largest = fixed().chain(seen).fold(f64::NEG_INFINITY, f64::max);
        let span = if largest > least { largest - least } else { 1.0 };
        Self { low: least - span * 0.08, span: span * 1.16 }
    }

    fn at(&self, value: f64) -> f64 {
        ((value - self.low) / self.span * WIDE).clamp(2.0, WIDE - 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{gate, view};
    use super::*;
    use crate::judge::GateResult;

    fn x_of(svg: &str, class: &str) -> f64 {
        let at = svg.find(&format!("class=\"{class}\"")).unwrap_or_else(|| panic!("{class} in {svg}"));
        let rest = &svg[at..];
        let from = rest.find("x").map(|_| rest).unwrap();
        let key = if class == "point" { "cx=\"" } else { "x1=\"" };
        from.split(key).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    }

    #[test]
    fn an_interval_lies_between_its_margins_as_its_numbers_do() {
        let svg = interval(&gate("latency_p99", "ms", GateResult::Inconclusive));
        let places = ["range", "zero", "point", "promote", "rollback"].map(|class| x_of(&svg, class));
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
        let mut lower = gate("quality_mean", "score", GateResult::Inconclusive);
        (lower.promote, lower.rollback) = (Some(-0.001), Some(-0.003));
        let svg = interval(&lower);
        assert!(x_of(&svg, "rollback") < x_of(&svg, "promote") && x_of(&svg, "promote") < x_of(&svg, "zero"));
    }

    #[test]
    fn nothing_is_drawn_of_what_is_not_known_and_nothing_leaves_the_picture() {
        let mut gate = gate("latency_p99", "ms", GateResult::Unarmed);
        gate.interval = Some([-1e12, f64::INFINITY]);
        assert_eq!(interval(&gate), "");
        gate.interval = Some([-1e12, 1e12]);
        let svg = interval(&gate);
        assert!(x_of(&svg, "range") >= 0.0 && x_of(&svg, "promote") > 20.0, "margins keep their room: {svg}");
        gate.interval = None;
        assert_eq!(interval(&gate), "");
    }

    #[test]
    fn the_bar_has_the_shares_of_the_split() {
        let svg = bar(&view("running", 10.0));
        for part in [
            "canary\" x=\"0.000\" y=\"0\" width=\"10.000",
            "stable\" x=\"10.000\" y=\"0\" width=\"80.000",
            "baseline\" x=\"90.000\" y=\"0\" width=\"10.000",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(bar(&view("idle", 0.0)).contains("width=\"100.000\""));
        assert!(!bar(&view("completed", 100.0)).contains("baseline\" x"));
    }
}
