//! One worker process for each VM: spawned, booted or restored, connected to, ended.

mod blank;
mod boot;
mod console;
#[cfg(test)]
mod fake;
mod kvm;
pub mod orphans;
mod paused;
mod process;
mod save;
mod segment;
mod vm;
mod workers;

pub use boot::template_boot_text;
pub use kvm::open_device;
pub use paused::PooledFork;
pub use save::{save, working_set};
pub use segment::{SegmentError, SharedSegment};
pub use workers::Workers;
