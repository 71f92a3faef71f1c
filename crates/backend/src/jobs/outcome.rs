//! The [`Execution`] that clients get, from the measurements and the output of the guest.

use cloude_engine::Failure;
use cloude_engine::images::ReadyImage;
use cloude_protocol::Data;
use cloude_protocol::agent::{Cause, ExecuteResult, StageName, StageResult, Stream};
use cloude_protocol::api::{
    Artifact, CompileReport, Execution, StartKind, Status, StatusResponse, Timings,
};
use cloude_protocol::network::NetworkReport;

use super::about::About;
use super::transcript::Transcript;

/// Exit code for the wall-clock limit, as of timeout(1).
const TIMED_OUT: i32 = 124;
/// Exit code for signal n is this plus n, as in a shell.
const SIGNALLED: i32 = 128;

/// The parts of an [`Execution`].
pub struct ExecutionParts<'a> {
    pub about: &'a About,
    /// The image of the VM, if the execution reached that step.
    pub image: Option<ReadyImage>,
    /// The agent's last event, or the failure that prevented it.
    pub result: Result<ExecuteResult, Failure>,
    /// Another execution of the batch compiled the program.
    pub is_compile_shared: bool,
    /// The artifacts.
    pub artifacts: Vec<Artifact>,
    /// Artifacts that were left out here, beside those that the agent counts.
    pub artifacts_dropped: u64,
    /// The output.
    pub transcript: &'a mut Transcript,
    /// The timings that the host measured.
    pub timings: Timings,
    /// The VM's address.
    pub ip: Option<std::net::Ipv4Addr>,
    /// Traffic that the VM's device dropped.
    pub network: Option<NetworkReport>,
    /// Booted, forked or taken from the pool.
    pub start: StartKind,
    /// Guest memory in MiB; 0 if no VM was started.
    pub memory_mib: u64,
}

impl ExecutionParts<'_> {
    /// Assembles the execution.
    pub fn execution(self) -> Execution {
        let (result, failure) = match self.result {
            Ok(result) => (result, None),
            Err(failure) => (ExecuteResult::default(), Some(failure)),
        };
        let transcript = self.transcript;
        let mut take = |stage, stream| transcript.take(stage, stream);
        let deciding = result.run.as_ref().or(result.compile.as_ref());
        let (cause, error) = verdict(deciding, failure);
        let ours = matches!(
            cause,
            Cause::Infrastructure | Cause::GuestPanic | Cause::Cancelled
        );
        let stage_us = |stage: &Option<StageResult>| stage.as_ref().map_or(0, |s| s.wall_time_us);
        let timings = Timings {
            compile_us: stage_us(&result.compile),
            run_us: stage_us(&result.run),
            ..self.timings
        };
        let (version, image_digest) = match self.image {
            Some(image) => (image.version, Some(image.digest)),
            None => (None, None),
        };
        Execution {
            id: self.about.id.clone(),
            language: self.about.language.clone(),
            version,
            image_digest,
            status: if ours { Status::Error } else { Status::Done },
            cause,
            exit_code: deciding.and_then(|stage| stage.exit_code),
            signal: deciding.and_then(|stage| stage.signal),
            stdout: take(StageName::Run, Stream::Stdout),
            stderr: take(StageName::Run, Stream::Stderr),
            compile: result.compile.map(|result| CompileReport {
                result,
                stdout: take(StageName::Compile, Stream::Stdout),
                stderr: take(StageName::Compile, Stream::Stderr),
                shared: self.is_compile_shared,
            }),
            run: result.run,
            timings,
            start: self.start,
            memory_bytes: self.memory_mib << 20,
            ip: self.ip,
            network: self.network,
            artifacts: self.artifacts,
            artifacts_dropped: result
                .artifacts_dropped
                .saturating_add(self.artifacts_dropped),
            labels: self.about.labels.clone(),
            created_ms: self.about.created_ms,
            error,
        }
    }
}

fn verdict(deciding: Option<&StageResult>, failure: Option<Failure>) -> (Cause, Option<String>) {
    if let Some(failure) = failure {
        return (failure.cause, Some(failure.message));
    }
    match deciding {
        Some(stage) if stage.cause == Cause::Infrastructure => {
            let message = stage.message.clone();
            (
                stage.cause,
                Some(message.unwrap_or_else(|| "the agent could not run the program".into())),
            )
        }
        Some(stage) => (stage.cause, None),
        None => (
            Cause::Infrastructure,
            Some("the agent reported no stage".into()),
        ),
    }
}

/// The exit code as a shell reports it.
fn shell_exit_code(execution: &Execution) -> Option<i32> {
    if execution.status == Status::Error {
        return None;
    }
    if execution.cause == Cause::WallTime {
        return Some(TIMED_OUT);
    }
    execution
        .exit_code
        .or(execution.signal.map(|signal| SIGNALLED + signal))
}

/// The execution as `GET /status/{id}` shows it, without a copy of its output.
pub struct StatusView<'a> {
    /// `stdout` is empty, and `stderr` has what follows the stream's own bytes.
    pub response: StatusResponse,
    pub stdout: &'a Data,
    pub stderr: &'a Data,
}

impl<'a> StatusView<'a> {
    pub fn of(execution: &'a Execution) -> Self {
        let stderr = match &execution.compile {
            Some(compile) if execution.run.is_none() => &compile.stderr,
            _ => &execution.stderr,
        };
        let mut last = String::new();
        if let Some(error) = &execution.error {
            if stderr.0.last().is_some_and(|byte| *byte != b'\n') {
                last.push('\n');
            }
            last.push_str(error);
        }
        let response = StatusResponse {
            id: execution.id.clone(),
            status: execution.status,
            language: execution.language.clone(),
            exit_code: shell_exit_code(execution),
            stdout: String::new(),
            stderr: last,
        };
        StatusView {
            response,
            stdout: &execution.stdout,
            stderr,
        }
    }
}

/// The execution as `GET /status/{id}` shows it.
pub fn status_of(execution: &Execution) -> StatusResponse {
    let view = StatusView::of(execution);
    StatusResponse {
        stdout: view.stdout.to_text(),
        stderr: view.stderr.to_text() + &view.response.stderr,
        ..view.response
    }
}
