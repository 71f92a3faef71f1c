//! The user and group of a worker in its user namespace.

use std::io;

use super::error::check;

/// The only user and group that a worker's user namespace maps. Not 0: nothing in the namespace is root.
pub(crate) const WORKER_ID: u32 = 1000;

/// Gives up the groups, the group and the user of the caller for [`WORKER_ID`].
pub(super) fn become_worker() -> io::Result<()> {
    // SAFETY: a size of 0 reads no list.
    let cleared = check(unsafe { libc::setgroups(0, std::ptr::null()) });
    match cleared {
        // A caller without CAP_SETGID has to deny setgroups(2) before it may map a group (user_namespaces(7)), and
        // its worker keeps the supplementary groups: `kvm`, most often.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        cleared => cleared?,
    }
    // SAFETY: the calls take integers only.
    check(unsafe { libc::setresgid(WORKER_ID, WORKER_ID, WORKER_ID) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(WORKER_ID, WORKER_ID, WORKER_ID) })
}
