//! Reasons for which a request is refused before it enters the queue. Names in backquotes are fields of
//! [`cloude_protocol::api::ExecutionRequest`].

/// A request is refused. All variants but [`Refused::TooLarge`] and [`Refused::LanguageFile`] are errors of the client's
/// request (400).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error(
        "`code` is empty: it must have the program's text, or `entrypoint` the path of a program in `files`"
    )]
    EmptyCode,
    #[error("`code` and `entrypoint` both name a program: send one of them")]
    TwoPrograms,
    #[error("`entrypoint` is `{path}`, which no file in `files` has as its path")]
    NoEntrypoint { path: String },
    #[error("unsupported language `{language}`; supported: {supported}")]
    UnknownLanguage { language: String, supported: String },
    /// `found` is what the server has: `Python 3.13.5`.
    #[error("`version` is `{wanted}`, and this server has {found}")]
    Version { wanted: String, found: String },
    #[error(
        "`compile_options` is for languages with a compiler, and `{language}` is run without one"
    )]
    NoCompiler { language: String },
    /// `limits.code_bytes` (413).
    #[error(
        "code, files, arguments, environment and stdin have {bytes} bytes together, at most {limit} are allowed"
    )]
    TooLarge { bytes: usize, limit: usize },
    /// `field` is `args[0]` or `compile_options[0]`.
    #[error("`{field}` has a NUL byte, which ends an argument in Linux")]
    NulInArgument { field: String },
    #[error(
        "`{field}` has the invalid variable `{name}`: a name must not be empty or have a `=`, and neither name nor value \
         may have a NUL byte"
    )]
    Variable { field: &'static str, name: String },
    #[error("`{name}` is in `env` and in `secrets`: a variable has one value")]
    SecretTwice { name: String },
    /// MAX_ARG_STRLEN of include/uapi/linux/binfmts.h. `field` is `args[0]`, `compile_options[0]`, `env.NAME` or
    /// `secrets.NAME`.
    #[error(
        "`{field}` has {bytes} bytes, at most {limit} are allowed: put long texts into `stdin` or `files`"
    )]
    LongText {
        field: String,
        bytes: usize,
        limit: usize,
    },
    #[error(
        "`args` and `env` take {bytes} bytes together (9 bytes more for each argument and variable), at most {limit} \
         are allowed: put long texts into `stdin` or `files`"
    )]
    LongTexts { bytes: usize, limit: usize },
    #[error("`files` has {count} files, at most {limit} are allowed")]
    TooManyFiles { count: usize, limit: usize },
    /// The path comes from the code, as the name of a public Java class.
    #[error("invalid path `{path}` of the program: {reason}")]
    ProgramPath { path: String, reason: String },
    #[error("invalid path `{path}` in `files`: {reason}")]
    FilePath {
        index: usize,
        path: String,
        reason: String,
    },
    #[error("`{path}` in `files` is the program's own path")]
    ProgramTwice { path: String },
    #[error("`files` has `{path}` twice")]
    FileTwice { index: usize, path: String },
    #[error("`{path}` in `files` has an invalid mode {mode:#o}: at most 0o7777 is allowed")]
    FileMode {
        index: usize,
        path: String,
        mode: u32,
    },
    #[error("`{parent}` cannot be both the program and the folder of `{path}` in `files`")]
    ProgramIsFolder { parent: String, path: String },
    #[error("`{parent}` in `files` cannot be both a file and the folder of `{path}`")]
    FileIsFolder { parent: String, path: String },
    #[error(
        "invalid `user` `{user}`: give `root`, or another user of the image as `user`, `uid`, `user:group` or `uid:gid`"
    )]
    User { user: String },
    #[error("`labels` has {count} labels, at most {limit} are allowed")]
    TooManyLabels { count: usize, limit: usize },
    #[error(
        "invalid label `{name}`: a name is 1 to 63 of a-z, A-Z, 0-9, `.`, `_`, `-` and `/`, and a value at most 255 bytes \
         without control characters"
    )]
    Label { name: String },
    #[error("`artifacts` has {count} patterns, at most {limit} are allowed")]
    TooManyPatterns { count: usize, limit: usize },
    #[error("invalid pattern `{pattern}` in `artifacts`: {reason}")]
    Pattern {
        index: usize,
        pattern: String,
        reason: String,
    },
    #[error(
        "`callback_url` is for executions that outlive their request: send the header `Prefer: respond-async`"
    )]
    NotDurable,
    #[error(
        "`interactive.terminal` has {columns} columns and {rows} rows, it must have 1 to 1000 of each"
    )]
    TerminalSize { columns: u16, rows: u16 },
    #[error("`interactive` is not for batches, whose programs have one input each")]
    InteractiveBatch,
    #[error(
        "`interactive` is for clients that get the id while the program runs: send `Prefer: respond-async`, or an `Accept` \
         for a stream of events"
    )]
    NotAttachable,
    #[error("`inputs` has {count} inputs, 1 to {limit} are allowed")]
    Inputs { count: usize, limit: usize },
    #[error("this server delivers no callbacks (`callbacks.secret` is not set)")]
    NoCallbacks,
    #[error("invalid `callback_url` `{url}`: {reason}")]
    CallbackUrl { url: String, reason: &'static str },
    #[error("this server has no network for programs (`network.enabled = false`)")]
    NoNetwork,
    #[error("`limits.vcpus` is {vcpus}, it must be 1 to 8")]
    Vcpus { vcpus: u8 },
    /// The default of the language or of the server exceeds the memory budget.
    #[error(
        "the language's default memory of {memory_mib} MiB is more than the {limit} MiB that this server has; set \
         `limits.memory_bytes`"
    )]
    DefaultMemory { memory_mib: u64, limit: u64 },
    /// `field` is a path below `limits`: `memory_bytes`, `compile.wall_time_ms`.
    #[error("`limits.{field}` is {value}, this server allows {least} to {limit}")]
    Limit {
        field: &'static str,
        value: u64,
        least: u64,
        limit: u64,
    },
    /// A regular expression of the language file, which the start of clouded checks.
    #[error("the server's file of this language is invalid: {reason}")]
    LanguageFile { reason: String },
}

impl Refused {
    /// The field of the request that is wrong; none if the request as a whole is, or the server.
    pub fn field(&self) -> Option<String> {
        let field = match self {
            Refused::EmptyCode => "code",
            Refused::TwoPrograms | Refused::NoEntrypoint { .. } => "entrypoint",
            Refused::UnknownLanguage { .. } => "language",
            Refused::Version { .. } => "version",
            Refused::NoCompiler { .. } => "compile_options",
            Refused::NulInArgument { field } | Refused::LongText { field, .. } => field,
            Refused::Variable { field, name } => return Some(format!("{field}.{name}")),
            Refused::SecretTwice { name } => return Some(format!("secrets.{name}")),
            Refused::LongTexts { .. } => "args",
            Refused::ProgramPath { .. } => "code",
            Refused::FilePath { index, .. } | Refused::FileTwice { index, .. } => {
                return Some(format!("files[{index}].path"));
            }
            Refused::FileMode { index, .. } => return Some(format!("files[{index}].mode")),
            Refused::TooManyFiles { .. }
            | Refused::ProgramTwice { .. }
            | Refused::ProgramIsFolder { .. }
            | Refused::FileIsFolder { .. } => "files",
            Refused::User { .. } => "user",
            Refused::TooManyLabels { .. } => "labels",
            Refused::Label { name } => return Some(format!("labels.{name}")),
            Refused::TooManyPatterns { .. } => "artifacts",
            Refused::Pattern { index, .. } => return Some(format!("artifacts[{index}]")),
            Refused::NotDurable | Refused::NoCallbacks | Refused::CallbackUrl { .. } => {
                "callback_url"
            }
            Refused::TerminalSize { .. } => "interactive.terminal",
            Refused::InteractiveBatch | Refused::NotAttachable => "interactive",
            Refused::Inputs { .. } => "inputs",
            Refused::NoNetwork => "network",
            Refused::Vcpus { .. } => "limits.vcpus",
            Refused::DefaultMemory { .. } => "limits.memory_bytes",
            Refused::Limit { field, .. } => return Some(format!("limits.{field}")),
            Refused::TooLarge { .. } | Refused::LanguageFile { .. } => return None,
        };
        Some(field.to_owned())
    }
}

/// `Ok` if a condition holds.
pub fn ensure(ok: bool, refused: impl FnOnce() -> Refused) -> Result<(), Refused> {
    if ok { Ok(()) } else { Err(refused()) }
}
