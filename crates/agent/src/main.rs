//! `cloude-agent`: PID 1 in the guest.
//!
//! There is no Rust `main`: the standard library's start-up opens /dev/null for closed standard
//! streams and aborts where it cannot. A kernel without a console starts PID 1 with all three
//! closed, in a root that has no /dev/null yet.
#![no_main]

use std::ffi::{c_char, c_int};

/// Where the C library enters.
// SAFETY: the only `main` of the program.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    cloude_agent::main()
}
