//! Batches: many inputs of one program.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ExecutionRequest, ExecutionSummary};
use crate::Data;

/// `POST /v1/batches`: runs a program once for each input, each in a VM of its own. The executions are durable.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// The program, and the values of the inputs that do not set their own.
    pub request: ExecutionRequest,
    /// 1 to 1000 inputs.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub inputs: Vec<BatchInput>,
}

/// The values in which an execution of a batch differs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BatchInput {
    /// Standard input, in place of the request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Data>,
    /// Arguments, in place of the request's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Variables, added to the request's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Labels, added to the request's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The response to `POST /v1/batches` and `GET /v1/batches/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Batch {
    /// The batch's id.
    pub id: String,
    /// True if all its executions have ended.
    pub ended: bool,
    /// Its executions in the order of their inputs, without those whose results were removed since.
    pub executions: Vec<ExecutionSummary>,
}
