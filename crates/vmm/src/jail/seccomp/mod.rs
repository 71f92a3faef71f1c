//! The system-call filters of a worker.
//!
//! Three lists, each a part of the one before in what it allows to the event loop's thread: [`lists::SETUP`] from the
//! jail to the end of a boot or restore, [`lists::EVENT_LOOP`] afterwards. A vCPU's thread runs under
//! [`lists::SETUP`] and [`lists::VCPU`] from its first instruction on. A filter can only be added, so the kernel
//! evaluates all of a thread's filters and takes the strictest answer.
//!
//! A call that is not listed raises SIGSYS. [`report`] tells the host its number and ends the process. A call of
//! another architecture (int 0x80) kills the process without a report.

mod calls;
mod filter;
mod ioctls;
mod lists;
mod report;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use seccompiler::BpfProgram;

pub use report::FORBIDDEN_EXIT_CODE;

/// The filters to come, once the first one is installed.
static NEXT: OnceLock<Next> = OnceLock::new();

struct Next {
    event_loop: BpfProgram,
    vcpu: BpfProgram,
}

/// Installs the handler of SIGSYS and the first filter. The process must have one thread.
pub(super) fn start(control: BorrowedFd<'_>) -> io::Result<()> {
    let setup = filter::allow_only(lists::SETUP)?;
    let clone3 = filter::refuse_clone3()?;
    let next = Next {
        event_loop: filter::allow_only(lists::EVENT_LOOP)?,
        vcpu: filter::allow_only(lists::VCPU)?,
    };
    report::install(control)?;
    filter::apply(&clone3)?;
    filter::apply(&setup)?;
    let _ = NEXT.set(next);
    Ok(())
}

/// Narrows the calling thread to what a vCPU needs. Does nothing in a process without the filter of [`super::enter`].
pub fn narrow_vcpu() -> io::Result<()> {
    NEXT.get().map_or(Ok(()), |next| filter::apply(&next.vcpu))
}

/// Narrows the calling thread to what the event loop needs once the VM is booted or restored. Does nothing in a
/// process without the filter of [`super::enter`].
pub fn narrow_event_loop() -> io::Result<()> {
    NEXT.get()
        .map_or(Ok(()), |next| filter::apply(&next.event_loop))
}
