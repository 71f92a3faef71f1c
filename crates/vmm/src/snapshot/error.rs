//! Errors of saving and restoring a VM.

use std::fmt;
use std::io;

use super::memory::MemoryFileError;
use super::working_set::WorkingSetError;
use crate::devices::StateError;
use crate::devices::vmgenid::GenerationError;

/// A part of the state, named as in its KVM_GET_* and KVM_SET_* ioctls (Documentation/virt/kvm/api.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The KVM API documents them.
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

/// The snapshot does not fit this host or VM. Build it again, or load it where it fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot does not fit this machine: {part} saved {saved}, here {here}")]
pub struct Mismatch {
    /// The first part of the key that differs.
    pub part: &'static str,
    /// The value in the snapshot.
    pub saved: String,
    /// The value on this host.
    pub here: String,
}

impl Mismatch {
    pub(super) fn of(part: &'static str, saved: impl ToString, here: impl ToString) -> Self {
        Self {
            part,
            saved: saved.to_string(),
            here: here.to_string(),
        }
    }
}

/// A VM state that cannot be read. In every case: discard the snapshot and build it again.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VmStateError {
    /// The first 8 bytes are not the magic "CLOUDEVM".
    #[error("not a VM state file")]
    NotAStateFile,
    /// The file ends too early: its writer was interrupted, or the disk was full.
    #[error("the VM state file ends after {have} of {need} bytes")]
    Truncated {
        /// The file's length in bytes.
        have: u64,
        /// The length that the header implies, in bytes.
        need: u64,
    },
    /// Bytes follow the end of the state.
    #[error("the VM state file has {have} bytes, its header says {need}")]
    TooLong {
        /// The file's length in bytes.
        have: u64,
        /// The length that the header implies, in bytes.
        need: u64,
    },
    /// The content has changed since it was written.
    #[error("the VM state file is damaged: its SHA-256 does not match")]
    Damaged,
    /// Another version of this crate wrote the file.
    #[error("the VM state file has format version {found}, this worker reads version {supported}")]
    OtherVersion {
        /// The version in the file.
        found: u32,
        /// [`super::FORMAT_VERSION`].
        supported: u32,
    },
    /// The SHA-256 matches and the content does not parse: another build of the same version wrote it.
    #[error("the VM state file does not parse: {0}")]
    Format(#[from] postcard::Error),
}

/// A VM that cannot be saved or restored. A VM is unusable after a failed restore.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// KVM_GET_* failed.
    #[error("KVM_GET_{kind} failed: {source}")]
    Get {
        /// The part of the state.
        kind: StateKind,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// KVM_SET_* failed: the state is damaged or from another kind of host.
    #[error("KVM_SET_{kind} failed: {source}")]
    Set {
        /// The part of the state.
        kind: StateKind,
        /// KVM's error.
        source: kvm_ioctls::Error,
    },
    /// KVM refused the value of an MSR. The guest cannot run without it.
    #[error("KVM_SET_MSRS refused {value:#x} for MSR {index:#x}")]
    Msr {
        /// The MSR's index.
        index: u32,
        /// The saved value.
        value: u64,
    },
    /// A device's state cannot be saved or restored.
    #[error(transparent)]
    Device(#[from] StateError),
    /// The fork's VM generation ID could not be written or announced.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The snapshot's key differs from this VM's. Restore it into another blank VM or build it again.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The VM state is damaged or from another version. Discard the snapshot and build it again.
    #[error(transparent)]
    VmState(#[from] VmStateError),
    /// The memory file is damaged, incomplete, or cannot be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryFileError),
    /// The working set cannot be read, or its pages cannot be copied.
    #[error(transparent)]
    WorkingSet(#[from] WorkingSetError),
    /// The number of vCPU or device states, or of XSAVE words, does not fit the VM.
    #[error("the VM state has {have} {what}, this VM needs {need}")]
    Incomplete {
        /// The counted part.
        what: &'static str,
        /// The number in the VM state.
        have: usize,
        /// The number that this VM has.
        need: usize,
    },
    /// Saving needs [`crate::vm::VmHandle::pause`] first.
    #[error("cannot save a running VM: pause it first")]
    NotPaused,
    /// The host refused: most often its limit on open files, threads or memory.
    #[error("cannot {what}: {source}")]
    Host {
        /// The operation that failed.
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
