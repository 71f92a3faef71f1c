//! Durations and sizes as people type them.

use std::time::Duration;

/// `10`, `1.5s`, `500ms`, `2m` or `1h`; a bare number is seconds. At least a millisecond.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1.0,
        "" | "s" => 1e3,
        "m" | "min" => 60e3,
        "h" => 3600e3,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s, m or h")),
    };
    let value = parse(number)? * milliseconds;
    if !(1.0..=1e12).contains(&value) {
        return Err("give at least 1ms and at most some years".to_owned());
    }
    Ok(Duration::from_millis(value.round() as u64))
}

/// `512`, `512M` or `2G`, in MiB; a bare number is MiB.
pub fn mebibytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "m" | "mb" | "mib" => 1.0,
        "g" | "gb" | "gib" => 1024.0,
        _ => return Err(format!("unknown unit {unit:?}: use M or G")),
    };
    whole(parse(number)? * factor, "MiB")
}

/// `1000`, `64K`, `1M` or `1G`, in bytes; a bare number is bytes, units are powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("unknown unit {unit:?}: use K, M or G")),
    };
    whole(parse(number)? * factor, "byte")
}

fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn parse(number: &str) -> Result<f64, String> {
    number.parse().map_err(|_| "not a number".to_owned())
}

fn whole(value: f64, unit: &str) -> Result<u64, String> {
    // Past 2^53 a float skips integers, and nobody means that many.
    if !(1.0..=9e15).contains(&value) {
        return Err(format!(
            "give at least 1 {unit}, and less than the machine has"
        ));
    }
    Ok(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration, mebibytes};
    use std::time::Duration;

    #[test]
    fn durations_take_units_and_fractions() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn durations_that_mean_nothing_are_refused() {
        for text in ["", "s", "0", "0.1ms", "-1", "1 year", "1.2.3", "1e99h"] {
            assert!(duration(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn memory_is_mebibytes_unless_said_otherwise() {
        assert_eq!(mebibytes("512"), Ok(512));
        assert_eq!(mebibytes("512M"), Ok(512));
        assert_eq!(mebibytes("1.5G"), Ok(1536));
        assert!(mebibytes("0").is_err());
        assert!(mebibytes("1T").is_err());
    }

    #[test]
    fn bytes_take_binary_units() {
        assert_eq!(bytes("1000"), Ok(1000));
        assert_eq!(bytes("64k"), Ok(65536));
        assert_eq!(bytes("1MiB"), Ok(1 << 20));
        assert!(bytes("lots").is_err());
    }
}
