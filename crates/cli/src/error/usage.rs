//! Mistakes on the command line. Nothing ran; the message says what to type instead.

use std::io;
use std::path::PathBuf;

/// A mistake on the command line. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The backend's URL does not parse, or has a scheme that the client does not implement.
    #[error(
        "invalid backend URL {url:?} ({origin}): {reason}; expected http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH"
    )]
    BackendUrl {
        url: String,
        origin: String,
        reason: String,
    },
    /// The configuration file is not TOML, or has an unknown key.
    #[error("{}, line {line}: {reason}", path.display())]
    ConfigFile {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    /// An environment variable that is not UTF-8.
    #[error("the variable {name} is not UTF-8")]
    Variable { name: &'static str },
    /// `retry_for` of the configuration file or the environment.
    #[error("invalid time {text:?} for retries ({origin}): {error}")]
    RetryFor {
        text: String,
        origin: String,
        error: QuantityError,
    },
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
    /// `--tty` where standard input is a pipe or a file.
    #[error(
        "--tty needs a terminal as standard input: leave it out, --interactive alone is for pipes and files"
    )]
    NotATerminal,
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
    #[error("--file {spec:?} does not end in a file name: give SRC:PATH")]
    FileWithoutName { spec: String },
    /// A name below a directory that is not UTF-8. The API's paths are text.
    #[error("{} is not UTF-8: rename it, or leave it out of --file", path.display())]
    NameNotUtf8 { path: PathBuf },
    /// A symbolic link, a socket, a FIFO or a device below a directory.
    #[error("{} is {kind}: --file sends regular files alone; give the file that is meant with a --file of its own", path.display())]
    NotRegular { path: PathBuf, kind: &'static str },
    /// Too many files, or too large ones.
    #[error("--file: more than {limit}: leave some out, or send them as one archive")]
    TooMuch { limit: &'static str },
    /// `--env =x`, or an empty one.
    #[error("--env {spec:?} has no variable name: give NAME=VALUE, or NAME of a variable set here")]
    EnvWithoutName { spec: String },
    /// `--env NAME` of a variable that this process does not have.
    #[error("--env {name}: no such variable in the environment, or not UTF-8: give {name}=VALUE")]
    EnvUnset { name: String },
    /// `--secret NAME` of a variable that this process does not have.
    #[error(
        "--secret {name}: no such variable in the environment, or not UTF-8: export it, or give {name}=VALUE"
    )]
    SecretUnset { name: String },
    /// `--label x`.
    #[error("--label {spec:?} is not NAME=VALUE")]
    Label { spec: String },
    /// `--limit` without a known name and a value.
    #[error("--limit {spec:?}: {reason}")]
    Limit { spec: String, reason: String },
    /// `--timeout 1s --limit wall_time=2s`.
    #[error("the limit {name} is given twice: leave one out")]
    LimitTwice { name: String },
    /// `--language python@3.13 --language-version 3.12`, or `python@`.
    #[error(
        "--language {spec:?}: give the version once and not empty, as in --language python@3.13"
    )]
    LanguageVersion { spec: String },
    /// RFC 9110 allows visible ASCII characters in a header.
    #[error("--idempotency-key: give 1 to 255 visible ASCII characters")]
    IdempotencyKey,
    /// Ids become a part of the URL, so that they are checked first.
    #[error(
        "invalid execution id {id:?}: give the id that `cloude run --detach` or `cloude ps` printed"
    )]
    ExecutionId { id: String },
    /// Likewise.
    #[error(
        "invalid key id {id:?}: give the hexadecimal id that `cloude key ls` shows, not the key"
    )]
    KeyId { id: String },
    /// `--token`, `--key-file` or `CLOUDE_API_KEY`. The message does not repeat what may be a secret.
    #[error("{source_name} does not hold an API key: expected one line, cloude_ID_SECRET")]
    ApiKey { source_name: String },
    /// `--ca` or `CLOUDE_CA`.
    #[error("{} holds no certificate in PEM format (--ca or CLOUDE_CA)", path.display())]
    NoCertificate { path: PathBuf },
    /// `languages test` of a name that the backend does not know.
    #[error("the backend has no language {name:?}: name one of {}", languages.join(", "))]
    UnknownLanguage {
        name: String,
        languages: Vec<String>,
    },
    /// `languages test` without a name.
    #[error(
        "no language of the backend has an image: name the languages to build and test, or give --all"
    )]
    NoLanguageReady,
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
    /// Not a whole number, or too large a one.
    #[error("expected a whole number")]
    Count,
    /// Less than one unit, or more than a 64-bit float counts exactly.
    #[error("out of range: give at least 1 {unit}")]
    Size { unit: &'static str },
}
