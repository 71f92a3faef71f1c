//! The init of a stage, from the agent's side: its descriptor, its end, its resource usage.

use std::os::fd::{AsRawFd as _, OwnedFd};

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Sends SIGKILL to init. The kernel then kills everything in its PID namespace (pid_namespaces(7)).
pub fn kill(pidfd: &OwnedFd) {
    // SAFETY: pidfd_send_signal(2) with our own descriptor and without siginfo.
    unsafe {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            no_info,
            0,
        );
    }
}

/// The process id of the program that `init` has started, in the agent's PID namespace. It is the first process that a
/// namespace's init starts, so that its id there is 2.
pub fn program_of(init: i32) -> Option<i32> {
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(process.path().join("status")).ok()?;
        let last = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().last()?.parse::<i32>().ok()
        };
        (last("PPid:") == Some(init) && last("NSpid:") == Some(2)).then_some(pid)
    })
}

/// Sets a resource limit of another process, soft and hard (prlimit(2)).
pub fn set_limit(pid: i32, resource: libc::__rlimit_resource_t, limit: u64) -> bool {
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: the structure outlives the call; the old limit is not asked for.
    unsafe { libc::prlimit(pid, resource, &limit, std::ptr::null_mut()) == 0 }
}

/// Resources of init and of every process below it that was waited for.
#[derive(Debug)]
pub struct Usage {
    /// User and system time in microseconds.
    pub cpu_time_us: u64,
    /// Largest resident set of one process, in bytes.
    pub max_rss_bytes: u64,
}

/// Waits for init to end (wait4(2)).
pub fn reap(pid: i32) -> Usage {
    // SAFETY: all-zero is a valid rusage, and both outlive the calls.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        while libc::wait4(pid, std::ptr::null_mut(), 0, &mut usage) < 0
            && nix::errno::Errno::last() == nix::errno::Errno::EINTR
        {}
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Usage {
        cpu_time_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        max_rss_bytes: usage.ru_maxrss as u64 * 1024,
    }
}
