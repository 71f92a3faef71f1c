//! The jail of a worker: it gets every file as a descriptor, so that it can give up everything else before it reads
//! its first request.
//!
//! [`crate::control::spawn`] makes the process with its namespaces and its cgroup. [`enter`] does the rest in the
//! process itself. The vCPU threads and the event loop give up further system calls once they are set up
//! ([`narrow_vcpu`], [`narrow_event_loop`]). docs/isolation.md has every wall, and how to look at one from outside.

mod capabilities;
mod enter;
mod error;
pub(crate) mod identity;
mod limits;
mod paths;
mod root;
mod seccomp;
mod syscall_name;
mod walls;

pub use enter::enter;
pub use error::JailError;
pub use limits::limit_files;
pub use seccomp::{FORBIDDEN_EXIT_CODE, narrow_event_loop, narrow_vcpu};
pub use syscall_name::syscall_name;
pub use walls::{UnknownWall, Wall, Walls};
