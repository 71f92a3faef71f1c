//! The templates of a server.

use serde::{Deserialize, Serialize};

/// `POST /v1/templates`: builds the template of a language, or waits for a build that is running.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
