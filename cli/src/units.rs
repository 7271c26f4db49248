//! Numbers for people.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 key`, `1,000 keys`.
pub(crate) fn number_of(n: u64, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(n))
}

/// `1536` as `1.5 KiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = as_f64(n);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{} {}", three_digits(value), UNITS[unit]) }
}

/// A rate of operations: `1.53 M/s`.
pub(crate) fn rate(n: u64, elapsed: Duration) -> String {
    let value = per_second(n, elapsed);
    match value {
        v if v >= 1e6 => format!("{} M/s", three_digits(v / 1e6)),
        v if v >= 1e4 => format!("{} k/s", three_digits(v / 1e3)),
        v => format!("{v:.0} /s"),
    }
}

/// Operations a second.
pub(crate) fn per_second(n: u64, elapsed: Duration) -> f64 {
    as_f64(n) / elapsed.as_secs_f64().max(1e-9)
}

/// `1234 ns` as `1.23 µs`.
pub(crate) fn time(elapsed: Duration) -> String {
    let ns = elapsed.as_secs_f64() * 1e9;
    match ns {
        v if v < 1e3 => format!("{v:.0} ns"),
        v if v < 1e6 => format!("{} µs", three_digits(v / 1e3)),
        v if v < 1e9 => format!("{} ms", three_digits(v / 1e6)),
        v => format!("{} s", three_digits(v / 1e9)),
    }
}

/// What is left of some work, in whole seconds: `42 s`, `3 m 05 s`, `2 h 10 m`.
pub(crate) fn time_left(left: Duration) -> String {
    let seconds = left.as_secs_f64().ceil() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// A time from the command line: `500ms`, `90s`, `15m`, `2h`, `7d`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let millis: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a number and a unit: 500ms, 90s, 15m, 2h or 7d".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{digits}' is not a whole number"))?;
    let total = number.checked_mul(millis).ok_or("that is longer than time can be counted")?;
    if total == 0 {
        return Err("a time of more than nothing is needed".to_owned());
    }
    Ok(Duration::from_millis(total))
}

/// Of what is counted here, 2^53 are never reached.
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
pub(crate) fn as_f64(n: u64) -> f64 {
    n as f64
}

fn three_digits(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse_time("15m"), Ok(Duration::from_mins(15)));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("7d"), Ok(Duration::from_hours(168)));
        for wrong in [
            "",
            "5",
            "0s",
            "m",
            "-5s",
            "1.5h",
            "5 m",
            "5min",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(number_of(1, "key"), "1 key");
        assert_eq!(number_of(1_000, "key"), "1,000 keys");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(300 << 20), "300 MiB");
        assert_eq!(time(Duration::from_nanos(999)), "999 ns");
        assert_eq!(time(Duration::from_nanos(1_234)), "1.23 µs");
        assert_eq!(time(Duration::from_millis(61_500)), "61.5 s");
        assert_eq!(time_left(Duration::from_millis(1)), "1 s");
        assert_eq!(time_left(Duration::from_secs(185)), "3 m 05 s");
        assert_eq!(time_left(Duration::from_mins(130)), "2 h 10 m");
        assert_eq!(rate(1_530_000, Duration::from_secs(1)), "1.53 M/s");
        assert_eq!(rate(9_000, Duration::from_secs(2)), "4500 /s");
    }
}
