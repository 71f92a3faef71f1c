//! The arguments of `run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use crate::quantity;

#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Run {
    /// The program; `-` reads it from standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["code", "entrypoint"],
          conflicts_with_all = ["code", "entrypoint"], value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,

    /// The program itself
    #[arg(
        short,
        long,
        value_name = "CODE",
        requires = "language",
        allow_hyphen_values = true,
        conflicts_with = "entrypoint"
    )]
    pub code: Option<String>,

    /// The program is this file of those that --file sends
    #[arg(long, value_name = "PATH", requires = "files")]
    pub entrypoint: Option<String>,

    /// The language, and the version that it must have: python, python@3.13 [default: by the file's extension]
    #[arg(short, long, value_name = "NAME[@VERSION]")]
    pub language: Option<String>,

    /// The version that the language must have, where the language follows from the file's extension
    #[arg(long, value_name = "VERSION", alias = "version-of-language")]
    pub language_version: Option<String>,

    /// An option of the compiler; may be repeated
    #[arg(
        long = "compile-option",
        value_name = "OPTION",
        allow_hyphen_values = true
    )]
    pub compile_options: Vec<String>,

    /// The program's standard input; `-` is that of `cloude` [default: that of `cloude`, unless it
    /// is a terminal]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub stdin: Option<PathBuf>,

    /// Send standard input while the program runs; with --tty as -it
    #[arg(short, long, conflicts_with_all = ["stdin", "json"])]
    pub interactive: bool,

    /// Give the program a terminal, as large as this one
    #[arg(long, requires = "interactive")]
    pub tty: bool,

    /// A file or a folder for the program's work directory, under its own name or PATH (`.`: the work directory itself);
    /// may be repeated
    #[arg(short, long = "file", value_name = "SRC[:PATH]", value_hint = ValueHint::AnyPath)]
    pub files: Vec<String>,

    /// An environment variable; without a value, that of `cloude`; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// A secret environment variable, which is neither stored nor logged; without a value, that of `cloude`, which other
    /// users cannot see with `ps`; may be repeated
    #[arg(long = "secret", value_name = "NAME[=VALUE]")]
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

    /// Any limit: wall_time, cpu_time, memory, vcpus, output, artifacts, disk, processes, open_files, file_size, stack;
    /// those of the compiler as compile.wall_time=20s; may be repeated
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    pub limits: Vec<String>,

    /// Beyond the output limit, let the program go on without the middle of its output, or kill it
    #[arg(long, value_enum)]
    pub on_output_limit: Option<AtOutputLimit>,

    /// Give the program a network
    #[arg(long)]
    pub network: bool,

    /// Who the program runs as: root, or another user of the image [default: not root]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// Allow every system call: user namespaces, io_uring and others that are refused by default
    #[arg(long)]
    pub unconfined: bool,

    /// Save the files of the program's work directory that match; `**` matches any number of folders; may be repeated
    #[arg(short, long = "artifact", value_name = "GLOB")]
    pub artifacts: Vec<String>,

    /// The folder below which artifacts are saved
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub artifact_dir: PathBuf,

    /// Overwrite existing files with artifacts
    #[arg(long)]
    pub force: bool,

    /// A label for `cloude ps`; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,

    /// How the VM is started [default: the fastest way available]
    #[arg(long, value_enum)]
    pub start: Option<Start>,

    /// Print the execution's id and do not wait; it survives restarts of the backend
    #[arg(short, long)]
    pub detach: bool,

    /// A URL to which the backend posts the result
    #[arg(long, value_name = "URL", requires = "detach", value_hint = ValueHint::Url)]
    pub callback: Option<String>,

    /// Requests with the same key start one execution [default: a random one, for the retries of this command]
    #[arg(long, value_name = "KEY", requires = "detach")]
    pub idempotency_key: Option<String>,

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

/// The treatment of a program that writes more than the output limit.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AtOutputLimit {
    /// It goes on; the middle of its output is dropped
    Continue,
    /// It is killed
    Kill,
}
