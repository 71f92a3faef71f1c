//! `cloude`: runs code in micro-VMs from the command line. An HTTP client of `clouded` with two local
//! helpers, `doctor` and `image`. docs/cli.md lists the exit codes.

mod args;
mod artifacts;
mod attach;
mod client;
mod config;
mod connect;
mod doctor;
mod error;
mod events;
mod exit;
mod id;
mod image;
mod jobs;
mod keys;
mod languages;
mod logs;
mod outcome;
mod paths;
mod ps;
mod quantity;
mod raw_mode;
mod result;
mod run;
mod self_tests;
mod session;
mod settings;
mod table;
mod templates;
mod terminal;
mod usage;
mod websocket;

use std::process::ExitCode;

use args::{Cli, Command, LanguagesCommand};
use clap::{CommandFactory as _, Parser as _};
use error::{CliError, Ending, LocalError};

fn main() -> ExitCode {
    let cli = Cli::parse_from(args::expanded(std::env::args_os()));
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
    let backend = &cli.backend;
    match cli.command {
        Command::Run(run) if run.detach => on_runtime(run::run(*run, backend)),
        // The session has its own treatment of signals.
        Command::Run(run) if run.interactive => runtime()?.block_on(run::run(*run, backend)),
        Command::Attach(attach) => runtime()?.block_on(attach::attach(attach, backend)),
        // Ctrl-C closes the connection, and with that the backend cancels the execution.
        Command::Run(run) => until_interrupted(Some(Ending::Cancelled), run::run(*run, backend)),
        Command::Go(go) => on_runtime(jobs::go(go, backend)),
        Command::Ps(ps) => on_runtime(ps::list(ps, backend)),
        Command::Logs(logs) => on_runtime(logs::logs(logs, backend)),
        Command::Result(result) => on_runtime(result::result(result, backend)),
        Command::Usage(usage) => on_runtime(usage::list(usage, backend)),
        Command::Config(config) => config::show(&config, backend),
        Command::Status(status) => on_runtime(jobs::status(status, backend)),
        Command::Cancel(cancel) => on_runtime(jobs::cancel(cancel, backend)),
        Command::Languages(args::Languages {
            command: Some(LanguagesCommand::Test(test)),
            ..
        }) => on_runtime(self_tests::test(test, backend)),
        Command::Languages(languages) => on_runtime(languages::list(languages, backend)),
        Command::Template(template) => on_runtime(templates::template(template, backend)),
        Command::Key(key) => on_runtime(keys::key(key, backend)),
        Command::Doctor(doctor) => on_runtime(doctor::doctor(doctor, backend)),
        Command::Image(image) => image::exec(&image),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cloude", &mut script);
            terminal::stdout(&script)?;
            Ok(0)
        }
        Command::Man { dir } => {
            clap_mangen::generate_to(Cli::command(), &dir)
                .map_err(|error| LocalError::Man { dir, error })?;
            Ok(0)
        }
    }
}

/// Runs a command that sends requests to a backend. Ctrl-C exits at once, and executions go on.
fn on_runtime(command: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    until_interrupted(None, command)
}

fn runtime() -> Result<tokio::runtime::Runtime, LocalError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| LocalError::Runtime { error })
}

/// Likewise, and Ctrl-C prints a note.
fn until_interrupted(
    note: Option<Ending>,
    command: impl Future<Output = Result<u8, CliError>>,
) -> Result<u8, CliError> {
    let runtime = runtime()?;
    // In a task of its own: the command may be in a write to standard output that blocks.
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            terminal::clear_spinner();
            artifacts::remove_partial();
            if let Some(note) = note {
                terminal::note(&note.to_string());
            }
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
    });
    runtime.block_on(command)
}
