//! Parses numbers of tar headers and PAX records.

/// A numeric field of a tar header: octal digits (POSIX.1-2017, pax, ustar Interchange Format), or
/// base 256 in two's complement when the first bit is set (GNU tar manual, "Extensions to the
/// archive format"). An empty field is 0.
pub(crate) fn field(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base_256(bytes),
        _ => octal(bytes),
    }
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let digits = &digits[..digits.iter().position(blank).unwrap_or(digits.len())];
    let rest = &bytes[start + digits.len()..];
    // Bytes after a NUL are ignored; bytes after a space must be blank.
    if rest.first() == Some(&b' ') && !rest.iter().all(blank) {
        return None;
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn base_256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    // The first bit is the marker of base 256: replace it by the sign.
    let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
    let mut value: i128 = if negative { -1 } else { 0 };
    for byte in std::iter::once(&first).chain(&bytes[1..]) {
        value = (value << 8) | i128::from(*byte);
        i64::try_from(value).ok()?;
    }
    i64::try_from(value).ok()
}

/// A decimal number of a PAX record.
pub(crate) fn decimal(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, bytes),
    };
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })?;
    Some(if negative { -value } else { value })
}

/// The whole seconds of a PAX time, rounded down: `-0.5` is -1.
pub(crate) fn seconds(bytes: &[u8]) -> Option<i64> {
    let (whole, fraction) = match bytes.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&bytes[..dot], &bytes[dot + 1..]),
        None => (bytes, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = decimal(whole)?;
    let below = bytes.starts_with(b"-") && fraction.iter().any(|digit| *digit != b'0');
    value.checked_sub(i64::from(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_take_any_padding() {
        assert_eq!(field(b"0000755\0"), Some(0o755));
        assert_eq!(field(b"   755 \0"), Some(0o755));
        assert_eq!(field(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(field(b"77777777"), Some(0o77777777));
        assert_eq!(field(b"12\x0099\0\0\0"), Some(0o12));
    }

    #[test]
    fn octal_fields_refuse_other_digits() {
        assert_eq!(field(b"0000788\0"), None);
        assert_eq!(field(b"-000755\0"), None);
        assert_eq!(field(b"07 55\0\0\0"), None);
    }

    #[test]
    fn base_256_fields_have_a_sign() {
        assert_eq!(field(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(field(&[0xff; 12]), Some(-1));
        assert_eq!(
            field(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
            None
        );
    }

    #[test]
    fn times_round_down() {
        assert_eq!(seconds(b"1700000000.999"), Some(1_700_000_000));
        assert_eq!(seconds(b"-0.5"), Some(-1));
        assert_eq!(seconds(b"-2.0"), Some(-2));
        assert_eq!(seconds(b"1e9"), None);
        assert_eq!(seconds(b""), None);
        assert_eq!(seconds(b"99999999999999999999"), None);
    }
}
