//! How a gate's numbers are said to people: in its unit, short, the same on the terminal and on the dashboard.

/// A value of a gate in its unit: "0.31 %", "181 ms", "1.42 s", "$0.0012".
#[must_use]
pub fn value(unit: &str, value: f64) -> String {
    match unit {
        "ratio" => format!("{} %", number(value * 100.0)),
        "ms" if value.abs() >= 1_000.0 => format!("{} s", number(value / 1_000.0)),
        "ms" => format!("{} ms", number(value)),
        "usd" if value < 0.0 => format!("-${}", number(-value)),
        "usd" => format!("${}", number(value)),
        "tokens" => format!("{} tok", number(value)),
        _ => number(value),
    }
}

/// A difference in its unit, with its sign: "+0.02 pp", "-12 ms".
#[must_use]
pub fn difference(unit: &str, by: f64) -> String {
    let sign = if by >= 0.0 { "+" } else { "" };
    match unit {
        "ratio" => format!("{sign}{} pp", number(by * 100.0)),
        _ => format!("{sign}{}", value(unit, by)),
    }
}

/// A number with three significant digits, or all digits of its whole part: "0.00123", "18.1", "12,034".
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    let size = value.abs();
    if size >= 100.0 || size == 0.0 {
        return grouped(value);
    }
    let decimals = if size >= 10.0 {
        1
    } else if size >= 1.0 {
        2
    } else {
        // 0.0123 has its first digit in the second place: three digits end in the fourth.
        (2.0 - size.log10().floor()).clamp(0.0, 9.0) as usize
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A whole number in groups of three from five digits on.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let sign = if value < 0.0 && digits != "0" { "-" } else { "" };
    if digits.len() < 5 {
        return format!("{sign}{digits}");
    }
    let first = digits.len() % 3;
    let mut out = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index % 3 == first % 3 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Seconds as people say them, two units at most: "1 h 50 m", "42 s", "3 d".
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds < 10.0 && seconds.fract() > 0.05 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, size)| whole >= *size) else { return "0 s".to_owned() };
    let mut parts = Vec::new();
    let mut rest = whole;
    for (name, size) in units.iter().skip(first).take(2) {
        if rest / size > 0 {
            parts.push(format!("{} {name}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_in_their_unit() {
        for (unit, given, expect) in [
            ("ratio", 0.0031, "0.31 %"),
            ("ratio", 0.0, "0 %"),
            ("ratio", 0.999, "99.9 %"),
            ("ms", 181.2, "181 ms"),
            ("ms", 1_420.0, "1.42 s"),
            ("ms", 0.5, "0.5 ms"),
            ("usd", 0.00123, "$0.00123"),
            ("tokens", 12_034.0, "12,034 tok"),
            ("score", 0.93, "0.93"),
            ("count", 3.0, "3"),
            ("value", f64::NAN, "?"),
        ] {
            assert_eq!(value(unit, given), expect);
        }
        assert_eq!(difference("ratio", 0.0002), "+0.02 pp");
        assert_eq!(difference("ratio", -0.000_000_000_001), "0 pp");
        assert_eq!(difference("ms", -12.0), "-12 ms");
        assert_eq!(difference("usd", -0.5), "-$0.5");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(-120_034.0), "-120,034");
    }

    #[test]
    fn times_have_two_units_at_most() {
        for (given, expect) in [
            (0.0, "0 s"),
            (0.2, "0.2 s"),
            (42.4, "42 s"),
            (6_600.0, "1 h 50 m"),
            (3_600.0, "1 h"),
            (90_061.0, "1 d 1 h"),
            (-1.0, "?"),
        ] {
            assert_eq!(seconds(given), expect);
        }
    }
}
