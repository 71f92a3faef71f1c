//! `kvm_run.immediate_exit`: makes the next KVM_RUN return EINTR at once.

use kvm_ioctls::VcpuFd;

/// The `immediate_exit` byte in the `struct kvm_run` that a vCPU shares with the kernel.
///
/// A kick writes the byte while the vCPU's thread is inside `VcpuFd::run`, which makes a `&mut kvm_run` to
/// decode the exit. A reference to the byte, also to an atomic one, would alias it. A volatile write through a
/// raw pointer makes no reference and cannot be left out or merged. No code reads the byte; KVM does.
pub(super) struct ImmediateExit(*mut u8);

// SAFETY: the pointer leads into the mapping of the `VcpuFd` beside which this value is stored and dropped.
// Every thread only writes the byte, as a whole; the kernel, which shares the page, is its reader.
unsafe impl Send for ImmediateExit {}
// SAFETY: as for `Send`.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    /// Valid as long as `fd` is open.
    pub fn new(fd: &mut VcpuFd) -> Self {
        Self(&raw mut fd.get_kvm_run().immediate_exit)
    }

    /// 1 makes KVM_RUN return before it enters the guest, 0 lets it enter.
    ///
    /// The vCPU's thread writes 0 before it reads its target, a kick writes 1 after it has set the target: the
    /// target's lock orders the two where it matters.
    pub fn set(&self, value: u8) {
        // SAFETY: the pointer is valid (see above), a byte is always aligned, and one store writes it.
        unsafe { self.0.write_volatile(value) };
    }
}
