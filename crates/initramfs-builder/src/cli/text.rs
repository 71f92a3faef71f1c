//! Parses and prints sizes and ages.

use std::time::{SystemTime, UNIX_EPOCH};

/// Parses `512M`, `2G` or `1024`, with units of powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let error =
        || format!("invalid size `{text}`: write a number, optionally followed by K, M or G");
    let text_trimmed = text
        .trim()
        .trim_end_matches(['B', 'b'])
        .trim_end_matches('i');
    let (number, shift) = match text_trimmed.chars().last() {
        Some('K' | 'k') => (&text_trimmed[..text_trimmed.len() - 1], 10),
        Some('M' | 'm') => (&text_trimmed[..text_trimmed.len() - 1], 20),
        Some('G' | 'g') => (&text_trimmed[..text_trimmed.len() - 1], 30),
        _ => (text_trimmed, 0),
    };
    let number: u64 = number.trim().parse().map_err(|_| error())?;
    number.checked_mul(1 << shift).ok_or_else(error)
}

/// `59.2 MiB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// The age of a time in seconds since 1970, such as `3 hours ago`.
pub fn age_of(built_at: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    age(now.saturating_sub(built_at))
}

/// `3 hours ago`.
fn age(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("7"), Ok(7));
        assert!(parse_size("x").is_err());
        assert!(parse_size("99999999999G").is_err());
    }

    #[test]
    fn sizes_are_written_with_one_decimal() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(60 << 20), "60.0 MiB");
    }

    #[test]
    fn one_hour_has_no_plural() {
        assert_eq!(age(3600), "1 hour ago");
        assert_eq!(age(172_800), "2 days ago");
    }
}
