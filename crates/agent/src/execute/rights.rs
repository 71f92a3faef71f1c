//! A program gives up its rights, in the copy of the agent that becomes it. The rules of
//! [`super::child`] hold here too: nothing allocates or takes a lock.

use std::ffi::c_void;
use std::ptr::null_mut;

use super::plan::Plan;
use super::raw::{errno, fail};
use super::report::Step;

/// Past this point not even a setuid program gets back what is dropped here.
pub fn bound_capabilities(plan: &Plan) {
    for capability in 0..64 {
        if plan.capabilities & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: a plain system call on plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            if errno() == libc::EINVAL {
                break; // Past the last capability that this kernel knows.
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

/// Become the image's user.
pub fn become_user(plan: &Plan) {
    let (uid, gid) = (plan.user.uid, plan.user.gid);
    let groups = &plan.user.groups;
    // SAFETY: `groups` outlives the call. Raw calls: the C library's would signal threads that this
    // copy of the process does not have.
    let changed = unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
    };
    if !changed {
        fail(plan, Step::User)
    }
    // Root keeps what is in the bound, others lost everything when they left user 0; nobody passes
    // anything on by inheritance.
    let kept = if uid == 0 { plan.capabilities } else { 0 };
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

/// The kernel's own calls: the C library keeps two signals to itself and resets neither.
pub fn reset_signals() {
    /// `struct sigaction` of the kernel (arch/x86/include/uapi/asm/signal.h); all-zero is SIG_DFL.
    const DEFAULT: [u64; 4] = [0; 4];
    const NONE: [u64; 1] = [0];
    // SAFETY: the structure and the set are as large as the kernel takes them, 8 bytes for a set.
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
