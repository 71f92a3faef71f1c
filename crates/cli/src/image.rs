//! `image`: executes `cloude-initramfs`, from the folder of this program or from PATH.

use std::os::unix::process::CommandExt as _;

use crate::args;
use crate::error::{CliError, LocalError};
use crate::paths;

/// `cloude image ARGS` replaces this process with `cloude-initramfs ARGS`. Returns only on an error.
pub fn exec(args: &args::Image) -> Result<u8, CliError> {
    let Some(program) = paths::find_program("cloude-initramfs") else {
        return Err(LocalError::NoInitramfsBuilder.into());
    };
    let error = std::process::Command::new(&program)
        .args(&args.arguments)
        .exec();
    Err(LocalError::Execute { program, error }.into())
}
