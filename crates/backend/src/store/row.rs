//! Rows of the store.

use std::sync::Arc;

use cloude_protocol::Data;
use cloude_protocol::api::{CompileReport, Execution, ExecutionRequest, Status};

use crate::tenant::Tenant;

/// A durable execution, as it was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub id: String,
    pub tenant: Tenant,
    /// The language's name.
    pub language: String,
    pub request: ExecutionRequest,
    /// Starts without a result, not counting those that a shutdown interrupted.
    pub attempts: u32,
    /// When the request arrived, in milliseconds since 1970.
    pub created_ms: u64,
}

/// An execution without a result whose row cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub id: String,
    pub tenant: Tenant,
    /// The language's name, or `unknown` if it cannot be read.
    pub language: String,
    /// When the request arrived, in milliseconds since 1970.
    pub created_ms: u64,
    /// The error of reading it.
    pub reason: String,
}

/// The stored state of an execution.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub tenant: Tenant,
    /// The language's name.
    pub language: String,
    pub status: Status,
    /// The result of a finished execution.
    pub result: Option<Arc<Execution>>,
}

/// Limits on stored finished executions.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Maximum age in milliseconds.
    pub age_ms: i64,
    /// Maximum number.
    pub jobs: u64,
    /// Maximum bytes of the database in use. The oldest executions are removed first.
    pub bytes: u64,
}

/// Bytes of output of all stages.
pub fn output_bytes(execution: &Execution) -> usize {
    let compile = execution.compile.as_ref();
    let compile = compile.map_or(0, |stage| stage.stdout.0.len() + stage.stderr.0.len());
    execution.stdout.0.len() + execution.stderr.0.len() + compile
}

/// The result without the bytes of its output.
pub fn without_output(execution: &Execution) -> Execution {
    let compile = execution.compile.as_ref().map(|compile| CompileReport {
        result: compile.result.clone(),
        stdout: Data::default(),
        stderr: Data::default(),
    });
    Execution {
        id: execution.id.clone(),
        language: execution.language.clone(),
        version: execution.version.clone(),
        image_digest: execution.image_digest.clone(),
        stdout: Data::default(),
        stderr: Data::default(),
        compile,
        run: execution.run.clone(),
        network: execution.network.clone(),
        artifacts: execution.artifacts.clone(),
        labels: execution.labels.clone(),
        error: execution.error.clone(),
        ..*execution
    }
}
