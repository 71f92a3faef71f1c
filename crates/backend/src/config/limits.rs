//! The keys of `[limits]`.

use serde::{Deserialize, Serialize};

/// Limits of requests.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Maximum bytes of code, files, arguments, environment and stdin together.
    pub code_bytes: usize,
    /// Maximum bytes of an HTTP request body.
    pub body_bytes: usize,
    /// Maximum bytes reserved for the request bodies that are being received together.
    pub body_bytes_in_flight: usize,
    /// Time for a request body to arrive in milliseconds, and one second more for each MiB received.
    pub body_timeout_ms: u64,
    /// Maximum bytes of finished output that responses hold together.
    pub result_bytes_in_flight: usize,
    /// Maximum connections of one address; 0: no limit. A prefix of 64 bits counts as one IPv6 address.
    pub connections_per_address: usize,
    /// Time in milliseconds after which a client that takes no data of its response is disconnected.
    pub write_timeout_ms: u64,
    /// Wall-clock limit of the run stage in milliseconds, if neither request nor language sets it.
    pub wall_time_ms: u64,
    /// Wall-clock limit of the compile stage in milliseconds, if neither request nor language sets it.
    pub compile_time_ms: u64,
    /// Maximum wall-clock limit of either stage that a request may set, in milliseconds.
    pub max_wall_time_ms: u64,
    /// Bytes of each output stream that are kept, if the request does not set them.
    pub output_bytes: u64,
    /// Maximum of the same that a request may set, in bytes.
    pub max_output_bytes: u64,
    /// User and system time of a stage in milliseconds, if the request does not set it; 0: no limit.
    pub cpu_time_ms: u64,
    /// Maximum of the same that a request may set; 0: no maximum. So for the keys below.
    pub max_cpu_time_ms: u64,
    /// Processes and threads of a stage; 0: half of what the guest's kernel allows.
    pub processes: u32,
    /// Maximum of `processes`.
    pub max_processes: u32,
    /// File descriptors of each process; 0: 1024, which a process may raise itself.
    pub open_files: u64,
    /// Maximum of `open_files`.
    pub max_open_files: u64,
    /// Bytes of the largest file that a process may write; 0: no limit.
    pub file_bytes: u64,
    /// Maximum of `file_bytes`.
    pub max_file_bytes: u64,
    /// Bytes of all files that a program writes; 0: no limit but the guest's memory.
    pub disk_bytes: u64,
    /// Maximum of `disk_bytes`.
    pub max_disk_bytes: u64,
    /// Bytes of the stack of each process's first thread; 0: that of the guest's kernel, 8 MiB.
    pub stack_bytes: u64,
    /// Maximum of `stack_bytes`.
    pub max_stack_bytes: u64,
    /// Bytes of all artifacts of an execution, if the request does not set them.
    pub artifact_bytes: u64,
    /// Maximum of `artifact_bytes`.
    pub max_artifact_bytes: u64,
    /// Maximum number of artifacts of an execution.
    pub artifact_files: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            code_bytes: 10 << 20,
            body_bytes: 32 << 20,
            body_bytes_in_flight: 256 << 20,
            body_timeout_ms: 30_000,
            result_bytes_in_flight: 256 << 20,
            connections_per_address: 512,
            write_timeout_ms: 30_000,
            wall_time_ms: 30_000,
            compile_time_ms: 60_000,
            max_wall_time_ms: 600_000,
            output_bytes: 1 << 20,
            max_output_bytes: 64 << 20,
            cpu_time_ms: 0,
            max_cpu_time_ms: 0,
            processes: 0,
            max_processes: 16_384,
            open_files: 0,
            max_open_files: 524_288,
            file_bytes: 0,
            max_file_bytes: 0,
            disk_bytes: 0,
            max_disk_bytes: 0,
            stack_bytes: 0,
            max_stack_bytes: 1 << 30,
            artifact_bytes: 16 << 20,
            max_artifact_bytes: 64 << 20,
            artifact_files: 1000,
        }
    }
}
