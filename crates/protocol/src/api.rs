//! The backend's HTTP API.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::agent::{Cause, File, StageName, StageResult, Stream};
use crate::network::NetworkReport;
use crate::{Data, Secret};

/// `POST /run`: starts an execution and returns its id at once.
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
    /// The execution's id, for `GET /status/{id}`.
    pub id: String,
}

/// The status of an execution.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted and queued.
    Pending,
    /// Running in its VM.
    Running,
    /// Ended, however the program ended.
    Done,
    /// Could not be run; `stderr` has the reason.
    Error,
}

/// The answer to `GET /status/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct StatusResponse {
    /// The execution's id.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// The language's name, also if the request had an alias.
    pub language: String,
    /// The exit code once it ended: the program's, 128 + n for signal n, 124 for the wall-clock limit.
    pub exit_code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error; the compiler's if that failed.
    pub stderr: String,
}

/// The body of every error response.
pub use crate::agent::ErrorBody;

/// `POST /v1/executions`: runs a program and returns its result.
///
/// With `Accept: application/x-ndjson` the response is a stream of one [`ExecutionEvent`] per line, else one
/// [`Execution`].
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExecutionRequest {
    /// A language's name or alias, in any case.
    pub language: String,
    /// The program, written to the language's file name.
    pub code: String,
    /// The file name at the client. Its extension matters for languages with several, such as `.mjs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Further files in the work directory.
    #[serde(default)]
    pub files: Vec<File>,
    /// The program's standard input.
    #[serde(default)]
    pub stdin: Data,
    /// The program's arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Added to the image's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Added likewise; the values are neither stored nor logged. No name may be in `env`, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// Give the VM a network. Off by default.
    #[serde(default)]
    pub network: bool,
    /// Who compiles and runs the program: `root`, or another user of the image, as `user`, `uid`, `user:group` or `uid:gid`.
    /// The image's user if absent, or an unprivileged one where that is root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Allow system calls that are otherwise refused: io_uring, user namespaces (not for root) and others. Off by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfined: bool,
    /// Limits of this execution; the server's defaults if absent.
    #[serde(default)]
    pub limits: Limits,
    /// How to start the VM; the fastest way available if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartChoice>,
}

/// A choice of how the VM is started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StartChoice {
    /// Boot it for this execution.
    Cold,
    /// Fork it from a template. The execution fails if there is none.
    Fork,
}

/// Limits that a client can set, up to the server's maximum.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Wall-clock limit of the run stage, in milliseconds.
    pub wall_time_ms: Option<u64>,
    /// Wall-clock limit of the compile stage, in milliseconds.
    pub compile_time_ms: Option<u64>,
    /// Bytes to keep of each output stream: half from its start, half from its end.
    pub output_bytes: Option<u64>,
    /// Guest memory in MiB.
    pub memory_mib: Option<u64>,
    /// Virtual CPUs, 1 to 8.
    pub vcpus: Option<u8>,
}

/// The result of an execution.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Execution {
    /// The execution's id.
    pub id: String,
    /// The language's name.
    pub language: String,
    /// The compiler or interpreter with its exact version: `Python 3.13.5`. None if no image was found, or if the image does
    /// not record a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `sha256:…` of the image's initramfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// [`Status::Done`] or [`Status::Error`].
    pub status: Status,
    /// The cause of its end.
    pub cause: Cause,
    /// The program's exit code, if it exited; the compiler's if that failed.
    pub exit_code: Option<i32>,
    /// The signal that terminated it, if any.
    pub signal: Option<i32>,
    /// The run stage's standard output.
    pub stdout: Data,
    /// The run stage's standard error.
    pub stderr: Data,
    /// The compile stage, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<CompileReport>,
    /// The run stage's measurements, if it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<StageResult>,
    /// Durations of the phases.
    pub timings: Timings,
    /// How the VM was started.
    pub start: StartKind,
    /// The VM's memory in MiB: the request's, rounded up to the server's steps. 0 if unknown.
    #[serde(default)]
    pub memory_mib: u64,
    /// The VM's address, if it had a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ipv4Addr>,
    /// Traffic that was denied, if it had a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReport>,
    /// The error, for [`Status::Error`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The compile stage with its output.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct CompileReport {
    /// Result of the stage.
    pub result: StageResult,
    /// The compiler's standard output.
    pub stdout: Data,
    /// The compiler's standard error.
    pub stderr: Data,
}

/// Durations of an execution's phases in microseconds, measured by the backend.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Timings {
    /// In the queue.
    pub queue_us: u64,
    /// From the queue until the agent was ready.
    pub start_us: u64,
    /// From then until the agent of a fork had acknowledged its identity; 0 for a booted VM.
    #[serde(default)]
    pub identity_us: u64,
    /// The compile stage, measured in the guest.
    pub compile_us: u64,
    /// The run stage, measured in the guest.
    pub run_us: u64,
    /// From the request's arrival to the result.
    pub total_us: u64,
}

/// How the VM was started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// Booted for this execution.
    Cold,
    /// Forked from a template for this execution.
    Fork,
    /// A paused fork from the pool.
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
        /// The stage.
        stage: StageName,
    },
    /// Bytes that a stage wrote.
    Output {
        /// The stage.
        stage: StageName,
        /// The stream.
        stream: Stream,
        /// The bytes.
        data: Data,
    },
    /// Bytes beyond the output limit are missing here.
    Dropped {
        /// The stage.
        stage: StageName,
        /// The stream.
        stream: Stream,
        /// Number of missing bytes.
        bytes: u64,
    },
    /// The last event. Its `stdout` and `stderr` are empty: they were sent as events.
    Result(Box<Execution>),
}

/// An item of the response to `GET /v1/languages`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct LanguageInfo {
    /// Its name.
    pub name: String,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// File name extensions, without the dot.
    pub extensions: Vec<String>,
    /// True if its initramfs is built, with the version that the language asks for.
    pub image_ready: bool,
    /// The compiler or interpreter with its exact version: `Python 3.13.5`. None if there is no image, or if it does
    /// not record a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `sha256:…` of the image's initramfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// For how many seconds the image has not been compared with its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_age_s: Option<u64>,
}

/// The response to `GET /v1/installation`: paths on the server. Bytes of paths that are not UTF-8 are replaced.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Installation {
    /// The server's version.
    pub version: String,
    /// The guest kernel.
    pub kernel: InstalledKernel,
    /// The directory of initramfs images.
    pub images: String,
    /// The directory of languages.
    pub languages: String,
    /// Days without a comparison with its source after which an image counts as old; never if 0.
    #[serde(default = "default_image_max_age_days")]
    pub image_max_age_days: u64,
    /// The directory of the job store, the lock and the run directory.
    pub state_dir: String,
    /// The directory of kernels, blobs, images and templates.
    pub cache_dir: String,
    /// The `cloude-vmm` binary.
    pub worker: String,
    /// The agent's binary.
    pub agent: String,
    /// The walls around each VM's process; empty from servers without them.
    #[serde(default)]
    pub isolation: Vec<IsolationWall>,
}

/// A wall around each VM's process.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct IsolationWall {
    /// Its name in `isolation.require` of the server's configuration.
    pub name: String,
    /// Why VMs do not have it; absent if they have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The change of the host that adds the wall.
    pub fix: String,
}

/// After how many days an image counts as old, unless the configuration says otherwise.
pub const IMAGE_MAX_AGE_DAYS: u64 = 30;

fn default_image_max_age_days() -> u64 {
    IMAGE_MAX_AGE_DAYS
}

/// A server's guest kernel.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct InstalledKernel {
    /// A kernel directory, or a kernel file.
    pub path: String,
    /// The kernel exists.
    pub present: bool,
    /// The path is a directory, which can have modules.
    pub modules: bool,
    /// The kernel's release, from the file `release`.
    pub release: Option<String>,
}

/// `POST /v1/templates`: builds the template of a language, or waits for a build that is running.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TemplateRequest {
    /// A language's name or alias, in any case.
    pub language: String,
    /// Virtual CPUs, 1 to 8; the server's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u8>,
    /// Guest memory in MiB; the language's or the server's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// For executions that have a network.
    #[serde(default)]
    pub network: bool,
}

/// The state of a template.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum TemplateState {
    /// It is booted and warmed.
    Building,
    /// Executions are forked from it.
    Ready,
    /// The build failed; it is retried after a while.
    Failed,
}

/// An item of the response to `GET /v1/templates`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TemplateInfo {
    /// The template's id, 64 hexadecimal digits.
    pub id: String,
    /// The language's name.
    pub language: String,
    /// Virtual CPUs, 1 to 8.
    pub vcpus: u8,
    /// The guest's memory in MiB.
    pub memory_mib: u64,
    /// It has a network device.
    pub network: bool,
    /// Its state.
    pub state: TemplateState,
    /// Why the build failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time of the last change of state, in milliseconds since 1970.
    pub created_ms: u64,
    /// Seconds since then.
    pub age_s: u64,
    /// Seconds since an execution last requested a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_s: Option<u64>,
    /// Paused forks in the pool.
    pub waiting: usize,
    /// Forks made since the first request.
    pub forks: u64,
    /// Executions that got a paused fork.
    pub hits: u64,
    /// Memory that all forks share, in bytes.
    pub memory_bytes: u64,
    /// Bytes on disk; 0 if it is not stored.
    pub disk_bytes: u64,
    /// Private memory of a paused fork in KiB, as last measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_kib: Option<u64>,
}
