//! How the end of a VM travels from wherever it is noticed to the VM's owner.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::control::ExitReason;
use crate::sync::lock;

/// Takes the first reason for which a VM ended, and wakes its owner. Clones share it.
#[derive(Clone, Debug)]
pub struct ExitSignal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    reason: Mutex<Option<ExitReason>>,
    event: EventFd,
}

impl ExitSignal {
    /// A signal that has not been raised.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            reason: Mutex::new(None),
            event: EventFd::new(EFD_NONBLOCK)?,
        })))
    }

    /// The VM ended. Only the first reason counts: what follows a death is its consequence.
    pub fn raise(&self, reason: ExitReason) {
        let mut slot = lock(&self.0.reason);
        if slot.is_none() {
            *slot = Some(reason);
            // The counter cannot overflow: it is written once.
            let _ = self.0.event.write(1);
        }
    }

    /// Why the VM ended, if it did.
    pub fn reason(&self) -> Option<ExitReason> {
        lock(&self.0.reason).clone()
    }

    /// Whether the VM ended.
    pub fn is_raised(&self) -> bool {
        lock(&self.0.reason).is_some()
    }
}

/// Readable once the VM ended, and from then on.
impl AsRawFd for ExitSignal {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let signal = ExitSignal::new().unwrap();
        assert_eq!(signal.reason(), None);
        signal.raise(ExitReason::Panic);
        signal.clone().raise(ExitReason::Reset);
        assert_eq!(signal.reason(), Some(ExitReason::Panic));
        assert!(signal.is_raised());
    }
}
