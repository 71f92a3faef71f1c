//! A VM: memory, interrupt controllers, devices and vCPUs, put together and run to its end.
//!
//! [`Vm`] boots a guest. [`BlankVm`] is a VM without a guest, made ahead of demand, into which a snapshot is
//! restored. [`VmHandle`] pauses, resumes and saves a VM while [`Vm::serve`] runs its event loop.

mod blank;
mod build;
mod error;
mod event_loop;
mod handle;
mod machine;
mod shape;
mod signal_watch;
mod time_restore;

pub use blank::BlankVm;
pub use error::VmError;
pub use event_loop::{EventLoop, Subscriber};
pub(crate) use event_loop::{raw, watch_or_end};
pub use handle::{Saved, VmHandle};
pub use machine::{Attached, Vm};
pub use shape::{MAX_VCPUS, MachineShape};
pub use signal_watch::SignalWatch;
