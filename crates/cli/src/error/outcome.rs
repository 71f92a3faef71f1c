//! Ends of an execution other than an exit.

use std::fmt;

use crate::exit;

/// The backend could not run the program to its end. Exit code 125.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// No VM, a failed agent, a command that the image lacks.
    #[error("the program could not be run: {reason}")]
    NotRun { reason: String },
    /// The guest's kernel panicked, halted or rebooted.
    #[error("the VM stopped while {subject} ran: {reason}")]
    VmStopped { subject: Subject, reason: String },
    /// With `--on-output-limit kill`.
    #[error("{subject} was killed at its output limit: raise it with --output-limit")]
    OutputLimit { subject: Subject },
    /// `cause` is `exit` and `exit_code` is absent.
    #[error("the backend reported an exit without an exit code: update clouded")]
    NoExitCode,
}

/// The stage that a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Compiler,
    Program,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Subject::Compiler => "the compiler",
            Subject::Program => "the program",
        })
    }
}

/// An end other than an exit. Printed as a note on standard error; the exit code tells it to scripts.
#[derive(Debug)]
pub enum Ending {
    /// Terminated by a signal that Cloude did not send.
    Signal {
        subject: Subject,
        /// 1 to 64; none if the backend sent no such number.
        signal: Option<u8>,
    },
    /// Killed at a limit of wall-clock or CPU time.
    TimeLimit {
        subject: Subject,
        cpu: bool,
        /// Wall-clock seconds that it ran.
        after_s: Option<f64>,
    },
    /// Killed by the guest's out-of-memory killer, or too large to load.
    Memory {
        subject: Subject,
        /// The agent's explanation.
        message: Option<String>,
    },
    /// By Ctrl-C, `cloude cancel` or a backend that shuts down.
    Cancelled,
}

impl Ending {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Ending::Signal { signal, .. } => exit::SIGNAL_BASE + signal.unwrap_or(0),
            Ending::TimeLimit { .. } => exit::TIMEOUT,
            Ending::Memory { .. } => exit::OUT_OF_MEMORY,
            Ending::Cancelled => exit::INTERRUPTED,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Signal {
                subject,
                signal: None,
            } => write!(
                f,
                "{subject} was terminated by a signal whose number the backend did not report"
            ),
            Ending::Signal {
                subject,
                signal: Some(signal),
            } => {
                write!(f, "{subject} was terminated by signal {signal}")?;
                signal_name(*signal).map_or(Ok(()), |name| write!(f, " ({name})"))
            }
            Ending::TimeLimit {
                subject,
                cpu,
                after_s,
            } => {
                let kind = if *cpu { "CPU time limit" } else { "time limit" };
                write!(f, "{subject} was killed at its {kind}")?;
                if let Some(seconds) = after_s {
                    write!(f, ", after {seconds:.1} s")?;
                }
                let option = match (subject, cpu) {
                    (Subject::Compiler, false) => "--compile-timeout",
                    (Subject::Compiler, true) => "--limit compile.cpu_time",
                    (Subject::Program, false) => "--timeout",
                    (Subject::Program, true) => "--limit cpu_time",
                };
                write!(f, ": raise it with {option}")
            }
            Ending::Memory { subject, message } => {
                match message {
                    Some(message) => write!(f, "{message}")?,
                    None => write!(f, "{subject} ran out of memory")?,
                }
                write!(f, ": give the VM more with --memory")
            }
            Ending::Cancelled => write!(f, "cancelled"),
        }
    }
}

/// Signals that programs are terminated by, by their numbers on x86-64 (signal(7)).
fn signal_name(signal: u8) -> Option<&'static str> {
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
