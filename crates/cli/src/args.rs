//! The command line, for clap.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use cloude_protocol::keys::Scope;

use crate::quantity;

/// The default address of `clouded`.
pub const DEFAULT_BACKEND: &str = "http://127.0.0.1:8080";

const EXIT_CODES: &str = "\
Exit codes of `run`: the program's, or the compiler's if it failed; 124 after a time limit; 128 + n
after signal n; 137 also out of memory; 2 for a wrong command line or request; 125 if the program
could not be run; 130 after Ctrl-C.";

/// Runs code in micro-VMs.
#[derive(Debug, Parser)]
#[command(name = "cloude", version, about = "Runs code in micro-VMs", after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub backend: Backend,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program and show its output as it comes
    Run(Box<Run>),
    /// Start a program, print its id, and do not wait
    Go(Go),
    /// Show the status and the output of a program
    Status(Status),
    /// Cancel a queued or running program and kill its VM
    Cancel(Cancel),
    /// List the languages of the backend
    Languages(Languages),
    /// List, build and remove the templates that executions are forked from
    Template(Template),
    /// Create, list and revoke API keys of the backend
    Key(Key),
    /// Check this machine and the backend, with a fix for each problem
    Doctor(Doctor),
    /// Build, update, list and remove images (cloude-initramfs)
    Image(Image),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The backend. These options may stand before and after the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Backend")]
pub struct Backend {
    /// The backend's address: http://HOST:PORT, https://HOST or unix:/PATH
    #[arg(long = "backend", value_name = "URL", env = "CLOUDE_BACKEND", default_value = DEFAULT_BACKEND, global = true,
          hide_env_values = true, value_hint = ValueHint::Url)]
    pub url: String,
    /// A file with the API key [default: the key in the variable CLOUDE_API_KEY]
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub key_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities that are trusted besides the system's
    #[arg(long, value_name = "FILE", env = "CLOUDE_CA", global = true, hide_env_values = true,
          value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
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

    /// The language [default: by the file's extension]
    #[arg(short, long, value_name = "NAME")]
    pub language: Option<String>,

    /// The program's standard input; `-` is that of `cloude` [default: that of `cloude`, unless it
    /// is a terminal]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub stdin: Option<PathBuf>,

    /// A file for the program's work directory, under its own name or NAME; may be repeated
    #[arg(short, long = "file", value_name = "PATH[:NAME]", value_hint = ValueHint::FilePath)]
    pub files: Vec<String>,

    /// An environment variable; without a value, that of `cloude`; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// A secret environment variable, with the value that `cloude` has; it is neither stored nor
    /// logged; may be repeated
    #[arg(long = "secret", value_name = "NAME")]
    pub secrets: Vec<String>,

    /// Time limit of the program: 10, 1.5s, 500ms, 2m
    #[arg(short, long, value_name = "TIME", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,

    /// Time limit of the compiler
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub compile_timeout: Option<Duration>,

    /// The VM's memory: 512, 512M, 2G
    #[arg(short, long, value_name = "SIZE", value_parser = quantity::mebibytes)]
    pub memory: Option<u64>,

    /// The VM's processors
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub vcpus: Option<u8>,

    /// Bytes of each output stream to keep: 1000, 64K, 10M
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub output_limit: Option<u64>,

    /// Give the program a network
    #[arg(long)]
    pub network: bool,

    /// Who the program runs as: root, or another user of the image [default: not root]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// Allow every system call: user namespaces, io_uring and others that are refused by default
    #[arg(long)]
    pub unconfined: bool,

    /// How the VM is started [default: the fastest way available]
    #[arg(long, value_enum)]
    pub start: Option<Start>,

    /// Print the result as JSON when the program has ended
    #[arg(long)]
    pub json: bool,

    /// The program's arguments
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// How a VM is started.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Start {
    /// Boot it for this execution
    Cold,
    /// Fork it from a template, or fail
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
}

#[derive(Debug, Args)]
pub struct Status {
    /// The id that `go` printed
    pub id: String,
    /// Print the status as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Cancel {
    /// The id that `go` printed
    pub id: String,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Languages {
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Template {
    #[command(subcommand)]
    pub command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// List the templates with sizes and ages
    Ls {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Build templates of languages and wait until they are ready
    Build(TemplateBuild),
    /// Remove templates from memory and from the server's disk
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
    /// Build it for executions with a network
    #[arg(long)]
    pub network: bool,
    /// Print the templates as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct TemplateRm {
    /// Ids, or prefixes of ids
    #[arg(
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub ids: Vec<String>,
    /// Remove every template that `ls` lists
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Key {
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key and print it; the backend cannot show it again
    Create(KeyCreate),
    /// List the keys, without their secrets
    Ls {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke keys, and end their running requests
    Revoke {
        /// Ids: the second parts of the keys
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct KeyCreate {
    /// A name for people
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// Rights, separated by commas: run, read, admin
    #[arg(
        long = "scope",
        value_name = "SCOPES",
        value_delimiter = ',',
        default_value = "run,read"
    )]
    pub scopes: Vec<Scope>,
    /// Time until it expires: 30d, 12h, 1year [default: never]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub expires: Option<Duration>,
    /// Print the key and its properties as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Print the checks as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Image {
    /// A command of `cloude-initramfs` (build, update, inspect, sbom, ls, rm, prune) and its arguments
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true
    )]
    pub arguments: Vec<OsString>,
}
