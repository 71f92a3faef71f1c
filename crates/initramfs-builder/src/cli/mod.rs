//! The command line of `cloude-initramfs`.

/// Prints a line to standard output.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::line(format_args!($($text)*)) };
}

mod args;
mod build;
mod failure;
mod inspect;
mod jsonl;
mod language;
mod manage;
mod output;
mod paths;
mod progress;
mod sbom;
mod text;
mod update;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{CommandFactory, Parser};
use cloude_initramfs_builder::pipeline::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use args::{Cli, Command};
use failure::Failure;

/// Runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cancel_on_signals() {
        Ok(cancel) => run(cli, &cancel),
        Err(error) => Err(Failure::new(format!(
            "cannot install signal handlers: {error}"
        ))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cloude-initramfs: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli, cancel: &Cancel) -> Result<(), Failure> {
    let paths = paths::Paths::new(cli.cache_dir, cli.images_dir);
    match cli.command {
        Command::Build(args) => build::run(*args, &paths, cancel),
        Command::Update(args) => update::run(&args, &paths, cancel),
        Command::Inspect(args) => inspect::run(&args, &paths),
        Command::Sbom(args) => sbom::run(&args, &paths),
        Command::Ls(args) => manage::ls(&args, &paths),
        Command::Rm(args) => manage::rm(&args, &paths),
        Command::Prune(args) => manage::prune(&args, &paths),
        Command::Man { dir } => clap_mangen::generate_to(Cli::command(), &dir).map_err(|error| {
            Failure::new(format!(
                "cannot write manual pages to {}: {error}",
                dir.display()
            ))
        }),
    }
}

/// The first signal cancels the build; the second one exits with 130.
fn cancel_on_signals() -> std::io::Result<Cancel> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(Cancel::from_flag(flag))
}
