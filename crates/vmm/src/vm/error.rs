//! Errors of creating and running a VM.

use std::io;

use crate::arch::x86_64::boot::BootError;
use crate::arch::x86_64::cpuid::CpuModelError;
use crate::bus::Overlap;
use crate::capabilities::CapabilityError;
use crate::devices::vmgenid::GenerationError;
use crate::memory::MemoryError;
use crate::snapshot::SnapshotError;

/// A VM that cannot be created or run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// Use 1 to [`crate::vm::MAX_VCPUS`].
    #[error("{vcpus} vCPUs are not possible; use 1 to {max}", max = crate::vm::MAX_VCPUS)]
    Vcpus {
        /// The requested number.
        vcpus: u8,
    },
    /// Use another memory size.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Use another kernel, initramfs or command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Update the host's kernel.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// Choose another CPU baseline.
    #[error(transparent)]
    Cpu(#[from] CpuModelError),
    /// An ioctl failed. A PVM host does not support all of them: see `cloude-vmm probe`.
    #[error("{ioctl} failed: {source}")]
    Kvm {
        /// The ioctl, and the device if there are several.
        ioctl: &'static str,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// KVM refused an MSR that every kernel needs.
    #[error("KVM_SET_MSRS refused MSR {index:#x}")]
    Msr {
        /// The MSR's index.
        index: u32,
    },
    /// A system call failed: most often RLIMIT_NOFILE, a limit on threads, or memory.
    #[error("cannot {what}: {source}")]
    Host {
        /// The operation that failed.
        what: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// The VM generation ID could not be written.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// epoll failed.
    #[error("the event loop failed: {0}")]
    EventLoop(event_manager::Error),
    /// Attach fewer devices: all GSIs for devices are in use.
    #[error("no GSI of the I/O APIC is left for another virtio device")]
    TooManyDevices,
    /// Two devices have overlapping addresses.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// The VM has reserved address space and no memory: use [`super::BlankVm::restore`].
    #[error("cannot run a blank VM: restore a snapshot first")]
    Reserved,
    /// Reading or restoring state failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A VM can be loaded and started only once.
    #[error("the VM is already started")]
    Started,
}

impl VmError {
    pub(super) fn kvm(ioctl: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { ioctl, source }
    }

    pub(crate) fn host(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}
