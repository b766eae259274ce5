//! Numbers, times and spans in the form in which people read them, the same in every rendering.

use super::told::Told;
use crate::names::Wall;
use crate::rollout::{On, Registration};

/// A point in time: date, time to the second, UTC.
#[must_use]
pub fn moment(at: Wall) -> String {
    let text = at.rfc3339();
    match text.get(..19) {
        Some(head) => format!("{} UTC", head.replace('T', " ")),
        None => text,
    }
}

/// A length of time in its two largest units.
#[must_use]
pub fn span(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds.max(0.0) * 1e3);
    }
    let s = seconds.round() as u64;
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(unit, _)| s >= *unit).unwrap_or(3);
    let mut left = s;
    let parts: Vec<String> = units[first..]
        .iter()
        .take(2)
        .filter_map(|(unit, name)| {
            let whole = left / unit;
            left %= unit;
            (whole > 0).then(|| format!("{whole} {name}"))
        })
        .collect();
    parts.join(" ")
}

/// A count with thin groups of three.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Billionths of a dollar as dollars.
#[must_use]
pub fn dollars(nano: u64) -> String {
    let usd = nano as f64 / 1e9;
    if usd > 0.0 && usd < 0.01 { format!("${usd:.4}") } else { format!("${usd:.2}") }
}

/// A weight as a percentage.
#[must_use]
pub fn percent(weight: f64) -> String {
    format!("{} %", trimmed(weight, 3))
}

/// A gate's value in its unit.
#[must_use]
pub fn value(unit: &str, value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    match unit {
        "ratio" => format!("{} %", significant(value * 100.0)),
        "ms" => format!("{} ms", significant(value)),
        "usd" => format!("${}", significant(value)),
        "tokens" => format!("{} tokens", significant(value)),
        "count" => trimmed(value, 0),
        _ => significant(value),
    }
}

/// A difference between two of a gate's values, with its sign; of ratios in percentage points.
#[must_use]
pub fn difference(unit: &str, by: Option<f64>) -> String {
    let Some(by) = by else { return "–".to_owned() };
    let sign = if by < 0.0 { "−" } else { "+" };
    let size = by.abs();
    match unit {
        "ratio" => format!("{sign}{} pp", significant(size * 100.0)),
        "ms" => format!("{sign}{} ms", significant(size)),
        "usd" => format!("{sign}${}", significant(size)),
        _ => format!("{sign}{}", significant(size)),
    }
}

/// The bounds of an interval of differences.
#[must_use]
pub fn interval(unit: &str, bounds: Option<[f64; 2]>) -> String {
    bounds.map_or_else(
        || "–".to_owned(),
        |[low, high]| format!("{} to {}", difference(unit, Some(low)), difference(unit, Some(high))),
    )
}

/// What the register says of a version, as names and values.
#[must_use]
pub fn entry(entry: &Registration) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("digest", format!("`{}`", entry.digest)),
        ("kind", entry.kind.as_str().to_owned()),
        ("owner", entry.owner.clone()),
    ];
    if let Some(risk) = entry.risk {
        facts.push(("risk class", risk.as_str().to_owned()));
    }
    if !entry.contacts.is_empty() {
        facts.push(("contacts", entry.contacts.join(", ")));
    }
    facts.extend(entry.shadow_evidence.iter().map(|evidence| ("shadow evidence", evidence.clone())));
    facts
}

/// Said where the outbox of notices could not be read.
pub const NOBODY_KNOWS: &str = "Who was told is not shown: the outbox of notices could not be read.";

/// What became of a notice.
#[must_use]
pub fn became(told: &Told) -> String {
    let tries = match told.attempts {
        0 | 1 => String::new(),
        n => format!(" at the {n}. attempt"),
    };
    let why = if told.why.is_empty() { String::new() } else { format!(": {}", told.why) };
    format!("{}{tries}{why}", told.result)
}

/// What a gate's fail does.
#[must_use]
pub const fn on(on: On) -> &'static str {
    match on {
        On::Rollback => "rolls back",
        On::Hold => "holds",
        On::StepBack => "steps back",
    }
}

/// Three significant digits, no trailing zeros.
fn significant(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        0.0 => 0,
        s if s >= 100.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 1.0 => 2,
        s if s >= 0.1 => 3,
        _ => 4,
    };
    trimmed(value, decimals)
}

fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Who signed on the way.
pub fn signers(approvals: &[String]) -> String {
    if approvals.is_empty() { "nobody was asked to".to_owned() } else { approvals.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(moment(Wall(1_763_647_331_123)), "2025-11-20 14:02:11 UTC");
        for (seconds, text) in
            [(0.0042, "4 ms"), (59.6, "1 min"), (3_661.0, "1 h 1 min"), (259_200.0, "3 d"), (7.0, "7 s")]
        {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(count(1_234_567).replace('\u{202f}', " "), "1 234 567");
        assert_eq!(
            (count(12), dollars(1_500_000_000), dollars(2_500_000)),
            ("12".into(), "$1.50".into(), "$0.0025".into())
        );
        assert_eq!((percent(0.001), percent(100.0)), ("0.001 %".into(), "100 %".into()));
        assert_eq!(value("ratio", Some(0.0031)), "0.31 %");
        assert_eq!(value("ms", Some(1_234.6)), "1235 ms");
        assert_eq!(value("score", None), "–");
        assert_eq!(difference("ratio", Some(-0.000_21)), "−0.021 pp");
        assert_eq!(interval("ms", Some([-10.0, 12.34])), "−10 ms to +12.3 ms");
    }
}
