//! The text of an [`ExitReason`].

use std::fmt;

use super::ExitReason;
use crate::jail::syscall_name;

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => write!(f, "the guest powered off"),
            Self::Reset => write!(f, "the guest requested a reset"),
            Self::Panic => write!(f, "the guest's kernel panicked"),
            Self::TripleFault => write!(f, "a vCPU triple-faulted"),
            Self::InternalError {
                suberror,
                data,
                rip,
                instruction,
            } => {
                write!(f, "KVM internal error {suberror} at {rip:#x}")?;
                if !instruction.is_empty() {
                    write!(f, ", instruction {instruction:02x?}")?;
                }
                write!(f, ", data {data:#x?}")?;
                if *suberror == EMULATION {
                    write!(
                        f,
                        "; this KVM cannot emulate the instruction: run under a KVM with hardware support"
                    )?;
                }
                Ok(())
            }
            Self::FailEntry { reason } => {
                write!(
                    f,
                    "KVM_EXIT_FAIL_ENTRY: the vCPU could not be entered (hardware_entry_failure_reason {reason:#x})"
                )
            }
            Self::Unhandled { exit } => write!(f, "unhandled KVM exit: {exit}"),
            Self::WorkerPanic { message } => write!(f, "cloude-vmm panicked: {message}"),
            Self::ForbiddenSyscall { number } => write!(
                f,
                "cloude-vmm made the system call {} ({number}), which its seccomp filter forbids, and was killed",
                syscall_name((*number).into())
            ),
            Self::Stopped => write!(f, "the VM was stopped"),
        }
    }
}

/// KVM_INTERNAL_ERROR_EMULATION.
const EMULATION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulation_failure_names_instruction_and_way_out() {
        let reason = ExitReason::InternalError {
            suberror: EMULATION,
            data: vec![],
            rip: 0x1000,
            instruction: vec![0xf0, 0x48, 0x0f],
        };
        let text = reason.to_string();
        assert!(
            text.contains("[f0, 48, 0f]") && text.contains("hardware"),
            "{text}"
        );
    }
}
