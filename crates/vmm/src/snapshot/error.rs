//! What can go wrong when a machine is saved or restored.

use std::fmt;
use std::io;

use super::key::Mismatch;
use super::memory::MemoryFileError;
use super::record::RecordError;
use super::working_set::WorkingSetError;
use crate::devices::StateError;
use crate::devices::vmgenid::GenerationError;

/// A part of the state, by the name that KVM's interface has for it (Linux, Documentation/virt/kvm/api.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The interface documents them.
pub enum StateKind {
    MpState,
    Regs,
    Sregs,
    Xsave,
    Xcrs,
    DebugRegs,
    Lapic,
    Msrs,
    MsrIndexList,
    VcpuEvents,
    TscKhz,
    TscDeadline,
    KvmclockCtrl,
    Clock,
    Irqchip,
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MpState => "MP_STATE",
            Self::Regs => "REGS",
            Self::Sregs => "SREGS",
            Self::Xsave => "XSAVE",
            Self::Xcrs => "XCRS",
            Self::DebugRegs => "DEBUGREGS",
            Self::Lapic => "LAPIC",
            Self::Msrs => "MSRS",
            Self::MsrIndexList => "MSR_INDEX_LIST",
            Self::VcpuEvents => "VCPU_EVENTS",
            Self::TscKhz => "TSC_KHZ",
            Self::TscDeadline => "IA32_TSC_DEADLINE",
            Self::KvmclockCtrl => "KVMCLOCK_CTRL",
            Self::Clock => "CLOCK",
            Self::Irqchip => "IRQCHIP",
        })
    }
}

/// A machine that cannot be saved or restored. A VM that a restore failed in is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// KVM refused to give a part of the state.
    #[error("KVM_GET_{kind} failed: {source}")]
    Get {
        /// Which part.
        kind: StateKind,
        /// Its error.
        source: kvm_ioctls::Error,
    },
    /// KVM refused a part of the state: it is damaged, or of another kind of host.
    #[error("KVM_SET_{kind} failed: {source}")]
    Set {
        /// Which part.
        kind: StateKind,
        /// Its error.
        source: kvm_ioctls::Error,
    },
    /// KVM refused a register's value: the guest would go on with another machine than it knows.
    #[error("KVM_SET_MSRS refused {value:#x} for the model-specific register {index:#x}")]
    Msr {
        /// Which.
        index: u32,
        /// The value that was saved.
        value: u64,
    },
    /// A device does not give or take its state.
    #[error(transparent)]
    Device(#[from] StateError),
    /// A fork has to have a generation ID of its own.
    #[error("the VM generation ID: {0}")]
    Generation(#[from] GenerationError),
    /// The snapshot is of another machine. Take a shell that fits, or build the snapshot anew.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The record is damaged or of another version. Set it aside and build the snapshot anew.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The memory is damaged, missing in part, or cannot be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryFileError),
    /// The pages that forks touch cannot be told or copied.
    #[error(transparent)]
    WorkingSet(#[from] WorkingSetError),
    /// The state has another number of vCPUs or devices than its key says.
    #[error("the record has the state of {have} {what}, not {need}")]
    Incomplete {
        /// vCPUs or devices.
        what: &'static str,
        /// How many states there are.
        have: usize,
        /// How many there have to be.
        need: usize,
    },
    /// Pause the VM first.
    #[error("cannot save a VM that runs: pause it first")]
    NotPaused,
    /// The host refused: most often its limit on open files, threads or memory.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's error.
        source: io::Error,
    },
}

impl SnapshotError {
    pub(super) fn get(kind: StateKind) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |source| Self::Get { kind, source }
    }

    pub(super) fn set(kind: StateKind) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |source| Self::Set { kind, source }
    }

    pub(crate) fn host(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}
