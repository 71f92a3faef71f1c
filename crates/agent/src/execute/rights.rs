//! Drops the privileges of the process that becomes the program: capabilities, user, signal handlers, system calls.
//! These functions neither allocate nor take a lock ([`super::child`]).

use std::ffi::c_void;
use std::ptr::null_mut;

use super::plan::Plan;
use super::raw::{errno, fail};
use super::report::Step;

/// Drops capabilities from the bounding set: a set-user-ID program cannot regain them.
pub fn bound_capabilities(plan: &Plan) {
    for capability in 0..64 {
        if plan.capabilities & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: a system call with numbers alone.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            if errno() == libc::EINVAL {
                break; // Above the last capability of this kernel.
            }
            fail(plan, Step::Capabilities)
        }
    }
    // SAFETY: as above.
    unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
}

/// `struct __user_cap_header_struct` (include/uapi/linux/capability.h).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// Version 3: two words for each set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Changes to the program's user and sets its capabilities.
pub fn become_user(plan: &Plan) {
    let (uid, gid) = (plan.user.uid, plan.user.gid);
    let groups = &plan.user.groups;
    // SAFETY: `groups` outlives the call. Raw system calls: the C library's functions signal all threads,
    // which this copy of the process does not have.
    let changed = unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
    };
    if !changed {
        fail(plan, Step::User)
    }
    // Uid 0 keeps the bounding set; other users, whose bounding set is empty, lost all capabilities with setresuid.
    // The inheritable set is empty for all.
    let kept = plan.capabilities;
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let sets: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: the header says how many words follow, and both outlive the call.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
        fail(plan, Step::Capabilities)
    }
}

/// Lets no `execve` add privileges (PR_SET_NO_NEW_PRIVS), and installs the filter of system calls.
pub fn confine(plan: &Plan) {
    // SAFETY: a system call with numbers alone.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        fail(plan, Step::NoNewPrivileges)
    }
    let Some(filter) = plan.filter else { return };
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` describes `filter`, which the kernel copies and does not write. SPEC_ALLOW: otherwise kernels
    // before 5.16 turn speculative store bypass off, which slows the program down.
    let installed = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    if installed != 0 {
        fail(plan, Step::Filter)
    }
}

/// Resets all 64 signals to SIG_DFL and unblocks them. Raw system calls: the C library reserves two signals and
/// does not reset them.
pub fn reset_signals() {
    /// `struct sigaction` of the kernel (arch/x86/include/uapi/asm/signal.h); all-zero is SIG_DFL.
    const DEFAULT: [u64; 4] = [0; 4];
    const NONE: [u64; 1] = [0];
    // SAFETY: the structure has the kernel's size, and a signal set has 8 bytes.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                null_mut::<c_void>(),
                8,
            );
        }
        let set = libc::SIG_SETMASK;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            set,
            NONE.as_ptr(),
            null_mut::<c_void>(),
            8,
        );
    }
}
