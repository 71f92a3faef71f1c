//! [`enter`]: the order in which a worker locks itself up.

use std::fs::File;
use std::os::fd::BorrowedFd;

use super::error::{JailError, check};
use super::walls::{Wall, Walls};
use super::{capabilities, identity, limits, paths, root, seccomp};

/// Locks the calling process up for good. Call it before the process starts a thread and reads any request.
///
/// The process must have been started by [`crate::control::spawn`] with the same walls: that made its namespaces
/// and its cgroup, and left it the capabilities that this function needs and then drops.
///
/// `control` is the control socket, on which a forbidden system call is reported. Returns the process's
/// `/proc/self/pagemap`, if there is one: it cannot be opened later.
pub fn enter(walls: Walls, control: BorrowedFd<'_>) -> Result<Option<File>, JailError> {
    // One heap: another one for a thread would ask the kernel for files (`/proc/sys/vm/overcommit_memory`) when it
    // shrinks. Opened by this process, the page map hides the host's page numbers.
    one_heap();
    let pagemap = File::open("/proc/self/pagemap").ok();
    limits::set(walls.has(Wall::Namespaces)).map_err(JailError::step("setrlimit"))?;
    if walls.has(Wall::CoreScheduling) {
        core_scheduling()?;
    }
    if walls.has(Wall::Namespaces) {
        identity::become_worker().map_err(JailError::wall(Wall::Namespaces, "setresuid"))?;
    }
    if walls.has(Wall::Root) {
        root::leave().map_err(|(what, source)| JailError::wall(Wall::Root, what)(source))?;
    }
    capabilities::drop_all().map_err(JailError::step("dropping capabilities"))?;
    set_flag(libc::PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS")?;
    // No other process of this user may read this one's memory or trace it.
    set_flag(libc::PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE")?;
    if walls.has(Wall::Landlock) {
        paths::deny_all()?;
    }
    if walls.has(Wall::Seccomp) {
        seccomp::start(control).map_err(JailError::wall(Wall::Seccomp, "seccomp"))?;
    }
    Ok(pagemap)
}

fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers. No other thread exists that could allocate meanwhile.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

fn set_flag(
    option: libc::c_int,
    value: libc::c_ulong,
    what: &'static str,
) -> Result<(), JailError> {
    // SAFETY: both options take integers only.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }).map_err(JailError::step(what))
}

/// True unless the kernel says that no core has a second hardware thread in use.
fn smt() -> bool {
    let active = std::fs::read_to_string("/sys/devices/system/cpu/smt/active");
    active.map_or(true, |active| active.trim() != "0")
}

// include/uapi/linux/prctl.h.
const PR_SCHED_CORE: libc::c_int = 62;
const PR_SCHED_CORE_CREATE: libc::c_ulong = 1;
const PR_SCHED_CORE_SCOPE_THREAD_GROUP: libc::c_ulong = 1;

/// Gives this process a core-scheduling cookie of its own, which its threads inherit.
fn core_scheduling() -> Result<(), JailError> {
    // SAFETY: the option takes integers only; 0 is the calling process.
    let created = check(unsafe {
        libc::prctl(
            PR_SCHED_CORE,
            PR_SCHED_CORE_CREATE,
            0 as libc::c_ulong,
            PR_SCHED_CORE_SCOPE_THREAD_GROUP,
            0 as libc::c_ulong,
        )
    });
    match created {
        // No core has a second hardware thread, so that nothing is to be kept apart.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) || !smt() => Ok(()),
        created => created.map_err(JailError::wall(Wall::CoreScheduling, "PR_SCHED_CORE")),
    }
}
