//! Mistakes on the command line. Nothing ran; the message says what to type instead.

use std::io;
use std::path::PathBuf;

/// A mistake on the command line. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// `--backend` or `CLOUDE_BACKEND` does not parse.
    #[error(
        "invalid backend URL {url:?} (--backend or CLOUDE_BACKEND): {reason}; expected http://HOST[:PORT] or unix:/PATH"
    )]
    BackendUrl { url: String, reason: String },
    /// A scheme that the client does not implement.
    #[error(
        "unsupported scheme in backend URL {url:?} (--backend or CLOUDE_BACKEND): use http, https or unix"
    )]
    BackendScheme { url: String },
    /// The program, `--stdin` or `--file`.
    #[error("cannot read {}: {error}", path.display())]
    ReadFile { path: PathBuf, error: io::Error },
    /// Standard input failed while it was read to its end.
    #[error("cannot read standard input: {error}")]
    ReadStdin { error: io::Error },
    /// The API takes source code as JSON text.
    #[error(
        "{name} is not UTF-8 at byte {offset}: source code must be text; pass binary files with --file"
    )]
    NotUtf8 { name: String, offset: usize },
    /// `cloude run - --stdin -`.
    #[error(
        "standard input cannot be both the program and the input of the program: give one of them as a file"
    )]
    StdinTwice,
    /// Neither FILE nor `--code`.
    #[error("no program to run: give a FILE, or source code with --code")]
    NoProgram,
    /// Source code that comes without a file name.
    #[error("source code without a file name needs a language: name it with --language")]
    NoLanguage,
    /// The file's name has no extension.
    #[error("{} has no file extension: name its language with --language", path.display())]
    NoExtension { path: PathBuf },
    /// No language of the backend has the file's extension.
    #[error(
        "no language of the backend has the file extension .{extension}: name one with --language ({})",
        languages.join(", ")
    )]
    UnknownExtension {
        extension: String,
        languages: Vec<String>,
    },
    /// `--file /`, or a name that is not UTF-8.
    #[error("--file {spec:?} does not end in a file name: give PATH or PATH:NAME")]
    FileWithoutName { spec: String },
    /// `--env =x`, or an empty one.
    #[error("--env {spec:?} has no variable name: give NAME=VALUE, or NAME of a variable set here")]
    EnvWithoutName { spec: String },
    /// `--env NAME` of a variable that this process does not have.
    #[error("--env {name}: no such variable in the environment, or not UTF-8: give {name}=VALUE")]
    EnvUnset { name: String },
    /// `--secret NAME=VALUE`.
    #[error(
        "--secret {name} takes no value, because `ps` would show it: export {name}, and give its name alone"
    )]
    SecretValue { name: String },
    /// `--secret NAME` of a variable that this process does not have.
    #[error("--secret {name}: no such variable in the environment, or not UTF-8: export it")]
    SecretUnset { name: String },
    /// Ids become a part of the URL, so that they are checked first.
    #[error("invalid execution id {id:?}: give the id that `cloude go` printed")]
    ExecutionId { id: String },
    /// Likewise.
    #[error(
        "invalid key id {id:?}: give the hexadecimal id that `cloude key ls` shows, not the key"
    )]
    KeyId { id: String },
    /// `--key-file` or `CLOUDE_API_KEY`. The message does not repeat what may be a secret.
    #[error("{source_name} does not hold an API key: expected one line, cloude_ID_SECRET")]
    ApiKey { source_name: String },
    /// `--ca` or `CLOUDE_CA`.
    #[error("{} holds no certificate in PEM format (--ca or CLOUDE_CA)", path.display())]
    NoCertificate { path: PathBuf },
    /// `template rm` with a prefix of several ids.
    #[error("several template ids start with {prefix:?}: give more digits of the id")]
    TemplateAmbiguous { prefix: String },
    /// `template rm` with a prefix of no id.
    #[error(
        "no template id starts with {prefix:?}: `cloude template ls` lists the templates; \
         one that is stored on the server's disk alone needs its whole id"
    )]
    TemplateUnknown { prefix: String },
}

/// A duration or size that does not parse. clap prints it behind the option's name and exits with 2.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No number before the unit.
    #[error("expected a number, optionally with a unit")]
    NotANumber,
    /// Not one of the units of its kind.
    #[error("unknown unit {unit:?}: use {known}")]
    Unit { unit: String, known: &'static str },
    /// Below a millisecond, or more than 31 years.
    #[error("out of range: give at least 1ms and at most 1e9 seconds")]
    Duration,
    /// Less than one unit, or more than a 64-bit float counts exactly.
    #[error("out of range: give at least 1 {unit}")]
    Size { unit: &'static str },
}
