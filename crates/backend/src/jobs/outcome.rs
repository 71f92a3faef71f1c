//! From what the guest measured to what the client gets.

use cloude_engine::Failure;
use cloude_protocol::Data;
use cloude_protocol::agent::{Cause, ExecuteResult, StageName, StageResult, Stream};
use cloude_protocol::api::{CompileReport, Execution, StartKind, Status, StatusResponse, Timings};

use super::transcript::Transcript;
use cloude_engine::images::ReadyImage;

/// `timeout(1)` exits so, and so does a program that met its wall-clock limit.
const TIMED_OUT: i32 = 124;
/// A shell reports signal n as 128 + n.
const SIGNALLED: i32 = 128;

/// What is known when an execution ends.
pub struct Ending<'a> {
    /// Its id.
    pub id: &'a str,
    /// The language's own name.
    pub language: &'a str,
    /// Its image, if there was one.
    pub image: Option<ReadyImage>,
    /// What the agent said last, or why it said nothing.
    pub result: Result<ExecuteResult, Failure>,
    /// What it said before.
    pub transcript: &'a mut Transcript,
    /// All but the stages' own.
    pub timings: Timings,
    /// The VM's address.
    pub ip: Option<std::net::Ipv4Addr>,
    /// How the VM came to be.
    pub start: StartKind,
    /// Its memory in MiB; 0 if it is not known.
    pub memory_mib: u64,
}

impl Ending<'_> {
    /// The whole execution.
    pub fn execution(self) -> Execution {
        let (result, death) = match self.result {
            Ok(result) => (result, None),
            Err(death) => (
                ExecuteResult {
                    compile: None,
                    run: None,
                },
                Some(death),
            ),
        };
        let transcript = self.transcript;
        let mut take = |stage, stream| transcript.take(stage, stream);
        let deciding = result.run.as_ref().or(result.compile.as_ref());
        let (cause, error) = verdict(deciding, death);
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
            id: self.id.to_owned(),
            language: self.language.to_owned(),
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
            }),
            run: result.run,
            timings,
            start: self.start,
            memory_mib: self.memory_mib,
            ip: self.ip,
            error,
        }
    }
}

fn verdict(deciding: Option<&StageResult>, death: Option<Failure>) -> (Cause, Option<String>) {
    if let Some(death) = death {
        return (death.cause, Some(death.message));
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

/// The exit code that a shell would show.
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

/// As `GET /status/{id}` shows it.
pub fn status_of(execution: &Execution) -> StatusResponse {
    let mut stderr = execution.stderr.to_text();
    if execution.run.is_none()
        && let Some(compile) = &execution.compile
    {
        stderr = compile.stderr.to_text();
    }
    if let Some(error) = &execution.error {
        if !stderr.is_empty() && !stderr.ends_with('\n') {
            stderr.push('\n');
        }
        stderr.push_str(error);
    }
    StatusResponse {
        id: execution.id.clone(),
        status: execution.status,
        language: execution.language.clone(),
        exit_code: shell_exit_code(execution),
        stdout: execution.stdout.to_text(),
        stderr,
    }
}

/// For the end of a stream, which has sent the output already.
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
        error: execution.error.clone(),
        ..*execution
    }
}
