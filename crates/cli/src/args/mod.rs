//! The command line, for clap.

mod jobs;
mod run;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use cloude_protocol::keys::Scope;

use crate::quantity;

pub use jobs::{Attach, Cancel, Go, Logs, Ps, ResultArgs, State, Status};
pub use run::{AtOutputLimit, Run, Start};

/// The default address of `clouded`.
const DEFAULT_BACKEND: &str = "http://127.0.0.1:8080";
/// The address of the service that a package installs, and its socket.
const SERVICE: (&str, &str) = ("unix:/run/cloude/api.sock", "/run/cloude/api.sock");

/// The backend without an option, a variable or a line in the configuration file: the installed service if its socket
/// exists.
pub fn default_backend() -> &'static str {
    match Path::new(SERVICE.1).exists() {
        true => SERVICE.0,
        false => DEFAULT_BACKEND,
    }
}

const EXIT_CODES: &str = "\
Exit codes of `run`: the program's, or the compiler's if it failed; 124 after a time limit; 128 + n
after signal n; 137 also out of memory; 2 for a wrong command line or request; 125 if the program
could not be run; 130 after Ctrl-C.";

/// Replaces `-it` of `run` by its long options: `-t` alone is `--timeout`.
pub fn expanded(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut expanded: Vec<OsString> = Vec::new();
    let mut ended = false;
    for word in words {
        ended |= word == "--";
        let before = expanded.last().and_then(|word| word.to_str());
        let is_value = matches!(before, Some("-c" | "--code" | "--compile-option"));
        let both = word == "-it" || word == "-ti";
        if both && !ended && !is_value && expanded.iter().any(|word| word == "run") {
            expanded.extend(["--interactive", "--tty"].map(OsString::from));
        } else {
            expanded.push(word);
        }
    }
    expanded
}

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
    /// List executions, the newest first
    Ps(Ps),
    /// Print the output of an execution
    Logs(Logs),
    /// Send input to a running interactive program, and print its output
    Attach(Attach),
    /// Show the status and the output of a program
    Status(Status),
    /// Wait for an execution; print its output and exit as `run` does
    Result(ResultArgs),
    /// Cancel a queued or running program and kill its VM
    Cancel(Cancel),
    /// Show how many executions, and how much time and memory, each API key has used
    Usage(Usage),
    /// List the languages of the backend, or test them
    Languages(Languages),
    /// List, build and remove the templates that executions are forked from
    Template(Template),
    /// Create, list and revoke API keys of the backend
    Key(Key),
    /// Check this machine and the backend, with a fix for each problem
    Doctor(Doctor),
    /// Build, update, list and remove images (cloude-initramfs)
    Image(Image),
    /// Show the configuration of this client, and where each value comes from
    Config(Config),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a folder
    #[command(hide = true)]
    Man { dir: PathBuf },
}

/// The backend. These options may stand before and after the command. Without them, values come from the environment, the
/// configuration file and defaults, in this order ([`crate::settings`]).
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Backend")]
pub struct Backend {
    /// The backend's address: http://HOST:PORT, https://HOST or unix:/PATH [env: CLOUDE_BACKEND] [default:
    /// unix:/run/cloude/api.sock if it exists, else http://127.0.0.1:8080]
    #[arg(long = "backend", value_name = "URL", global = true, value_hint = ValueHint::Url)]
    pub url: Option<String>,
    /// The API key. Other users can see it with `ps`; CLOUDE_API_KEY and --key-file are safer [env: CLOUDE_API_KEY]
    #[arg(long, value_name = "KEY", global = true, conflicts_with = "key_file")]
    pub token: Option<String>,
    /// A file with the API key
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub key_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities that are trusted besides the system's [env: CLOUDE_CA]
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// How long requests to a busy backend (HTTP status 429 or 503) are repeated; 0: not at all [env: CLOUDE_RETRY_FOR]
    /// [default: 60s]
    #[arg(long, value_name = "TIME", global = true, value_parser = quantity::duration_or_zero)]
    pub retry_for: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Languages {
    #[command(subcommand)]
    pub command: Option<LanguagesCommand>,
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum LanguagesCommand {
    /// Run the self-tests of languages; exits with 1 if one fails
    Test(LanguagesTest),
}

#[derive(Debug, Args)]
pub struct LanguagesTest {
    /// The languages [default: those of the backend that have an image]
    #[arg(value_name = "NAME")]
    pub languages: Vec<String>,
    /// Every language of the backend, which builds the images that are missing
    #[arg(long, conflicts_with = "languages")]
    pub all: bool,
    /// The folder of languages [default: the backend's, else that of this machine]
    #[arg(long, value_name = "DIR", env = "LANGUAGES_CONFIG_PATH", hide_env_values = true,
          value_hint = ValueHint::DirPath)]
    pub languages_dir: Option<PathBuf>,
    /// How the VMs are started [default: the fastest way available]
    #[arg(long, value_enum)]
    pub start: Option<Start>,
    /// Print the results as JSON
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
pub struct Usage {
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Config {
    /// Print the values as JSON
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words = line.split(' ').map(OsString::from);
        let expanded = expanded(words).into_iter();
        expanded.map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    #[allow(clippy::unwrap_used, reason = "a test")]
    fn it_stands_for_two_options_of_run() {
        let both = "cloude run --interactive --tty x.py";
        assert_eq!(words("cloude run -it x.py").join(" "), both);
        assert_eq!(words("cloude run -ti x.py").join(" "), both);
        for line in [
            "cloude run -i -t 3s x.py",
            "cloude run x.py -- -it",
            "cloude run -l sh -c -it",
            "cloude logs -it",
        ] {
            assert_eq!(words(line).join(" "), line);
        }
    }
}
