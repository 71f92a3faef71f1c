//! The end of a stage in the words of isolate(1), which Piston and Judge0 show.

use cloude_protocol::agent::{Cause, StageResult};
use nix::sys::signal::Signal;

/// How a stage ended.
pub struct End {
    pub status: Option<&'static str>,
    pub code: Option<i32>,
    pub signal: Option<&'static str>,
    pub message: Option<String>,
}

impl End {
    /// The end of a stage.
    pub fn of(result: &StageResult) -> Self {
        let killed = |status, message: &str| End {
            status: Some(status),
            code: None,
            signal: Some("SIGKILL"),
            message: Some(message.to_owned()),
        };
        match result.cause {
            Cause::WallTime => killed("TO", "Time limit exceeded (wall clock)"),
            Cause::CpuTime => killed("TO", "Time limit exceeded"),
            // The stream that lost bytes is the one that reached the limit.
            Cause::OutputLimit if result.stdout_dropped == 0 && result.stderr_dropped > 0 => {
                killed("EL", "stderr length exceeded")
            }
            Cause::OutputLimit => killed("OL", "stdout length exceeded"),
            Cause::GuestPanic | Cause::Cancelled | Cause::Infrastructure => {
                let message = result.message.as_deref();
                killed("XX", message.unwrap_or("the program could not be run"))
            }
            Cause::Exit | Cause::Signal | Cause::Memory | Cause::Disk | Cause::Processes => {
                End::of_program(result)
            }
        }
    }

    /// A program that ended by itself, or was killed for its memory.
    fn of_program(result: &StageResult) -> Self {
        let reason = match result.cause {
            Cause::Memory => ": out of memory",
            Cause::Disk => ": the limit of the disk or of a file's size is reached",
            Cause::Processes => ": the limit of processes is reached",
            _ => "",
        };
        let (code, signal) = (result.exit_code, result.signal);
        let (status, message) = match (code, signal) {
            (Some(0), None) => (None, None),
            (Some(code), None) => (Some("RE"), Some(format!("Exited with error status {code}"))),
            (_, signal) => {
                let signal = signal.unwrap_or(libc::SIGKILL);
                (Some("SG"), Some(format!("Caught fatal signal {signal}")))
            }
        };
        End {
            status,
            code: code.filter(|_| signal.is_none()),
            signal: match (code, signal) {
                (Some(_), None) => None,
                (_, signal) => signal_name(signal.unwrap_or(libc::SIGKILL)),
            },
            message: message.map(|message| message + reason),
        }
    }
}

/// The name of a signal of signal(7); none for a real-time signal.
fn signal_name(number: i32) -> Option<&'static str> {
    Signal::try_from(number).ok().map(Signal::as_str)
}
