//! Lists of executions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Status;
use crate::agent::Cause;

/// An execution without its output: an item of `GET /v1/executions`, and the response of `202 Accepted`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecutionSummary {
    /// The execution's id.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// The language's name.
    pub language: String,
    /// The cause of its end, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The program's exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The labels of the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When the request arrived, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_ms: Option<u64>,
}

/// The response to `GET /v1/executions`, newest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExecutionList {
    /// The executions of this page.
    pub executions: Vec<ExecutionSummary>,
    /// The value of `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
