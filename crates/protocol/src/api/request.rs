//! The request of an execution.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Limits;
use crate::agent::{File, Interactive};
use crate::{Data, Secret};

/// `POST /v1/executions`: runs a program.
///
/// The response is one [`super::Execution`] after the end. With `Prefer: respond-async` it is [`super::ExecutionSummary`]
/// at once; with `Accept: application/x-ndjson` or `text/event-stream` a stream of [`super::ExecutionEvent`]s.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecutionRequest {
    /// A language's name or alias, in any case.
    pub language: String,
    /// The version that the language must have, as a prefix at a dot: `3` and `3.13` match `Python 3.13.5`. Any if absent
    /// or `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The program, written to the language's file name. Absent with an `entrypoint`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// The path in `files` of the program, if `code` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// The file name at the client. Its extension matters for languages with several, such as `.mjs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Further arguments of the compiler, after those of the language.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compile_options: Vec<String>,
    /// Further files in the work directory.
    #[serde(default)]
    pub files: Vec<File>,
    /// The program's standard input.
    #[serde(default)]
    pub stdin: Data,
    /// Keep standard input open after `stdin`, for clients of `GET /v1/executions/{id}/attach`. Not in a batch; with
    /// `Prefer: respond-async` or a stream of events, which give the id while the program runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<Interactive>,
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
    /// Patterns of files in the work directory that are part of the result: `*` and `?` match within a path's component, `**`
    /// matches any number of components.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// The treatment of a stage that writes more than `limits.output_bytes` to a stream.
    #[serde(default, skip_serializing_if = "OnOutputLimit::is_default")]
    pub on_output_limit: OnOutputLimit,
    /// Labels for the client's own use. `GET /v1/executions?label=NAME:VALUE` lists by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// An `http` or `https` URL to which the server posts the result. Only for durable executions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// How to start the VM; the fastest way available if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartChoice>,
}

/// A choice of how the VM is started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StartChoice {
    /// Boot it for this execution.
    Cold,
    /// Fork it from a template. The execution fails if there is none.
    Fork,
}

/// The treatment of a stage that writes more than the output limit.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnOutputLimit {
    /// It goes on. The head and the tail of the stream are kept, and the bytes between them are counted.
    #[default]
    Continue,
    /// It is killed, with [`crate::agent::Cause::OutputLimit`]. The stream's first bytes are kept.
    Kill,
}

impl OnOutputLimit {
    fn is_default(&self) -> bool {
        *self == OnOutputLimit::default()
    }
}
