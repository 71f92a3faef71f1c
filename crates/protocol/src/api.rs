//! The backend's HTTP API.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Data;
use crate::agent::{Cause, File, StageName, StageResult, Stream};

/// `POST /run`: start an execution and answer at once.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct RunRequest {
    /// A language's name or alias, in any case.
    pub language: String,
    /// The program.
    pub code: String,
}

/// The answer to `POST /run`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct RunResponse {
    /// For `GET /status/{id}`.
    pub id: String,
}

/// Where an execution stands.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, not yet started.
    Pending,
    /// In its VM.
    Running,
    /// Ended, however the program ended.
    Done,
    /// Could not be carried out; `stderr` says why.
    Error,
}

/// The answer to `GET /status/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct StatusResponse {
    /// The execution.
    pub id: String,
    /// Where it stands.
    pub status: Status,
    /// The language's own name, not the alias that was sent.
    pub language: String,
    /// The program's exit code, or 128 + n for signal n, once it ended. 124 for the wall-clock limit.
    pub exit_code: Option<i32>,
    /// Standard output so far kept.
    pub stdout: String,
    /// Standard error, the compiler's where that failed.
    pub stderr: String,
}

/// The answer to a bad request, and to every failure.
pub use crate::agent::ErrorBody;

/// `POST /v1/executions`: run a program and wait for its end.
///
/// With `Accept: application/x-ndjson` the answer is a stream of [`ExecutionEvent`], one a line;
/// otherwise one [`Execution`].
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExecutionRequest {
    /// A language's name or alias, in any case.
    pub language: String,
    /// The program, written to the language's file name.
    pub code: String,
    /// What the client calls the program's file. Its extension counts, where the language has several: `.mjs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// More files, beside it.
    #[serde(default)]
    pub files: Vec<File>,
    /// What the program reads from standard input.
    #[serde(default)]
    pub stdin: Data,
    /// The program's arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Added to the image's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Give the VM a network. Off by default.
    #[serde(default)]
    pub network: bool,
    /// Limits of this execution; the server's where none.
    #[serde(default)]
    pub limits: Limits,
    /// How its VM has to come to be; as is quickest if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartChoice>,
}

/// What a client may ask of a VM's start.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StartChoice {
    /// Boot it for this execution.
    Cold,
    /// Fork a template. Where that is not possible the execution fails; it is not booted instead.
    Fork,
}

/// What a client may set, up to the server's maximum.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Wall clock of the run stage, in milliseconds.
    pub wall_time_ms: Option<u64>,
    /// Wall clock of the compile stage, in milliseconds.
    pub compile_time_ms: Option<u64>,
    /// Kept of each output stream, in bytes: half from the start, half from the end.
    pub output_bytes: Option<u64>,
    /// Guest memory in MiB.
    pub memory_mib: Option<u64>,
    /// 1 to 8.
    pub vcpus: Option<u8>,
}

/// A whole execution.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Execution {
    /// Its id; `GET /status/{id}` knows it too.
    pub id: String,
    /// The language's own name.
    pub language: String,
    /// What ran the program, with its exact version: `Python 3.13.5`. None if no image was found, or if the image does
    /// not record a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `sha256:…` of the image's initramfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// [`Status::Done`] or [`Status::Error`].
    pub status: Status,
    /// Why it ended.
    pub cause: Cause,
    /// The program's exit code, if it exited; the compiler's where that failed.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The run stage's standard output.
    pub stdout: Data,
    /// The run stage's standard error.
    pub stderr: Data,
    /// The compile stage, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<CompileReport>,
    /// The run stage's measurements, where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<StageResult>,
    /// Where the time went.
    pub timings: Timings,
    /// How the VM came to be.
    pub start: StartKind,
    /// The VM's memory in MiB: what was asked for, rounded up to the server's steps. 0 if it is not known.
    #[serde(default)]
    pub memory_mib: u64,
    /// The VM's own address, where it had a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// For [`Status::Error`]: what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The compile stage with its output.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct CompileReport {
    /// How it ended.
    pub result: StageResult,
    /// The compiler's standard output.
    pub stdout: Data,
    /// The compiler's standard error.
    pub stderr: Data,
}

/// Where an execution's time went, in microseconds, measured by the backend.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for a place.
    pub queue_us: u64,
    /// From there until the agent was ready.
    pub start_us: u64,
    /// From there until the agent of a fork had acknowledged its identity; 0 for a VM that was booted.
    #[serde(default)]
    pub identity_us: u64,
    /// The compile stage, measured in the guest.
    pub compile_us: u64,
    /// The run stage, measured in the guest.
    pub run_us: u64,
    /// From the request's arrival to the result.
    pub total_us: u64,
}

/// How the VM came to be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// It was booted for this execution.
    Cold,
    /// It was forked from a template for this execution.
    Fork,
    /// It was forked from a template ahead of demand, and waited.
    Pool,
}

/// One line of a streamed execution.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ExecutionEvent {
    /// The request was accepted.
    Accepted {
        /// The execution's id.
        id: String,
    },
    /// The VM is ready and a stage was started.
    Started {
        /// Which stage.
        stage: StageName,
    },
    /// Bytes that a stage wrote.
    Output {
        /// Which stage.
        stage: StageName,
        /// Which stream.
        stream: Stream,
        /// What it wrote.
        data: Data,
    },
    /// Past the output limit, so many bytes were left out here.
    Dropped {
        /// Which stage.
        stage: StageName,
        /// Which stream.
        stream: Stream,
        /// How many.
        bytes: u64,
    },
    /// The last line. `stdout` and `stderr` are empty in it: they were sent.
    Result(Box<Execution>),
}

/// One of the answers to `GET /v1/languages`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct LanguageInfo {
    /// Its name.
    pub name: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// File name extensions, without the dot.
    pub extensions: Vec<String>,
    /// Whether its initramfs is built, with the version that the language asks for.
    pub image_ready: bool,
    /// What the image has, with its exact version: `Python 3.13.5`. None if there is no image, or if it does not record
    /// a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `sha256:…` of the image's initramfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// For how many seconds the image has not been compared with its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_age_s: Option<u64>,
}

/// The answer to `GET /v1/installation`: where the files of a server are. Paths are shown, not exact, where they
/// are not UTF-8.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Installation {
    /// The server's version.
    pub version: String,
    /// The guest kernel.
    pub kernel: InstalledKernel,
    /// The folder of initramfs images.
    pub images: String,
    /// The folder of languages.
    pub languages: String,
    /// After how many days without a comparison with its source an image counts as old; never if 0.
    #[serde(default = "default_image_max_age_days")]
    pub image_max_age_days: u64,
    /// The folder with the job store.
    pub state_dir: String,
    /// Kernels, blobs, images and templates.
    pub cache_dir: String,
    /// The `cloude-vmm` binary.
    pub worker: String,
    /// The agent's binary.
    pub agent: String,
}

/// After how many days an image counts as old, unless the configuration says otherwise.
pub const IMAGE_MAX_AGE_DAYS: u64 = 30;

fn default_image_max_age_days() -> u64 {
    IMAGE_MAX_AGE_DAYS
}

/// A server's guest kernel.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct InstalledKernel {
    /// A folder, or a bare kernel file.
    pub path: String,
    /// Is there a kernel?
    pub present: bool,
    /// Is it a folder, which may hold modules?
    pub modules: bool,
    /// Its release, where the folder says.
    pub release: Option<String>,
}

/// `POST /v1/templates`: build the template of a language, or wait for whoever builds it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TemplateRequest {
    /// A language's name or alias, in any case.
    pub language: String,
    /// 1 to 8; the server's default if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u8>,
    /// MiB; the language's or the server's default if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// For executions that have a network.
    #[serde(default)]
    pub network: bool,
}

/// Where a template stands.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum TemplateState {
    /// It is being booted and warmed.
    Building,
    /// Executions are forks of it.
    Ready,
    /// It could not be built; it is tried again after a while.
    Failed,
}

/// One of the answers to `GET /v1/templates`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TemplateInfo {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The language's own name.
    pub language: String,
    /// 1 to 8.
    pub vcpus: u8,
    /// The guest's memory in MiB.
    pub memory_mib: u64,
    /// Has it a network device?
    pub network: bool,
    /// Where it stands.
    pub state: TemplateState,
    /// Why it could not be built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it stands there, in milliseconds since 1970.
    pub created_ms: u64,
    /// The same in seconds ago.
    pub age_s: u64,
    /// When an execution last asked for a fork, in seconds ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_s: Option<u64>,
    /// Paused forks that wait.
    pub waiting: usize,
    /// Forks that were made since it was asked for first.
    pub forks: u64,
    /// Executions that found a fork that waited.
    pub hits: u64,
    /// Memory that all forks share, in bytes.
    pub memory_bytes: u64,
    /// What it takes on the disk, in bytes; 0 if it is not kept.
    pub disk_bytes: u64,
    /// What a waiting fork holds of its own, in KiB, as last measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_kib: Option<u64>,
}
