//! `image`: hands over to `cloude-initramfs`, which lies beside this program or in PATH.

use std::os::unix::process::CommandExt as _;

use crate::args;
use crate::error::CliError;
use crate::paths;

/// `cloude image …`: becomes `cloude-initramfs …`; comes back only when that cannot be.
pub fn exec(args: &args::Image) -> Result<u8, CliError> {
    let Some(program) = paths::find_program("cloude-initramfs") else {
        return Err(CliError::Infrastructure(
            "cloude-initramfs is neither beside cloude nor in PATH: build it with `cargo build -p cloude-initramfs-builder`".to_owned(),
        ));
    };
    let error = std::process::Command::new(&program)
        .args(&args.arguments)
        .exec();
    Err(CliError::Infrastructure(format!(
        "cannot run {}: {error}",
        program.display()
    )))
}
