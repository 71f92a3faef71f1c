//! `cloude`: runs code in micro-VMs from the command line. An HTTP client of `clouded` with two local
//! helpers, `doctor` and `image`. docs/cli.md lists the exit codes.

mod args;
mod client;
mod doctor;
mod error;
mod exit;
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
use error::{CliError, Ending, LocalError};

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

/// Runs a command. Returns the exit code, 0 to 255.
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

/// Runs a command that sends requests to a backend. Ctrl-C exits at once: the backend cancels the
/// execution when its connection closes.
fn on_runtime(command: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| LocalError::Runtime { error })?;
    runtime.spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            terminal::clear_spinner();
            terminal::note(&Ending::Cancelled.to_string());
            std::process::exit(i32::from(Ending::Cancelled.exit_code()));
        }
    });
    runtime.block_on(command)
}
