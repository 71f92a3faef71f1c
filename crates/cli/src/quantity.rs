//! Parses the durations and sizes of the command line.

use std::time::Duration;

use crate::error::QuantityError;

/// `10`, `1.5s`, `500ms`, `2m` or `1h`; a number without a unit is seconds. 1 ms to 1e9 s.
pub fn duration(text: &str) -> Result<Duration, QuantityError> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1.0,
        "" | "s" => 1e3,
        "m" | "min" => 60e3,
        "h" => 3600e3,
        _ => return Err(unknown(unit, "ms, s, m or h")),
    };
    let value = number * milliseconds;
    if !(1.0..=1e12).contains(&value) {
        return Err(QuantityError::Duration);
    }
    Ok(Duration::from_millis(value.round() as u64))
}

/// As [`duration`], and `0`.
pub fn duration_or_zero(text: &str) -> Result<Duration, QuantityError> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        text => duration(text),
    }
}

/// `512`, `512M` or `2G`, in MiB; a number without a unit is MiB.
pub fn mebibytes(text: &str) -> Result<u64, QuantityError> {
    let (number, unit) = split(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "m" | "mb" | "mib" => 1.0,
        "g" | "gb" | "gib" => 1024.0,
        _ => return Err(unknown(unit, "M or G")),
    };
    whole(number * factor, "MiB")
}

/// `1000`, `64K`, `1M` or `1G`, in bytes; units are powers of 1024.
pub fn bytes(text: &str) -> Result<u64, QuantityError> {
    let (number, unit) = split(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(unknown(unit, "K, M or G")),
    };
    whole(number * factor, "byte")
}

/// Number and unit. The number comes first, so that a text without one is not reported as an unknown unit.
fn split(text: &str) -> Result<(f64, &str), QuantityError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| QuantityError::NotANumber)?;
    Ok((number, text[end..].trim()))
}

fn unknown(unit: &str, known: &'static str) -> QuantityError {
    QuantityError::Unit {
        unit: unit.to_owned(),
        known,
    }
}

fn whole(value: f64, unit: &'static str) -> Result<u64, QuantityError> {
    // Above 2^53 not every integer is an f64.
    if !(1.0..=9e15).contains(&value) {
        return Err(QuantityError::Size { unit });
    }
    Ok(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::{QuantityError, bytes, duration, mebibytes};
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
    fn malformed_durations_are_refused() {
        for text in ["", "s", "0", "0.1ms", "-1", "1 year", "1.2.3", "1e99h"] {
            assert!(duration(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_text_without_a_number_is_not_an_unknown_unit() {
        assert_eq!(duration("soon"), Err(QuantityError::NotANumber));
        assert_eq!(mebibytes("lots"), Err(QuantityError::NotANumber));
    }

    #[test]
    fn memory_without_a_unit_is_mebibytes() {
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
