//! The agent's API: `GET /health`, `POST /warm`, `POST /execute` and `POST /input` over HTTP/1.1, on vsock or TCP.
//!
//! Every request has `Authorization: Bearer TOKEN` with the VM's token ([`crate::boot::BootConfig::token`]). Without it
//! the agent answers 401.
//!
//! `POST /execute` takes an [`ExecuteRequest`]. The response is a chunked stream of one [`Event`] per line ([`NDJSON`])
//! that ends with [`Event::Finished`]. An agent executes once: a second request is answered 409. `POST /input` takes an
//! [`Input`] on another connection meanwhile.
//!
//! A template VM ([`crate::boot::BootConfig::template`]) is warmed once by `POST /warm`, with a [`WarmRequest`] and a
//! [`WarmResponse`]. It is saved while the agent waits for the next request on the same connection. In each fork, the
//! host socket of that connection is a new one. `POST /execute` is answered 403 there without an [`Identity`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Data;
use crate::boot::NetworkConfig;

/// The agent's port: on vsock, and on TCP of the VM's address if it has one.
pub const AGENT_PORT: u32 = 1024;

/// The host's vsock port to which the agent connects once when it is ready for requests. The attempt is the signal: the
/// host refuses the connection.
pub const READY_PORT: u32 = 1025;

/// Longest argument or variable (`NAME=value`) of a program in bytes, with its NUL: `MAX_ARG_STRLEN` of
/// Linux, 32 pages (include/uapi/linux/binfmts.h).
pub const MAX_ARGUMENT_BYTES: usize = 128 << 10;

/// All arguments and variables of a request together, each with its NUL and its pointer of 8 bytes. Linux allows a
/// quarter of the stack limit, 2 MiB (`bprm_stack_limits`, fs/exec.c); half of that is reserved for the language's
/// arguments and the image's variables.
pub const MAX_ARGUMENTS_BYTES: usize = 1 << 20;

/// The media type of a stream of events.
pub const NDJSON: &str = "application/x-ndjson";

/// One program, with everything that is needed to compile and run it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExecuteRequest {
    /// The execution's id, for logs.
    pub id: String,
    /// Files to write into the work directory, in this order, before the first stage.
    pub files: Vec<File>,
    /// The compile stage, if the language compiles. Its failure ends the execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<Stage>,
    /// The run stage: the program.
    pub run: Stage,
    /// Standard input of the run stage. That of the compile stage is empty.
    #[serde(default)]
    pub stdin: Data,
    /// Added to the image's environment, for both stages.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory of both stages, relative to the work directory `/work` or absolute; `/work` if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Who both stages run as: `user`, `uid`, `user:group` or `uid:gid`, by the image's /etc/passwd and /etc/group. None is
    /// the image's user, or an unprivileged one where that is root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Both stages may use system calls that are otherwise refused. User namespaces are then allowed, except for root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfined: bool,
    /// Bytes that all files in the work directory and in /tmp may have together; no limit but the guest's memory if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Files to send after the run stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// Keep standard input open after `stdin`, for `POST /input`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<Interactive>,
    /// The identity of a fork, applied before anything else of the request. If it fails, the answer is 500 (400 for a
    /// malformed identity), and the VM never runs a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// Files of the work directory to send after the run stage.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Artifacts {
    /// Patterns relative to the work directory: `*` and `?` match within a component, `**` any number of components.
    pub patterns: Vec<String>,
    /// Bytes of all files together. A file that does not fit is left out and counted.
    pub max_bytes: u64,
    /// Number of files. Those beyond it are left out and counted.
    pub max_files: u32,
}

/// The values in which a fork must differ from its template and from all other forks.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// 32 bytes from the host's random generator, as 64 hexadecimal digits.
    pub entropy: String,
    /// CLOCK_REALTIME of the host when the request was sent, in nanoseconds since 1970.
    pub wall_clock_ns: u64,
    /// 1 to 64 bytes.
    pub hostname: String,
    /// 32 lower-case hexadecimal digits, not all zero (machine-id(5)).
    pub machine_id: String,
    /// A UUID of 36 characters, lower case.
    pub boot_id: String,
    /// The bearer token of later requests: 64 hexadecimal digits.
    pub token: String,
    /// For a VM with a network device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkIdentity>,
}

/// Without entropy and token, so that no log contains them.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("wall_clock_ns", &self.wall_clock_ns)
            .field("hostname", &self.hostname)
            .field("machine_id", &self.machine_id)
            .field("boot_id", &self.boot_id)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// The network configuration of a fork.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NetworkIdentity {
    /// The interface's hardware address, equal to that of its device.
    pub mac: [u8; 6],
    /// Address, routes and name servers.
    pub config: NetworkConfig,
}

/// The warm-up of a template before it is saved, in the order of the fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct WarmRequest {
    /// Commands that run as root; each must exit with 0.
    pub prepare: Vec<Stage>,
    /// Warm-up runs: executed as the program's user; each must end with [`Cause::Exit`] and any code. Files that they leave
    /// in the work directory and in /tmp are removed. The page cache stays.
    pub rehearse: Vec<ExecuteRequest>,
    /// Started as the program's user; it then waits for its program.
    pub runner: Option<Runner>,
    /// Seconds by which the wall clock is set back before the runner starts. The identity then sets it forward, so that
    /// libraries that reseed by time (OpenSSL) reseed.
    pub clock_back_s: u64,
}

/// An interpreter that is started in the template and waits there for its program.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Runner {
    /// The language's run command, without a program's arguments.
    pub argv: Vec<String>,
    /// Variables of the language for the interpreter and the program.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables of the waiting interpreter, which its hook removes before the program runs. `{dir}` in a value is
    /// replaced by the directory of `files`.
    #[serde(default)]
    pub hook_env: BTreeMap<String, String>,
    /// The hook's files, which stay readable for the program's user.
    #[serde(default)]
    pub files: Vec<File>,
    /// Variables that the interpreter reads when it starts, exact names or prefixes ending in `*`. A request that sets one
    /// runs in a new interpreter.
    #[serde(default)]
    pub cold_env: Vec<String>,
    /// Time limit for the hook to wait, in milliseconds.
    pub timeout_ms: u64,
}

/// The answer to `POST /warm`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct WarmResponse {
    /// True if a runner waits.
    pub runner: bool,
}

/// A file of the program.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Relative to the work directory, without `..`. Missing parents are created.
    pub path: String,
    /// Content.
    pub content: Data,
    /// Permission bits, 0o644 if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Standard input that stays open while the program runs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Interactive {
    /// Give the program a terminal of this size for standard input, output and error. Pipes if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Columns, 1 to 1000.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub columns: u16,
    /// Rows, 1 to 1000.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub rows: u16,
}

/// `POST /input`, on a connection of its own while the run stage of an [`Interactive`] execution runs: the parts that are
/// present are applied in the order of the fields. The answer is 204 when all bytes are in the pipe or terminal; 409 if the run
/// stage is not running or its standard input is closed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Input {
    /// The terminal's new size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<TerminalSize>,
    /// Bytes for standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// Close standard input. In a terminal: send the end-of-file character.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub end: bool,
    /// Send this signal, 1 to 64, to the program's process group (in a terminal: the foreground one).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// One process tree to run to its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The program, looked up in the image's PATH, and its arguments. At least one.
    pub argv: Vec<String>,
    /// Wall-clock limit in milliseconds, at least 1. Beyond it the whole process tree is killed.
    pub wall_time_ms: u64,
    /// Bytes to keep of each output stream: half from its start, sent as it is written, and half from its end. The
    /// program continues beyond it.
    pub output_bytes: u64,
    /// Kill the stage when it writes more than `output_bytes` to a stream; the stream's first bytes are kept then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill_at_output_limit: bool,
    /// Limits of its processes.
    #[serde(default, skip_serializing_if = "ProcessLimits::is_empty")]
    pub limits: ProcessLimits,
}

/// Limits of a stage's processes. The agent's defaults are used for those that are absent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessLimits {
    /// User and system time of all processes together, in milliseconds. Beyond it all are killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time_ms: Option<u64>,
    /// Processes and threads at one time (`pids.max` of the cgroup).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// File descriptors of each process (`RLIMIT_NOFILE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Largest file that a process may write, in bytes (`RLIMIT_FSIZE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Stack of each process's first thread in bytes (`RLIMIT_STACK`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack_bytes: Option<u64>,
}

impl ProcessLimits {
    fn is_empty(&self) -> bool {
        *self == ProcessLimits::default()
    }
}

/// A stage of an execution.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// The language's compile command.
    Compile,
    /// The program.
    Run,
}

/// An output stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// One line of a streamed answer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The [`Identity`] was applied. Always the first event of a request with one.
    Identity,
    /// A stage's process was started.
    Started {
        /// The stage.
        stage: StageName,
    },
    /// Bytes that the stage wrote.
    Output {
        /// The stage.
        stage: StageName,
        /// The stream.
        stream: Stream,
        /// The bytes. An event never splits a valid UTF-8 sequence.
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
    /// A file that matched [`Artifacts::patterns`] begins. Its bytes follow as [`Event::ArtifactData`].
    Artifact {
        /// Relative to the work directory. Names that are not UTF-8 are left out and counted.
        path: String,
        /// Its size. Less follows if the file shrank meanwhile.
        bytes: u64,
        /// Permission bits.
        mode: u32,
    },
    /// The next bytes of the last [`Event::Artifact`].
    ArtifactData {
        /// The bytes.
        data: Data,
    },
    /// The last event.
    Finished(ExecuteResult),
}

/// The result of an execution, without its output.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ExecuteResult {
    /// The compile stage, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<StageResult>,
    /// The run stage; none if the compile stage failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<StageResult>,
    /// Matching files that were left out.
    #[serde(default)]
    pub artifacts_dropped: u64,
}

/// The result of a stage, measured in the guest.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StageResult {
    /// The cause of its end.
    pub cause: Cause,
    /// The exit code, if it exited. 0 to 255.
    pub exit_code: Option<i32>,
    /// The signal's number, if a signal terminated it.
    pub signal: Option<i32>,
    /// Wall-clock time from before clone3(2) to the program's end, in microseconds.
    pub wall_time_us: u64,
    /// User and system time of the whole process tree, in microseconds.
    pub cpu_time_us: u64,
    /// Peak memory of the process tree, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes written to standard output.
    pub stdout_bytes: u64,
    /// Bytes of it that were dropped beyond the limit.
    pub stdout_dropped: u64,
    /// Bytes written to standard error.
    pub stderr_bytes: u64,
    /// Bytes of it that were dropped beyond the limit.
    pub stderr_dropped: u64,
    /// The program ran in an interpreter that waited in the template. Times count from the request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warm: bool,
    /// More about the cause: the error for [`Cause::Infrastructure`], such as a command that is not in the image; the sizes
    /// for a program that is larger than memory ([`Cause::Memory`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why a stage or an execution ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The program exited, with any code.
    Exit,
    /// A signal that Cloude did not send terminated it.
    Signal,
    /// Killed at the wall-clock limit.
    WallTime,
    /// Killed at the limit of CPU time.
    CpuTime,
    /// Killed by the guest's out-of-memory killer, or larger than the guest's memory.
    Memory,
    /// Killed at the output limit.
    OutputLimit,
    /// It failed after a write was refused at the limit of the disk or of a file's size.
    Disk,
    /// It failed after a new process or thread was refused at the limit of processes.
    Processes,
    /// The guest's kernel panicked, halted or rebooted.
    GuestPanic,
    /// The client disconnected, or the server is shutting down.
    Cancelled,
    /// No VM, a broken connection, or a command that the image lacks.
    Infrastructure,
}

/// The answer to `GET /health`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The agent's version.
    pub version: String,
    /// CLOCK_BOOTTIME when the agent became ready, in nanoseconds.
    pub ready_at_ns: u64,
}

/// The body of every error response.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ErrorBody {
    /// The error and the way out.
    pub error: String,
}
