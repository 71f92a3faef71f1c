//! System calls for the two processes of a stage between `clone3` and `execve`. Nothing here allocates,
//! panics or takes a lock ([`super::child`]).

use std::ffi::{CStr, c_int, c_void};
use std::ptr::null;

use super::plan::Plan;
use super::report::{FAILED, Report, Step};

/// The errno of the last system call that failed.
pub fn errno() -> c_int {
    // SAFETY: the location belongs to this thread.
    unsafe { *libc::__errno_location() }
}

/// mount(2). Returns 0, or -1 with errno set.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> c_int {
    let pointer = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    // SAFETY: every pointer is null or to a NUL-terminated string that outlives the call.
    unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(data).cast::<c_void>(),
        )
    }
}

/// Writes a file of /proc; errors are ignored. Used for oom_score_adj, a preference of the kernel only.
pub fn write_file(path: &CStr, content: &[u8]) {
    // SAFETY: the pointers and length are those of `path` and `content`; the descriptor is ours.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, content.as_ptr().cast(), content.len());
            libc::close(file);
        }
    }
}

/// Closes every descriptor above 2 except `kept`, of which -1 entries are ignored.
pub fn close_all_but(mut kept: [c_int; 7]) {
    kept.sort_unstable();
    let mut first: u32 = 3;
    for fd in kept {
        if fd < first as c_int {
            continue;
        }
        close_range(first, fd as u32);
        first = fd as u32 + 1;
    }
    close_range(first, u32::MAX);
}

/// Closes descriptors from `first` up to and without `end`.
fn close_range(first: u32, end: u32) {
    if first < end {
        let last = if end == u32::MAX { end } else { end - 1 };
        // SAFETY: no code that owns these descriptors runs in this copy of the process.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Writes one report to the agent.
pub fn report(plan: &Plan, kind: i32, step: i32, value: i32) {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let at_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let report = Report {
        kind,
        step,
        value,
        reserved: 0,
        at_ns,
    };
    // SAFETY: `report` is plain data without padding and outlives the call.
    unsafe { libc::write(plan.report, (&raw const report).cast(), size_of::<Report>()) };
}

/// Reports that `step` failed with the current errno, and exits.
pub fn fail(plan: &Plan, step: Step) -> ! {
    report(plan, FAILED, step as i32, errno());
    exit(127)
}

/// Exits this process.
pub fn exit(code: c_int) -> ! {
    // SAFETY: _exit(2) runs no exit handler of the copied process.
    unsafe { libc::_exit(code) }
}
