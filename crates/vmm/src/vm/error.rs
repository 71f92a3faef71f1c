//! What can go wrong when a VM is made.

use std::io;

use crate::arch::x86_64::boot::BootError;
use crate::arch::x86_64::cpuid::CpuModelError;
use crate::bus::Overlap;
use crate::capabilities::CapabilityError;
use crate::devices::vmgenid::GenerationError;
use crate::memory::MemoryError;
use crate::snapshot::SnapshotError;

/// A VM that cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// Ask for 1 to [`crate::vm::MAX_VCPUS`].
    #[error("{vcpus} vCPUs are not possible; ask for 1 to {max}", max = crate::vm::MAX_VCPUS)]
    Vcpus {
        /// What was asked for.
        vcpus: u8,
    },
    /// Ask for another amount of memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Give another kernel, initramfs or command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Update the host's kernel.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// Choose another CPU baseline.
    #[error(transparent)]
    Cpu(#[from] CpuModelError),
    /// KVM refused. On a host without hardware virtualization some requests are not possible;
    /// `cloude-vmm probe` says what kind of host it is.
    #[error("{ioctl} failed: {source}")]
    Kvm {
        /// The ioctl, and the device where there are several.
        ioctl: &'static str,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// KVM refused a register that every kernel needs.
    #[error("KVM_SET_MSRS refused the model-specific register {index:#x}")]
    Msr {
        /// The register's number.
        index: u32,
    },
    /// The host refused: most often its limit on open files, threads or memory.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// The guest's generation ID cannot be made.
    #[error("the VM generation ID: {0}")]
    Generation(#[from] GenerationError),
    /// The event loop failed.
    #[error("the event loop failed: {0}")]
    EventLoop(event_manager::Error),
    /// Attach fewer devices: the I/O APIC has no more interrupts.
    #[error("the machine has no interrupt left for another device")]
    TooManyDevices,
    /// Two devices want the same addresses.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// The VM has address space and no memory: make a [`super::Shell`] of it, and give that a template.
    #[error("cannot run a blank VM: restore a snapshot first")]
    Reserved,
    /// KVM does not tell the state that a snapshot is made of.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A VM is loaded and started once.
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
