//! `cloude-initramfs`: builds, lists and removes the images that micro-VMs boot from.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
