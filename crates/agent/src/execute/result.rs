//! Makes a stage's result of its measurements.

use std::path::Path;

use cloude_protocol::agent::{Cause, StageResult};

use super::cgroup::{self, Cgroup};
use super::clock::Reached;
use super::disk::DiskLimits;
use super::report::Step;
use super::stage::Observed;
use super::{command, elf};

/// True for a compile stage after which the program is run.
pub fn succeeded(result: &StageResult) -> bool {
    result.cause == Cause::Exit && result.exit_code == Some(0)
}

/// The result of a stage whose command was not executed.
pub fn infrastructure(message: String) -> StageResult {
    StageResult {
        cause: Cause::Infrastructure,
        exit_code: None,
        signal: None,
        wall_time_us: 0,
        cpu_time_us: 0,
        peak_memory_bytes: 0,
        stdout_bytes: 0,
        stdout_dropped: 0,
        stderr_bytes: 0,
        stderr_dropped: 0,
        warm: false,
        message: Some(message),
    }
}

/// The result of a stage whose command was executed.
pub fn from_observed(
    observed: &Observed,
    cgroup: Option<&Cgroup>,
    oom_killed: bool,
    disk: &DiskLimits<'_>,
) -> StageResult {
    let exit_code = observed
        .status
        .filter(|status| libc::WIFEXITED(*status))
        .map(|status| libc::WEXITSTATUS(status));
    let signal = observed
        .status
        .filter(|status| libc::WIFSIGNALED(*status))
        .map(|status| libc::WTERMSIG(status));
    let (mut cause, mut message) = cause(observed, exit_code, signal, oom_killed);
    let failed = matches!(cause, Cause::Exit | Cause::Signal) && exit_code != Some(0);
    let refused = match (cause, exit_code) {
        (Cause::Exit, Some(0)) => None,
        _ => cgroup.and_then(refused_forks),
    };
    if failed {
        if signal == Some(libc::SIGXFSZ) {
            cause = Cause::Disk;
        } else if refused.is_some() {
            cause = Cause::Processes;
        } else if let Some(full) = disk.reached() {
            cause = Cause::Disk;
            message = Some(full);
        }
    }
    message = message.or(refused);
    let [
        (stdout_bytes, stdout_dropped),
        (stderr_bytes, stderr_dropped),
    ] = observed.streams;
    StageResult {
        cause,
        exit_code,
        signal,
        wall_time_us: observed.wall_time.as_micros() as u64,
        cpu_time_us: cgroup
            .and_then(Cgroup::cpu_time_us)
            .unwrap_or(observed.cpu_time_us),
        peak_memory_bytes: cgroup
            .and_then(Cgroup::peak_memory_bytes)
            .unwrap_or(observed.max_rss_bytes),
        stdout_bytes,
        stdout_dropped,
        stderr_bytes,
        stderr_dropped,
        warm: false,
        message,
    }
}

fn cause(
    observed: &Observed,
    exit_code: Option<i32>,
    signal: Option<i32>,
    oom_killed: bool,
) -> (Cause, Option<String>) {
    if let Some(reached) = observed.reached {
        let cause = match reached {
            Reached::WallTime => Cause::WallTime,
            Reached::CpuTime => Cause::CpuTime,
            Reached::Output => Cause::OutputLimit,
        };
        return (cause, None);
    }
    if exit_code.is_some() {
        return (Cause::Exit, None);
    }
    // The out-of-memory killer sends SIGKILL.
    if oom_killed && signal.is_none_or(|signal| signal == libc::SIGKILL) {
        return (Cause::Memory, None);
    }
    match signal {
        Some(_) => (Cause::Signal, None),
        None => (Cause::Cancelled, Some("the client disconnected".into())),
    }
}

/// A program rarely says why it cannot make processes or threads: EAGAIN has several reasons.
fn refused_forks(cgroup: &Cgroup) -> Option<String> {
    let (refused, limit) = cgroup.refused_forks()?;
    let more = match limit < cgroup::process_limit() {
        true => "raise `processes` for more",
        false => "more with more memory",
    };
    Some(format!(
        "{refused} processes or threads were refused: {limit} at once are allowed, {more}"
    ))
}

/// Recognizes a `program` that is larger than the guest's memory: sets the cause to `memory`.
///
/// Once `execve` has replaced the old program it cannot return an error any more: the kernel sends SIGSEGV
/// instead (`bprm_execve`, fs/exec.c). It does so for a data segment larger than all memory, which it never maps
/// (`__vm_enough_memory`, mm/util.c).
pub fn explain_failed_load(result: &mut StageResult, program: &Path) {
    if result.cause != Cause::Signal || result.signal != Some(libc::SIGSEGV) {
        return;
    }
    if let Some((wanted, total)) = elf::largest_data_segment(program).zip(cgroup::total_memory())
        && wanted > total
    {
        result.cause = Cause::Memory;
        result.message = Some(format!(
            "{} cannot be loaded: its static data has {} MiB and the VM has {} MiB of memory",
            program.display(),
            wanted >> 20,
            total >> 20
        ));
    }
}

/// The message for a step before `execve` that failed.
pub fn failed_step(step: Option<Step>, errno: i32, program: &Path, working_dir: &Path) -> String {
    match step {
        Some(Step::Exec) => command::exec_error(program.as_os_str(), working_dir, errno),
        Some(Step::WorkingDir) => {
            format!(
                "cannot enter the working directory {}: {}",
                working_dir.display(),
                system(errno)
            )
        }
        Some(step) => format!("cannot {}: {}", step.describe(), system(errno)),
        None => format!("cannot start the program: {}", system(errno)),
    }
}

/// The message for a `clone3` that failed.
pub fn clone_failed(errno: i32) -> String {
    format!("clone3 of the stage's namespaces failed: {}", system(errno))
}

/// `errno` with its text.
fn system(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}
