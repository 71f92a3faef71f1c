//! Snapshots: a machine's whole state, the record that it travels in, and the memory beside it.
//!
//! A [`Template`] is a record and its memory. Any number of VMs can be made from it, each with the
//! memory mapped copy-on-write; see [`crate::vm::Shell`].
//!
//! State is saved while the vCPUs and the devices are paused. `docs/snapshots.md` lists the order of a
//! restore and the reason for each place; [`crate::vm::Shell::take`] and [`VcpuState::restore`] carry it out.

mod blob;
mod error;
mod key;
mod lapic_timer;
mod machine_state;
mod memory;
mod msrs;
mod record;
mod template;
mod trace;
mod tsc;
mod vcpu_state;
mod working_set;

pub use error::{SnapshotError, StateKind};
pub use key::{CpuKey, Key, Mismatch, Origin};
pub use machine_state::{DeviceState, MachineState, VmState};
pub use memory::{MemoryFileError, freeze, memory_digest, save_sparse};
pub use msrs::MsrPolicy;
pub(crate) use msrs::{ARCH_CAPABILITIES, read as read_msr};
pub use record::{FORMAT_VERSION, Record, RecordError};
pub use template::Template;
pub use trace::{Step, Trace};
pub use vcpu_state::{VcpuContext, VcpuState, XsaveSize};
pub use working_set::{Run, WorkingSet, WorkingSetError};
