//! Reasons for which a request is refused before it enters the queue. Names in backquotes are fields of
//! [`cloude_protocol::api::ExecutionRequest`].

/// A request is refused. All variants but [`Refused::TooLarge`] are errors of the client's request (400).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("`code` is empty: it must have the program's text")]
    EmptyCode,
    #[error("unsupported language `{language}`; supported: {supported}")]
    UnknownLanguage { language: String, supported: String },
    /// `limits.code_bytes` (413).
    #[error(
        "code, files, arguments, environment and stdin have {bytes} bytes together, at most {limit} are allowed"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error("`args[{index}]` has a NUL byte, which ends an argument in Linux")]
    NulInArgument { index: usize },
    #[error(
        "`{field}` has the invalid variable `{name}`: a name must not be empty or have a `=`, and neither name nor value \
         may have a NUL byte"
    )]
    Variable { field: &'static str, name: String },
    #[error("`{name}` is in `env` and in `secrets`: a variable has one value")]
    SecretTwice { name: String },
    /// MAX_ARG_STRLEN of include/uapi/linux/binfmts.h. `field` is `args[0]`, `env.NAME` or `secrets.NAME`.
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
    FilePath { path: String, reason: String },
    #[error("`{path}` in `files` is the program's own path")]
    ProgramTwice { path: String },
    #[error("`files` has `{path}` twice")]
    FileTwice { path: String },
    #[error("`{path}` in `files` has an invalid mode {mode:#o}: at most 0o7777 is allowed")]
    FileMode { path: String, mode: u32 },
    #[error("`{parent}` cannot be both the program and the folder of `{path}` in `files`")]
    ProgramIsFolder { parent: String, path: String },
    #[error("`{parent}` in `files` cannot be both a file and the folder of `{path}`")]
    FileIsFolder { parent: String, path: String },
    #[error(
        "invalid `user` `{user}`: give `root`, or another user of the image as `user`, `uid`, `user:group` or `uid:gid`"
    )]
    User { user: String },
    #[error("this server has no network for programs (`network.enabled = false`)")]
    NoNetwork,
    #[error("`limits.vcpus` is {vcpus}, it must be 1 to 8")]
    Vcpus { vcpus: u8 },
    #[error("`limits.memory_mib` is {memory_mib}, this server allows 64 to {limit}")]
    Memory { memory_mib: u64, limit: u64 },
    /// The default of the language or of the server exceeds the memory budget.
    #[error(
        "the language's default memory of {memory_mib} MiB is more than the {limit} MiB that this server has; set \
         `limits.memory_mib`"
    )]
    DefaultMemory { memory_mib: u64, limit: u64 },
    #[error("`limits.output_bytes` is {bytes}, at most {limit} are allowed")]
    OutputBytes { bytes: u64, limit: u64 },
    /// `field` is `wall_time_ms` or `compile_time_ms`.
    #[error("`limits.{field}` is {ms}, it must be 1 to {limit}")]
    WallTime {
        field: &'static str,
        ms: u64,
        limit: u64,
    },
    /// A regular expression of the language file, which the start of clouded checks.
    #[error("the server's file of this language is invalid: {reason}")]
    LanguageFile { reason: String },
}
