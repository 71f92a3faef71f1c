//! vCPUs: one thread each, which enters the guest, serves its exits, and can be paused.

mod immediate_exit;
mod machine;
mod run;
mod threads;

pub use machine::Machine;
pub use threads::Vcpus;
