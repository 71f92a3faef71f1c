//! The commands that start executions without waiting, list them, and ask for one by its id.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

#[derive(Debug, Args)]
pub struct Go {
    /// The language
    #[arg(short, long, value_name = "NAME")]
    pub language: String,
    /// The program
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Ps {
    /// Only executions with this status
    #[arg(short, long, value_enum)]
    pub status: Option<State>,
    /// Only executions of this language
    #[arg(short, long, value_name = "NAME")]
    pub language: Option<String>,
    /// Only executions with this label; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,
    /// At most so many executions
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "50",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Print the ids alone
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

/// The status of an execution, as in `GET /v1/executions?status=`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum State {
    /// In the queue
    Pending,
    /// In its VM
    Running,
    /// Ended, however the program ended
    Done,
    /// Could not be run
    Error,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// The id that `run --detach` or `go` printed
    pub id: String,
    /// Print what comes until the execution ends; also after a restart of the backend
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Attach {
    /// The id that `run --detach` printed
    pub id: String,
    /// Print the output alone, and leave standard input to other clients
    #[arg(long)]
    pub no_stdin: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    /// The id that `run --detach` or `go` printed
    pub id: String,
    /// Print the status as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ResultArgs {
    /// The id that `run --detach` or `go` printed
    pub id: String,
    /// Save the artifacts below this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub artifact_dir: Option<PathBuf>,
    /// Overwrite existing files with artifacts
    #[arg(long, requires = "artifact_dir")]
    pub force: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Cancel {
    /// The id that `run --detach` or `go` printed
    pub id: String,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
