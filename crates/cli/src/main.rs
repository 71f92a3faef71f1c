//! `cloude`: runs code in micro-VMs, from the command line. An HTTP client of `clouded`, and a few
//! helpers that look at this machine. docs/cli.md has the exit codes.

mod args;
mod client;
mod doctor;
mod error;
mod image;
mod jobs;
mod languages;
mod paths;
mod quantity;
mod run;
mod templates;
mod terminal;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::{CommandFactory as _, Parser as _};
use error::CliError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if !matches!(error, CliError::BrokenPipe) {
                terminal::error(&error.to_string());
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Carries a command out and gives the exit code, 0 to 255.
fn dispatch(cli: Cli) -> Result<u8, CliError> {
    match cli.command {
        Command::Run(run) => on_runtime(run::run(*run)),
        Command::Go(go) => on_runtime(jobs::go(go)),
        Command::Status(status) => on_runtime(jobs::status(status)),
        Command::Cancel(cancel) => on_runtime(jobs::cancel(cancel)),
        Command::Languages(languages) => on_runtime(languages::list(languages)),
        Command::Template(template) => on_runtime(templates::template(template)),
        Command::Doctor(doctor) => on_runtime(doctor::doctor(doctor)),
        Command::Image(image) => image::exec(&image),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cloude", &mut script);
            terminal::stdout(&script)?;
            Ok(0)
        }
    }
}

/// Runs a command that talks to a backend. Ctrl-C ends the process at once, wherever the command
/// is: the closed connection tells the backend that nobody waits.
fn on_runtime(command: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CliError::Infrastructure(format!("cannot start: {error}")))?;
    runtime.spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            terminal::clear_spinner();
            terminal::note("cancelled");
            std::process::exit(i32::from(error::INTERRUPTED));
        }
    });
    runtime.block_on(command)
}
