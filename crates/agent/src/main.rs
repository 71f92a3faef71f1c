//! `cloude-agent`: PID 1 in the guest.
//!
//! It has a C `main`: the start-up code of the Rust standard library opens /dev/null for closed standard
//! streams and aborts if that fails. A kernel without a console starts PID 1 with all three closed, in a root
//! file system without /dev/null.
#![no_main]

use std::ffi::{c_char, c_int};

/// Called by the C library.
// SAFETY: the only `main` of the program.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    cloude_agent::main()
}
