//! Exit codes of `cloude` itself (docs/cli.md); every other code is the program's.

/// The command line or the request is wrong. Nothing ran.
pub const USAGE: u8 = 2;
/// A time limit ended the program, as with timeout(1).
pub const TIMEOUT: u8 = 124;
/// The program did not run to its end for a reason outside of it, as with `docker run`.
pub const INFRASTRUCTURE: u8 = 125;
/// Added to the number of the signal that ended the program, as shells do.
pub const SIGNAL_BASE: u8 = 128;
/// Ctrl-C: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;
/// The kernel's out-of-memory killer sends SIGKILL: 128 + SIGKILL.
pub const OUT_OF_MEMORY: u8 = 137;
/// The reader of standard output is gone: 128 + SIGPIPE.
pub const BROKEN_PIPE: u8 = 141;
