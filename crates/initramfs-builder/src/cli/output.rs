//! Standard output, whose reader may leave.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

use serde::Serialize;

use super::failure::Failure;

/// What a shell says of a program that SIGPIPE ended.
const BROKEN_PIPE: i32 = 141;

/// Writes one line. When nobody reads any more the process ends, as other tools do in a pipe.
pub fn line(text: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(BROKEN_PIPE),
        Err(error) => eprintln!("cloude-initramfs: writing to standard output: {error}"),
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
