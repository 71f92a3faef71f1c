//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::quantity;

/// Where a backend listens unless somebody says otherwise.
pub const DEFAULT_BACKEND: &str = "http://127.0.0.1:8080";

const EXIT_CODES: &str = "\
Exit codes of `run`: the program's own; 124 when a time limit ended it; 128 + n when signal n did;
the compiler's when that failed; 2 when the command or the request is wrong; 125 when the program
could not be run; 130 on Ctrl-C.";

/// Runs code in micro-VMs.
#[derive(Debug, Parser)]
#[command(name = "cloude", version, about = "Runs code in micro-VMs", after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program and show its output as it comes
    Run(Box<Run>),
    /// Start a program, print its id, and do not wait
    Go(Go),
    /// Show where a program stands, and its output
    Status(Status),
    /// Cancel a program that waits or runs, and kill its VM
    Cancel(Cancel),
    /// List the languages that the backend runs
    Languages(Languages),
    /// List, build and remove the templates that executions are forked from
    Template(Template),
    /// Check this machine, and say how to fix what is missing
    Doctor(Doctor),
    /// Build, list and remove images (cloude-initramfs)
    Image(Image),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub struct Backend {
    /// The backend's URL
    #[arg(long = "backend", value_name = "URL", env = "CLOUDE_BACKEND", default_value = DEFAULT_BACKEND,
          hide_env_values = true, value_hint = ValueHint::Url)]
    pub url: String,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Run {
    /// The program; `-` reads it from standard input
    #[arg(value_name = "FILE", required_unless_present = "code", conflicts_with = "code", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,

    /// The program itself
    #[arg(
        short,
        long,
        value_name = "CODE",
        requires = "language",
        allow_hyphen_values = true
    )]
    pub code: Option<String>,

    /// The language, when the file's extension does not tell it
    #[arg(short, long, value_name = "NAME")]
    pub language: Option<String>,

    /// What the program reads from standard input; `-` is our own, which is also taken when it is
    /// a pipe or a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub stdin: Option<PathBuf>,

    /// A file to put beside the program, under its own name or the one after the colon
    #[arg(short, long = "file", value_name = "PATH[:NAME]", value_hint = ValueHint::FilePath)]
    pub files: Vec<String>,

    /// An environment variable; without a value, the one from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// How long the program may run: 10, 1.5s, 500ms, 2m
    #[arg(short, long, value_name = "TIME", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,

    /// How long the compiler may run
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub compile_timeout: Option<Duration>,

    /// The VM's memory: 512, 512M, 2G
    #[arg(short, long, value_name = "SIZE", value_parser = quantity::mebibytes)]
    pub memory: Option<u64>,

    /// The VM's processors
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub vcpus: Option<u8>,

    /// How much of each output stream is kept: 1000, 64K, 10M
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub output_limit: Option<u64>,

    /// Give the program a network
    #[arg(long)]
    pub network: bool,

    /// How the VM has to come to be [default: as is quickest]
    #[arg(long, value_enum)]
    pub start: Option<Start>,

    /// Print the whole result as JSON when it is there
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub backend: Backend,

    /// The program's arguments
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// How a VM comes to be.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Start {
    /// Booted for this execution
    Cold,
    /// Forked from a template, or not run at all
    Fork,
}

#[derive(Debug, Args)]
pub struct Go {
    /// The language
    #[arg(short, long, value_name = "NAME")]
    pub language: String,
    /// The program
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    #[command(flatten)]
    pub backend: Backend,
}

#[derive(Debug, Args)]
pub struct Status {
    /// The id that `go` printed
    pub id: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub backend: Backend,
}

#[derive(Debug, Args)]
pub struct Cancel {
    /// The id that `go` printed
    pub id: String,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub backend: Backend,
}

#[derive(Debug, Args)]
pub struct Languages {
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub backend: Backend,
}

#[derive(Debug, Args)]
pub struct Template {
    #[command(subcommand)]
    pub command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// List them with sizes and ages
    Ls {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        backend: Backend,
    },
    /// Build the templates of languages, and wait until they are ready
    Build(TemplateBuild),
    /// Remove templates, from the server's disk too
    Rm(TemplateRm),
}

#[derive(Debug, Args)]
pub struct TemplateBuild {
    /// The languages
    #[arg(value_name = "LANGUAGE", required = true)]
    pub languages: Vec<String>,
    /// The VM's processors
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub vcpus: Option<u8>,
    /// The VM's memory: 512, 512M, 2G
    #[arg(short, long, value_name = "SIZE", value_parser = quantity::mebibytes)]
    pub memory: Option<u64>,
    /// For executions with a network
    #[arg(long)]
    pub network: bool,
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub backend: Backend,
}

#[derive(Debug, Args)]
pub struct TemplateRm {
    /// Their ids, or what those begin with
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub ids: Vec<String>,
    /// All that `ls` lists
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub backend: Backend,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Print the checks as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub backend: Backend,
}

#[derive(Debug, Args)]
pub struct Image {
    /// build, inspect, ls, rm or prune, and what `cloude-initramfs` takes for it
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true
    )]
    pub arguments: Vec<OsString>,
}
