//! `cloude-initramfs`: builds the images that micro-VMs boot from, and looks after them.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
