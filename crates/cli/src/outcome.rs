//! Turns the result of an execution into a note on standard error and an exit code.

use cloude_protocol::agent::{Cause, StageName, Stream};
use cloude_protocol::api::{Execution, Status};

use crate::error::{Ending, ExecutionError, Subject};
use crate::terminal;

/// Returns the exit code. An end other than an exit is noted on standard error.
pub fn report(execution: &Execution) -> Result<u8, ExecutionError> {
    let reason = || {
        let reason = execution.error.clone();
        reason.unwrap_or_else(|| "the backend gave no reason; look into its log".to_owned())
    };
    if execution.status == Status::Error
        && !matches!(execution.cause, Cause::GuestPanic | Cause::Cancelled)
    {
        return Err(ExecutionError::NotRun { reason: reason() });
    }
    let subject = match (&execution.compile, &execution.run) {
        (Some(_), None) => Subject::Compiler,
        _ => Subject::Program,
    };
    if matches!(
        execution.cause,
        Cause::Exit | Cause::Signal | Cause::WallTime
    ) && let Some(message) = execution.run.as_ref().and_then(|run| run.message.as_ref())
    {
        terminal::note(message);
    }
    match execution.cause {
        Cause::Exit => match execution.exit_code {
            Some(code) => Ok((code & 0xff) as u8),
            None => Err(ExecutionError::NoExitCode),
        },
        Cause::Signal => Ok(note(&Ending::Signal {
            subject,
            signal: execution.signal.and_then(linux_signal),
        })),
        Cause::WallTime | Cause::CpuTime => Ok(note(&Ending::TimeLimit {
            subject,
            cpu: execution.cause == Cause::CpuTime,
            after_s: wall_time_s(execution, subject),
        })),
        Cause::Memory => {
            let run = execution.run.as_ref();
            let message = run.and_then(|stage| stage.message.clone());
            Ok(note(&Ending::Memory { subject, message }))
        }
        Cause::Disk | Cause::Processes => {
            terminal::note(match execution.cause {
                Cause::Disk => {
                    "a write was refused at the limit of the disk or of a file's size: raise it with --limit disk or --limit file_size"
                }
                _ => {
                    "a new process or thread was refused at the limit of processes: raise it with --limit processes"
                }
            });
            match (execution.exit_code, execution.signal) {
                (Some(code), _) => Ok((code & 0xff) as u8),
                (None, Some(signal)) => Ok((128 + (signal & 0x7f)) as u8),
                (None, None) => Err(ExecutionError::NoExitCode),
            }
        }
        Cause::Cancelled => Ok(note(&Ending::Cancelled)),
        Cause::OutputLimit => Err(ExecutionError::OutputLimit { subject }),
        Cause::GuestPanic => Err(ExecutionError::VmStopped {
            subject,
            reason: reason(),
        }),
        Cause::Infrastructure => Err(ExecutionError::NotRun { reason: reason() }),
    }
}

fn note(ending: &Ending) -> u8 {
    terminal::note(&ending.to_string());
    ending.exit_code()
}

/// Notes on standard error that output is missing, in the place where it is missing.
pub fn dropped(stage: StageName, stream: Stream, bytes: u64) {
    note_dropped(stage, stream, bytes, "here");
}

/// Notes on standard error that output that was printed before lacks its middle.
pub fn dropped_in(stage: StageName, stream: Stream, bytes: u64) {
    note_dropped(stage, stream, bytes, "in its middle");
}

fn note_dropped(stage: StageName, stream: Stream, bytes: u64, place: &str) {
    let stream = match stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
    };
    let owner = match stage {
        StageName::Compile => "the compiler's ",
        StageName::Run => "",
    };
    terminal::note(&format!(
        "{bytes} bytes of {owner}{stream} were dropped {place}, past the output limit: raise it with --output-limit"
    ));
}

/// Notes on standard error that traffic was denied: its program sees only time-outs.
pub fn denied(execution: &Execution) {
    let Some(report) = &execution.network else {
        return;
    };
    let Some(first) = report.denied.first() else {
        return;
    };
    let packets: u64 = report.denied.iter().map(|denied| denied.times).sum();
    let others = match report.denied.len() - 1 {
        0 => String::new(),
        1 => " and one more destination".to_owned(),
        count => format!(" and {count} more destinations"),
    };
    terminal::note(&format!(
        "the network denied {} packets, to {first}{others}: --json lists them",
        packets + report.denied_others
    ));
}

/// Linux has signals 1 to 64.
fn linux_signal(signal: i32) -> Option<u8> {
    u8::try_from(signal)
        .ok()
        .filter(|signal| (1..=64).contains(signal))
}

fn wall_time_s(execution: &Execution, subject: Subject) -> Option<f64> {
    let stage = match subject {
        Subject::Compiler => execution.compile.as_ref().map(|report| &report.result),
        Subject::Program => execution.run.as_ref(),
    };
    stage.map(|stage| stage.wall_time_us as f64 / 1e6)
}
