//! Backend to agent: `GET /health`, `POST /warm` and `POST /execute` over HTTP/1.1, on vsock or TCP.
//!
//! Every request carries `Authorization: Bearer TOKEN` with the VM's own token
//! ([`crate::boot::BootConfig::token`]); without it the agent answers 401 and does nothing.
//!
//! `POST /execute` takes an [`ExecuteRequest`]. The answer is a chunked stream, one [`Event`] a line
//! ([`NDJSON`]), that ends with [`Event::Finished`]. An agent executes once: a second request is answered 409.
//!
//! A template VM ([`crate::boot::BootConfig::template`]) is warmed once by `POST /warm`, which takes a
//! [`WarmRequest`] and gives a [`WarmResponse`]. It is then saved, while the agent waits for the next
//! request on that same connection, and forked: in each fork the next request comes from a new host
//! end. `POST /execute` is answered 403 there unless it carries an [`Identity`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Data;
use crate::boot::NetworkConfig;

/// The port on which the agent listens, on vsock always and on the VM's own IP when it has one.
pub const AGENT_PORT: u32 = 1024;

/// The host's vsock port that the agent connects to, once, when it is ready for requests. The host
/// takes the attempt as the signal and refuses the connection.
pub const READY_PORT: u32 = 1025;

/// The longest argument or variable (`NAME=value`) that a program can get, its NUL included: `MAX_ARG_STRLEN` of
/// Linux, 32 pages (include/uapi/linux/binfmts.h).
pub const MAX_ARGUMENT_BYTES: usize = 128 << 10;

/// All arguments and variables of a request together, each with its NUL and its pointer of 8 bytes. Linux allows a
/// quarter of the stack's limit, 2 MiB (`bprm_stack_limits`, fs/exec.c); half of that is left to the language's own
/// arguments and the image's variables.
pub const MAX_ARGUMENTS_BYTES: usize = 1 << 20;

/// The media type of a stream of events.
pub const NDJSON: &str = "application/x-ndjson";

/// One program, all that is needed to compile and run it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ExecuteRequest {
    /// The execution's id, for logs.
    pub id: String,
    /// Written into the work directory, in this order, before anything runs.
    pub files: Vec<File>,
    /// Runs first where the language has one; a failure ends the execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<Stage>,
    /// The program itself.
    pub run: Stage,
    /// What the run stage reads from standard input. The compile stage reads nothing.
    #[serde(default)]
    pub stdin: Data,
    /// Added to the image's environment, for both stages.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where both stages start; the work directory (`/work`) if none, and relative to it unless absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Who a fork is from now on. Applied whole before anything else of the request; where that
    /// fails the answer is 500 (400 for a malformed one) and the VM runs nothing ever after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// What makes a fork of a template a VM of its own.
#[derive(Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// 32 bytes from the host's generator, as 64 hexadecimal digits.
    pub entropy: String,
    /// CLOCK_REALTIME of the host when this was sent, in nanoseconds since the epoch.
    pub wall_clock_ns: u64,
    /// 1 to 64 bytes.
    pub hostname: String,
    /// 32 lower-case hexadecimal digits, not all zero (machine-id(5)).
    pub machine_id: String,
    /// A UUID in its usual 36 characters, lower case.
    pub boot_id: String,
    /// What requests to this VM carry from now on. 64 hexadecimal digits.
    pub token: String,
    /// For a VM with an interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkIdentity>,
}

/// Without the secrets, so that no log has them.
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

/// A fork's own place in the network.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NetworkIdentity {
    /// The interface's hardware address, which its device has too.
    pub mac: [u8; 6],
    /// Address, routes and name servers.
    pub config: NetworkConfig,
}

/// What a template does before it is saved, in the order of the fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct WarmRequest {
    /// Run as root in the image's tree; each must exit 0.
    pub prepare: Vec<Stage>,
    /// Executed in full as the image's user; each must end by [`Cause::Exit`], with any code. What
    /// they left in the work directory and in /tmp is removed; the page cache stays.
    pub rehearse: Vec<ExecuteRequest>,
    /// Started as the image's user and left waiting for a program.
    pub runner: Option<Runner>,
    /// Seconds that the wall clock is set back before the runner starts. The identity steps it
    /// forward, at which libraries that reseed by time, such as OpenSSL's generators, do.
    pub clock_back_s: u64,
}

/// An interpreter that is started before its program is known, and then becomes it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Runner {
    /// The language's run command, without a program's arguments.
    pub argv: Vec<String>,
    /// The language's environment for it. A program sees it beside the request's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Given to the waiting interpreter alone; its hook takes it out again. `{dir}` in a value
    /// stands for the directory of `files`.
    #[serde(default)]
    pub hook_env: BTreeMap<String, String>,
    /// The hook, in a directory of the agent's that the image's user can read, and that stays.
    #[serde(default)]
    pub files: Vec<File>,
    /// Names of variables that the interpreter reads as it starts, exact or a prefix ending in `*`:
    /// a request that sets one is run plainly.
    #[serde(default)]
    pub cold_env: Vec<String>,
    /// How long until it waits, in milliseconds.
    pub timeout_ms: u64,
}

/// The answer to `POST /warm`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct WarmResponse {
    /// A runner waits.
    pub runner: bool,
}

/// A file of the program.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Relative to the work directory, without `..`; parents are made.
    pub path: String,
    /// The whole content.
    pub content: Data,
    /// Permission bits, 0o644 if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// One process tree to run to its end.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The program, looked up in the image's PATH, and its arguments. At least one.
    pub argv: Vec<String>,
    /// Past this the whole process tree is killed. Milliseconds of wall clock, at least 1.
    pub wall_time_ms: u64,
    /// How much of each output stream is kept, in bytes: half from its start, sent as it comes, and
    /// half from its end. The program goes on past it.
    pub output_bytes: u64,
}

/// Which stage something belongs to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// The language's compile command.
    Compile,
    /// The program.
    Run,
}

/// Which output stream something belongs to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
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
    /// The request's [`Identity`] was applied in full; the first line where there is one.
    Identity,
    /// A stage's process was started.
    Started {
        /// Which stage.
        stage: StageName,
    },
    /// Bytes that the stage wrote.
    Output {
        /// Which stage.
        stage: StageName,
        /// Which stream.
        stream: Stream,
        /// What it wrote. A chunk never splits a valid UTF-8 sequence.
        data: Data,
    },
    /// The output limit was passed: so many bytes lie between what came before and what follows.
    Dropped {
        /// Which stage.
        stage: StageName,
        /// Which stream.
        stream: Stream,
        /// How many bytes were dropped.
        bytes: u64,
    },
    /// The last line.
    Finished(ExecuteResult),
}

/// How an execution went, without its output.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ExecuteResult {
    /// The compile stage, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile: Option<StageResult>,
    /// The run stage; none when the compile stage failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<StageResult>,
}

/// How a stage ended, measured in the guest.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct StageResult {
    /// Why it ended.
    pub cause: Cause,
    /// The exit code, if it exited. 0 to 255.
    pub exit_code: Option<i32>,
    /// The signal's number, if a signal ended it.
    pub signal: Option<i32>,
    /// From before the process was made to its end, in microseconds.
    pub wall_time_us: u64,
    /// User and system time of the whole process tree, in microseconds.
    pub cpu_time_us: u64,
    /// The most memory the process tree held at once, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Of those, dropped past the limit.
    pub stdout_dropped: u64,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: u64,
    /// Of those, dropped past the limit.
    pub stderr_dropped: u64,
    /// A runner that waited since before the request took the program. Times are from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warm: bool,
    /// What more there is to say of the cause: for [`Cause::Infrastructure`] what went wrong, such as a command
    /// that is not in the image; for [`Cause::Memory`] how much a program wanted that could not be loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why a stage or an execution ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The program exited by itself, with whatever code.
    Exit,
    /// A signal ended it that was not of our sending.
    Signal,
    /// The wall-clock limit.
    WallTime,
    /// The CPU time limit.
    CpuTime,
    /// The guest's out-of-memory killer ended it.
    Memory,
    /// Reserved: the output limit, where the client asked for it to be fatal.
    OutputLimit,
    /// The guest kernel panicked, halted or rebooted under it.
    GuestPanic,
    /// The client disconnected, or the server is shutting down.
    Cancelled,
    /// Our own fault: no VM, a broken connection, a command missing from the image.
    Infrastructure,
}

/// The answer to `GET /health`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The agent's version.
    pub version: String,
    /// Nanoseconds of CLOCK_BOOTTIME when the agent became ready.
    pub ready_at_ns: u64,
}

/// The body of every answer that is an error.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ErrorBody {
    /// What was wrong and what to do.
    pub error: String,
}
