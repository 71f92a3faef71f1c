//! Snapshots: a machine's whole state, the record that it travels in, and the memory beside it.
//!
//! A [`Template`] is a record and its memory. Any number of VMs can be made from it, each with the
//! memory mapped copy-on-write; see [`crate::vm::Shell`].
//!
//! # The order
//!
//! State is saved while the vCPUs and the devices are paused, and restored in this order, which the
//! code repeats where each constraint bites:
//!
//! 1. memslots, and the memory in them: SREGS reads page-directory pointers from it;
//! 2. of each vCPU: CPUID, MP_STATE, REGS, SREGS, XSAVE, XCRS, DEBUGREGS, LAPIC (after SREGS, which
//!    hold the APIC base), MSRs (after LAPIC, for the TSC deadline), VCPU_EVENTS (after REGS, which
//!    clear a pending exception), KVMCLOCK_CTRL (after the MSRs, which turn the clock page on);
//! 3. of the VM: the clock, then the PICs and the I/O APIC (after the local APICs that they deliver
//!    to). The machine has no PIT;
//! 4. devices: they may raise an interrupt again, which the I/O APIC has to be there for;
//! 5. the VM generation ID: a fresh one is written, then the guest is told.

mod blob;
mod error;
mod key;
mod machine_state;
mod memory;
mod msrs;
mod record;
mod template;
mod trace;
mod vcpu_state;
mod working_set;

pub use error::{SnapshotError, StateKind};
pub use key::{Key, Mismatch, Origin};
pub use machine_state::{DeviceState, MachineState, VmState};
pub use memory::{MemoryFileError, freeze, load_sparse, memory_digest, save_sparse};
pub use msrs::{MsrPolicy, REFUSED_ON_PVM};
pub use record::{FORMAT_VERSION, Record, RecordError};
pub use template::Template;
pub use trace::{Step, Trace};
pub use vcpu_state::{VcpuState, XsaveSize};
pub use working_set::{Run, WorkingSet, WorkingSetError};
