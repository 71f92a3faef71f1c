//! What a person and a shell are told of how an execution ended.

use cloude_protocol::agent::{Cause, StageName, StageResult, Stream};
use cloude_protocol::api::{Execution, Status};

use crate::error::{CliError, INTERRUPTED, SIGNAL_BASE, TIMEOUT};
use crate::terminal;

/// Says on standard error what the program's output does not, and gives the exit code.
pub fn report(execution: &Execution) -> Result<u8, CliError> {
    let error = || {
        execution
            .error
            .clone()
            .unwrap_or_else(|| "the backend gave no reason".to_owned())
    };
    if execution.status == Status::Error
        && !matches!(execution.cause, Cause::GuestPanic | Cause::Cancelled)
    {
        return Err(CliError::Infrastructure(format!(
            "the program could not be run: {}",
            error()
        )));
    }
    let compiling = execution.run.is_none() && execution.compile.is_some();
    let what = if compiling {
        "the compiler"
    } else {
        "the program"
    };
    match execution.cause {
        Cause::Exit => match execution.exit_code {
            Some(code) => Ok((code & 0xff) as u8),
            None => Err(CliError::Infrastructure(
                "the backend says that the program exited, and not with which code".to_owned(),
            )),
        },
        Cause::Signal => Ok(signal(execution, what)),
        Cause::WallTime | Cause::CpuTime => {
            terminal::note(&timeout(execution, compiling, what));
            Ok(TIMEOUT)
        }
        Cause::Memory => {
            let deciding = execution.run.as_ref();
            let reason = match deciding.and_then(|stage| stage.message.as_ref()) {
                Some(message) => message.clone(),
                None => format!("{what} ran out of memory"),
            };
            terminal::note(&format!("{reason}: give the VM more with --memory"));
            // The out-of-memory killer's signal is SIGKILL.
            Ok(SIGNAL_BASE + 9)
        }
        Cause::Cancelled => {
            terminal::note("cancelled");
            Ok(INTERRUPTED)
        }
        Cause::OutputLimit => Err(CliError::Infrastructure(format!(
            "{what} was stopped at the output limit: raise it with --output-limit"
        ))),
        Cause::GuestPanic => Err(CliError::Infrastructure(format!(
            "the VM died under {what}: {}",
            error()
        ))),
        Cause::Infrastructure => Err(CliError::Infrastructure(format!(
            "the program could not be run: {}",
            error()
        ))),
    }
}

/// Says where output is missing, at the place where it is.
pub fn dropped(stage: StageName, stream: Stream, bytes: u64) {
    let stream = match stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
    };
    let of = match stage {
        StageName::Compile => "the compiler's ",
        StageName::Run => "",
    };
    terminal::note(&format!(
        "{bytes} bytes of {of}{stream} were left out here: raise --output-limit to keep them"
    ));
}

fn signal(execution: &Execution, what: &str) -> u8 {
    // Linux has signals 1 to 64.
    let signal = execution
        .signal
        .and_then(|signal| u8::try_from(signal).ok())
        .filter(|signal| (1..=64).contains(signal));
    let Some(signal) = signal else {
        terminal::note(&format!("{what} was ended by an unknown signal"));
        return SIGNAL_BASE;
    };
    let name = name(signal).map_or(String::new(), |name| format!(" ({name})"));
    terminal::note(&format!("{what} was ended by signal {signal}{name}"));
    SIGNAL_BASE + signal
}

fn timeout(execution: &Execution, compiling: bool, what: &str) -> String {
    let stage: Option<&StageResult> = if compiling {
        execution.compile.as_ref().map(|report| &report.result)
    } else {
        execution.run.as_ref()
    };
    let option = if compiling {
        "--compile-timeout"
    } else {
        "--timeout"
    };
    let after = stage.map_or(String::new(), |stage| {
        format!(" after {:.1} s", stage.wall_time_us as f64 / 1e6)
    });
    let limit = if execution.cause == Cause::CpuTime {
        "CPU time"
    } else {
        "time"
    };
    format!("{what} was stopped{after}, at the {limit} limit: raise it with {option}")
}

/// Signals that a program dies of, by their numbers on x86_64 (signal(7)).
fn name(signal: u8) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL, illegal instruction",
        5 => "SIGTRAP",
        6 => "SIGABRT, aborted",
        7 => "SIGBUS, bus error",
        8 => "SIGFPE, arithmetic exception",
        9 => "SIGKILL, killed",
        10 => "SIGUSR1",
        11 => "SIGSEGV, segmentation fault",
        12 => "SIGUSR2",
        13 => "SIGPIPE, broken pipe",
        14 => "SIGALRM",
        15 => "SIGTERM, terminated",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS, bad system call",
        _ => return None,
    })
}
