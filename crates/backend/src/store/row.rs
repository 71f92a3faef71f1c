//! Rows of the store.

use std::sync::Arc;

use bytes::Bytes;
use cloude_protocol::Data;
use cloude_protocol::agent::{StageName, Stream};
use cloude_protocol::api::{CompileReport, Execution, ExecutionRequest, ExecutionSummary};

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
    /// The key under which the client may send the request again; none once it is stored.
    pub key: Option<IdempotencyKey>,
    /// The id of its batch, and its place there.
    pub batch: Option<(String, u32)>,
    /// The request of another server's client, as JSON of its dialect; none once it is stored.
    pub dialect: Option<String>,
}

/// The header `Idempotency-Key` of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: String,
    /// SHA-256 of the request.
    pub hash: [u8; 32],
}

/// A result with everything that is stored beside it.
#[derive(Debug)]
pub struct Ended {
    pub result: Arc<Execution>,
    pub tenant: Tenant,
    /// The contents of its artifacts, in the order of [`Execution::artifacts`].
    pub files: Vec<Bytes>,
    /// The order of the events of a durable execution.
    pub order: Option<Vec<u8>>,
}

impl Ended {
    /// Bytes of output, artifacts and order.
    pub fn bytes(&self) -> usize {
        let files = self.files.iter().map(Bytes::len).sum::<usize>();
        output_bytes(&self.result) + files + self.order.as_ref().map_or(0, Vec::len)
    }
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
    /// The execution without its output.
    pub summary: ExecutionSummary,
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

/// The output of a stage; empty if it did not run.
pub fn output_of(execution: &Execution, stage: StageName, stream: Stream) -> &Data {
    const NONE: &Data = &Data(Vec::new());
    let (stdout, stderr) = match (stage, &execution.compile) {
        (StageName::Run, _) => (&execution.stdout, &execution.stderr),
        (StageName::Compile, Some(compile)) => (&compile.stdout, &compile.stderr),
        (StageName::Compile, None) => (NONE, NONE),
    };
    match stream {
        Stream::Stdout => stdout,
        Stream::Stderr => stderr,
    }
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
        shared: compile.shared,
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

/// The execution without its output.
pub fn summary_of(execution: &Execution) -> ExecutionSummary {
    let total_ms = execution.timings.total_us / 1000;
    ExecutionSummary {
        id: execution.id.clone(),
        status: execution.status,
        language: execution.language.clone(),
        cause: Some(execution.cause),
        exit_code: execution.exit_code,
        labels: execution.labels.clone(),
        created_ms: execution.created_ms,
        finished_ms: Some(execution.created_ms.saturating_add(total_ms)),
    }
}
