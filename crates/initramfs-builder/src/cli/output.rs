//! Standard output, whose reader may leave.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

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
