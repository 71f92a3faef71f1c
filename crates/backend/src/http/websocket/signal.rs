//! Names of signals.

use nix::sys::signal::Signal;

/// The number of a signal of signal(7): `INT` or `SIGINT`.
pub fn number(name: &str) -> Option<i32> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    let signal = format!("SIG{short}").parse::<Signal>().ok()?;
    Some(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_its_name_with_and_without_sig() {
        assert_eq!(number("INT"), Some(2));
        assert_eq!(number("SIGKILL"), Some(9));
        for name in ["", "SIG", "int", "SIGSIGINT", "NOPE", "2"] {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
