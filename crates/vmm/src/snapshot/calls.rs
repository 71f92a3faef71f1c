//! The number of system calls that a restore makes.

/// Counters for [`crate::control::RestoreCosts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCount {
    /// KVM ioctls.
    pub ioctls: u32,
    /// System calls that map memory.
    pub memory: u32,
}

impl CallCount {
    /// Counts one ioctl and makes it.
    pub(super) fn ioctl<T>(&mut self, call: impl FnOnce() -> T) -> T {
        self.ioctls += 1;
        call()
    }
}
