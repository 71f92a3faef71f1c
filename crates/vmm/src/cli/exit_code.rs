//! Exit codes of `cloude-vmm run`.

use cloude_vmm::control::ExitReason;
use cloude_vmm::jail::FORBIDDEN_EXIT_CODE;
use cloude_vmm::panics;

/// The exit codes in `run --help`.
pub const HELP: &str = "\
Exit codes:
    0  the guest powered off
    1  the VM could not be created or run
    2  the command line is wrong
   10  the guest requested a reset
   11  the guest's kernel panicked
   13  a vCPU triple-faulted
   14  KVM internal error
   15  KVM_EXIT_FAIL_ENTRY: a vCPU could not be entered
   16  unhandled KVM exit
   66  cannot open a file
   69  no usable KVM
   70  cloude-vmm panicked, which is a bug
  130  ended by Ctrl-A x or a signal";

/// The VM could not be created or run.
pub const FAILED: u8 = 1;
/// The command line is wrong: the code that clap uses.
pub const USAGE: u8 = 2;
/// A file could not be opened (`EX_NOINPUT` of sysexits.h).
pub const NO_INPUT: u8 = 66;
/// There is no usable KVM (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;

/// The exit code for an exit reason.
pub fn of(reason: &ExitReason) -> u8 {
    match reason {
        ExitReason::PowerOff => 0,
        ExitReason::Reset => 10,
        ExitReason::Panic => 11,
        ExitReason::TripleFault => 13,
        ExitReason::InternalError { .. } => 14,
        ExitReason::FailEntry { .. } => 15,
        ExitReason::Unhandled { .. } => 16,
        ExitReason::WorkerPanic { .. } => panics::EXIT_CODE,
        ExitReason::ForbiddenSyscall { .. } => FORBIDDEN_EXIT_CODE,
        ExitReason::Stopped => 130,
    }
}
