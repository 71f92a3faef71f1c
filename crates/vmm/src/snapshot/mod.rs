//! Snapshots: the state of a VM and its memory, in two files.
//!
//! A [`Template`] is a decoded snapshot. Any number of forks can be restored from it, each with the memory mapped
//! copy-on-write: [`crate::vm::BlankVm`].
//!
//! State is saved while vCPUs and devices are paused. `docs/snapshots.md` lists the order of a restore and the reason
//! for each place; [`crate::vm::BlankVm::restore`] and [`VcpuState::restore`] implement it.

mod blob;
mod calls;
mod error;
mod key;
mod lapic_timer;
mod machine_state;
mod memory;
mod msrs;

mod template;
mod tsc;
mod vcpu_state;
mod vm_state;
mod working_set;
mod xsave;

pub use calls::CallCount;
pub use error::{Mismatch, SnapshotError, StateKind, VmStateError};
pub use key::{CpuKey, Key, Origin};
pub use machine_state::{DeviceState, KvmVmState, MachineState};
pub use memory::{MemoryFileError, freeze, map_private, memory_digest, save_sparse};
pub use msrs::MsrPolicy;
pub(crate) use msrs::{ARCH_CAPABILITIES, read as read_msr};
pub use template::Template;
pub use vcpu_state::{VcpuContext, VcpuState};
pub use vm_state::{FORMAT_VERSION, VmState};
pub use working_set::{PageRange, WorkingSet, WorkingSetError};
pub use xsave::XsaveSize;
