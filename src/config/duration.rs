//! Durations ("1h30m"), sizes ("64KiB") and amounts ("1M") as people write them.

use std::time::Duration;

/// Reads a duration: numbers with units ms, s, m, h, d, w, largest first or not, summed; "250ms", "1h30m", "1.5h".
///
/// # Errors
/// What is wrong with it, as a sentence without its subject.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("is empty");
    }
    let mut sum = 0.0f64;
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or("is not a duration")?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(after.len());
        let (unit, tail) = after.split_at(end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "" => return Err("has no unit"),
            _ => return Err("has an unknown unit"),
        };
        sum += number * factor;
        rest = tail.trim_start();
    }
    // Ten years: what is longer is a slip of the hand, and near it the arithmetic of clocks stays exact.
    if sum > 315_360_000.0 {
        return Err("is longer than ten years");
    }
    // Nanoseconds are rounded so that "1.1s" is what it says.
    Ok(Duration::from_nanos((sum * 1e9).round() as u64))
}

/// Reads a size in bytes: "64KiB", "100MiB", "1.5GiB", "500B", "2MB" (1000s).
///
/// # Errors
/// What is wrong with it, as a sentence without its subject.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = number(text.trim()).ok_or("is not a size")?;
    let factor = match unit.trim() {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "" => return Err("has no unit"),
        _ => return Err("has an unknown unit"),
    };
    let bytes = number * factor;
    if bytes > 9.0e15 {
        return Err("is larger than any disk");
    }
    if bytes.fract() != 0.0 {
        return Err("is no whole number of bytes");
    }
    Ok(bytes as u64)
}

/// Reads a count of tokens: "1", "1K", "1M".
///
/// # Errors
/// What is wrong with it.
pub fn parse_amount(text: &str) -> Result<f64, &'static str> {
    let (number, unit) = number(text.trim()).ok_or("is not an amount")?;
    let factor = match unit.trim() {
        "" => 1.0,
        "K" | "k" => 1e3,
        "M" => 1e6,
        _ => return Err("has an unknown unit"),
    };
    if number > 0.0 { Ok(number * factor) } else { Err("is zero") }
}

/// A duration as it would be written: the fewest of d, h, m, s, ms.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut ms = duration.as_millis();
    if ms == 0 {
        return if duration.is_zero() { "0s".to_owned() } else { format!("{}ns", duration.as_nanos()) };
    }
    let mut out = String::new();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if ms >= size {
            out.push_str(&format!("{}{unit}", ms / size));
            ms %= size;
        }
    }
    out
}

/// A decimal number at the front (underscores allowed), and what follows.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number: f64 = digits.replace('_', "").parse().ok()?;
    number.is_finite().then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("24h", 86_400_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1_500),
            ("90d", 7_776_000_000),
            ("0s", 0),
            ("1m1s1ms", 61_001),
        ] {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), Ok(ms), "{text}");
        }
        for (text, why) in [
            ("", "is empty"),
            ("10", "has no unit"),
            ("10 fortnights", "has an unknown unit"),
            ("soon", "is not a duration"),
            ("-5s", "is not a duration"),
            ("1..5s", "is not a duration"),
            ("99999999d", "is longer than ten years"),
        ] {
            assert_eq!(parse_duration(text), Err(why), "{text}");
        }
        for text in ["1d2h", "1h30m", "250ms", "0s", "1m1s1ms"] {
            assert_eq!(parse_duration(text).map(show_duration).as_deref(), Ok(text));
        }
    }

    #[test]
    fn sizes_and_amounts_are_read_as_people_write_them() {
        for (text, bytes) in
            [("64KiB", 65_536), ("100MiB", 104_857_600), ("1.5KiB", 1_536), ("2MB", 2_000_000), ("0B", 0)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, why) in [
            ("64", "has no unit"),
            ("64K", "has an unknown unit"),
            ("big", "is not a size"),
            ("0.3B", "is no whole number of bytes"),
            ("99999999TiB", "is larger than any disk"),
        ] {
            assert_eq!(parse_size(text), Err(why), "{text}");
        }
        assert_eq!(parse_amount("1M"), Ok(1e6));
        assert_eq!(parse_amount("0"), Err("is zero"));
    }
}
