//! The commands that start executions without waiting, and ask for one by its id.

use std::path::PathBuf;

use clap::{Args, ValueHint};

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
pub struct Status {
    /// The id that `run --detach` or `go` printed
    pub id: String,
    /// Print the status as JSON
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
