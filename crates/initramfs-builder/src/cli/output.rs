//! Standard output.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

use serde::Serialize;

use super::failure::Failure;

/// 128 + SIGPIPE.
const BROKEN_PIPE: i32 = 141;

/// Prints one line. After EPIPE the process exits with 141, like a program that SIGPIPE terminates.
pub fn line(text: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        Err(error) => eprintln!("cloude-initramfs: cannot write to standard output: {error}"),
        Ok(()) => {}
    }
}

/// Writes a value as indented JSON.
pub fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    say!(
        "{}",
        serde_json::to_string_pretty(value).map_err(Failure::new)?
    );
    Ok(())
}
