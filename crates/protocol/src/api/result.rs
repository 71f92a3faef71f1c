//! The result of an execution.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Data;
use crate::agent::{Cause, StageResult};
use crate::network::NetworkReport;

/// The status of an execution.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

/// The result of an execution.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// The VM's memory: the request's, rounded up to the server's steps. 0 if unknown.
    #[serde(default)]
    pub memory_bytes: u64,
    /// The VM's address, if it had a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = Ipv4))]
    pub ip: Option<Ipv4Addr>,
    /// Traffic that was denied, if it had a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReport>,
    /// The files that matched [`super::ExecutionRequest::artifacts`], in the order of their paths. Their content is at
    /// `GET /v1/executions/{id}/artifacts/{path}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Matching files that were left out: past `limits.artifact_bytes`, not regular, or with a name that is not UTF-8.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub artifacts_dropped: u64,
    /// The labels of the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When the request arrived, in milliseconds since 1970.
    #[serde(default)]
    pub created_ms: u64,
    /// The error, for [`Status::Error`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The compile stage with its output.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompileReport {
    /// Result of the stage.
    pub result: StageResult,
    /// The compiler's standard output.
    pub stdout: Data,
    /// The compiler's standard error.
    pub stderr: Data,
    /// Another execution of the batch compiled the program.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// A file that the program left.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Artifact {
    /// Its path, relative to the work directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its permission bits.
    pub mode: u32,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Durations of an execution's phases in microseconds, measured by the backend.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// From the end of the run stage until its artifacts were received.
    #[serde(default)]
    pub collect_us: u64,
    /// From the request's arrival to the result.
    pub total_us: u64,
}

/// How the VM was started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// Booted for this execution.
    Cold,
    /// Forked from a template for this execution.
    Fork,
    /// A paused fork from the pool.
    Pool,
}
