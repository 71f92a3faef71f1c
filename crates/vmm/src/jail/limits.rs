//! Resource limits (setrlimit(2)).
//!
//! RLIMIT_AS stays unlimited: a blank VM reserves the whole guest memory, glibc reserves heaps, and neither uses
//! memory. The cgroup bounds the memory that a worker uses.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Descriptors: a worker with eight vCPUs and every device holds some 50.
const FILES: u64 = 256;
/// Threads: the event loop, at most eight vCPUs, and one of KVM's.
const THREADS: u64 = 32;

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    Ok(setrlimit(resource, limit)?)
}

/// Sets the limits that do not depend on the VM. RLIMIT_NPROC counts the threads of a user in its user namespace:
/// without a namespace of its own a worker would be stopped by the caller's other processes.
pub(super) fn set(own_user_namespace: bool) -> io::Result<()> {
    // A core file would hold guest memory.
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, FILES)?;
    // No part calls mlock(2).
    limit(Resource::Memlock, 0)?;
    if own_user_namespace {
        limit(Resource::Nproc, THREADS)?;
    }
    Ok(())
}

/// Bounds a file that the process can make (a memfd) to `bytes` (RLIMIT_FSIZE).
pub fn limit_files(bytes: u64) -> io::Result<()> {
    limit(Resource::Fsize, bytes)
}
