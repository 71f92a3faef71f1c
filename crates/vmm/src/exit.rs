//! [`ExitSignal`]: reports the end of a VM from a vCPU or device to the VM's owner.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::control::ExitReason;
use crate::sync::lock;

/// Holds the first exit reason of a VM and wakes its owner. Clones share it.
#[derive(Clone, Debug)]
pub struct ExitSignal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    reason: Mutex<Option<ExitReason>>,
    event: EventFd,
}

impl ExitSignal {
    /// A signal that is not raised yet.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            reason: Mutex::new(None),
            event: EventFd::new(EFD_NONBLOCK)?,
        })))
    }

    /// Ends the VM for `reason`. Later reasons are ignored: they are consequences of the first.
    pub fn raise(&self, reason: ExitReason) {
        let mut slot = lock(&self.0.reason);
        if slot.is_none() {
            *slot = Some(reason);
            // The counter cannot overflow: it is written once.
            let _ = self.0.event.write(1);
        }
    }

    /// The reason if the VM has ended.
    pub fn reason(&self) -> Option<ExitReason> {
        lock(&self.0.reason).clone()
    }

    /// True if the VM has ended.
    pub fn is_raised(&self) -> bool {
        lock(&self.0.reason).is_some()
    }
}

/// The eventfd stays readable once the VM has ended.
impl AsRawFd for ExitSignal {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_reason_is_kept() {
        let signal = ExitSignal::new().unwrap();
        assert_eq!(signal.reason(), None);
        signal.raise(ExitReason::Panic);
        signal.clone().raise(ExitReason::Reset);
        assert_eq!(signal.reason(), Some(ExitReason::Panic));
        assert!(signal.is_raised());
    }
}
