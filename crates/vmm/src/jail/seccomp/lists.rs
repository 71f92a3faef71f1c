//! The system calls that each kind of thread may make.
//!
//! The lists were made by tracing (strace -f) the tests of this crate and boots, saves and forks of Linux guests, and
//! by reading what libc and the standard library do under memory pressure, at a panic and at an abort.

use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER,
    CLONE_NEWUTS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM,
};

use super::calls::{Call, When, any, when};
use super::ioctls;

/// From the jail to the end of a boot or a restore, and the most that any thread may do.
pub(super) const SETUP: &[&[Call]] = &[
    MEMORY,
    INPUT_OUTPUT,
    THREADS,
    SNAPSHOT,
    &[
        when(libc::SYS_ioctl, ioctls::CREATE),
        when(libc::SYS_ioctl, ioctls::SET_STATE),
        when(libc::SYS_ioctl, ioctls::GET_STATE),
        when(libc::SYS_ioctl, ioctls::RESUME),
        when(libc::SYS_ioctl, ioctls::RUN),
        when(libc::SYS_ioctl, ioctls::TAP),
        when(libc::SYS_ioctl, ioctls::DEVICES),
    ],
    &[
        any(libc::SYS_epoll_create1),
        any(libc::SYS_eventfd2),
        any(libc::SYS_timerfd_create),
        any(libc::SYS_sysinfo),
        any(libc::SYS_getrusage),
        when(
            libc::SYS_fcntl,
            &[When::Equals(1, libc::F_DUPFD_CLOEXEC as u32)],
        ),
        // Limits of this process.
        when(libc::SYS_prlimit64, &[When::Equals(0, 0)]),
        when(libc::SYS_clone, &[THREAD]),
        // Another filter answers ENOSYS (`filter::refuse_clone3`).
        any(libc::SYS_clone3),
        any(libc::SYS_set_robust_list),
        any(libc::SYS_rseq),
        any(libc::SYS_sched_getaffinity),
        // The handler of SIGSYS stays.
        when(
            libc::SYS_rt_sigaction,
            &[When::Differs(0, libc::SIGSYS as u32)],
        ),
        when(
            libc::SYS_prctl,
            &[
                When::Equals(0, libc::PR_SET_NAME as u32),
                When::Equals(0, libc::PR_SET_VMA as u32),
                // Before each further filter.
                When::Equals(0, libc::PR_SET_NO_NEW_PRIVS as u32),
            ],
        ),
        when(
            libc::SYS_seccomp,
            &[When::Equals(0, libc::SECCOMP_SET_MODE_FILTER)],
        ),
    ],
];

/// The event loop's thread once the VM is booted or restored: devices, the control socket, saving, resuming.
pub(super) const EVENT_LOOP: &[&[Call]] = &[
    MEMORY,
    INPUT_OUTPUT,
    THREADS,
    SNAPSHOT,
    &[
        when(libc::SYS_ioctl, ioctls::GET_STATE),
        when(libc::SYS_ioctl, ioctls::RESUME),
        when(libc::SYS_ioctl, ioctls::DEVICES),
    ],
];

/// A vCPU's thread: KVM_RUN, and devices where the guest accesses their registers.
pub(super) const VCPU: &[&[Call]] = &[
    MEMORY,
    INPUT_OUTPUT,
    THREADS,
    &[
        when(libc::SYS_ioctl, ioctls::RUN),
        when(libc::SYS_ioctl, ioctls::WARM_UP),
        when(libc::SYS_ioctl, ioctls::DEVICES),
    ],
];

/// The heap, stacks and guest memory. Nothing becomes executable.
const MEMORY: &[Call] = &[
    any(libc::SYS_brk),
    when(libc::SYS_mmap, &[NOT_EXECUTABLE]),
    when(libc::SYS_mprotect, &[NOT_EXECUTABLE]),
    any(libc::SYS_munmap),
    any(libc::SYS_mremap),
    any(libc::SYS_madvise),
];

/// Descriptors that the process holds already.
const INPUT_OUTPUT: &[Call] = &[
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_readv),
    any(libc::SYS_writev),
    any(libc::SYS_recvmsg),
    any(libc::SYS_sendmsg),
    // send(2) on a connected socket.
    when(libc::SYS_sendto, &[When::Equals(5, 0)]),
    any(libc::SYS_shutdown),
    any(libc::SYS_close),
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_epoll_wait),
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_timerfd_settime),
    any(libc::SYS_getrandom),
    when(
        libc::SYS_fcntl,
        &[
            // The standard library checks descriptors where it is built with assertions.
            When::Equals(1, libc::F_GETFD as u32),
            When::Equals(1, libc::F_GETFL as u32),
            When::Equals(1, libc::F_SETFL as u32),
        ],
    ),
];

/// Synchronization of threads, signals, and the end.
const THREADS: &[Call] = &[
    any(libc::SYS_futex),
    any(libc::SYS_sched_yield),
    any(libc::SYS_getpid),
    any(libc::SYS_gettid),
    any(libc::SYS_clock_gettime),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_sigaltstack),
    // A thread of this process: the kick of a vCPU, and abort(3).
    when(
        libc::SYS_tgkill,
        &[When::Equals(2, KICK), When::Equals(2, libc::SIGABRT as u32)],
    ),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
];

/// Files of snapshots: memfds to write, and files to read.
const SNAPSHOT: &[Call] = &[
    any(libc::SYS_memfd_create),
    any(libc::SYS_ftruncate),
    any(libc::SYS_lseek),
    any(libc::SYS_pread64),
    any(libc::SYS_pwrite64),
    when(
        libc::SYS_statx,
        &[When::Bits {
            argument: 2,
            mask: libc::AT_EMPTY_PATH as u32,
            value: libc::AT_EMPTY_PATH as u32,
        }],
    ),
    when(
        libc::SYS_fcntl,
        &[When::Equals(1, libc::F_ADD_SEALS as u32)],
    ),
];

/// SIGRTMIN of glibc and musl, which the C library keeps the first two or three real-time signals from.
const KICK: u32 = if cfg!(target_env = "musl") { 35 } else { 34 };

const NOT_EXECUTABLE: When = When::Bits {
    argument: 2,
    mask: libc::PROT_EXEC as u32,
    value: 0,
};

const NAMESPACES: u32 = (CLONE_NEWCGROUP
    | CLONE_NEWIPC
    | CLONE_NEWNET
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWUSER
    | CLONE_NEWUTS) as u32;
const SAME_PROCESS: u32 = (CLONE_VM | CLONE_THREAD | CLONE_SIGHAND) as u32;

/// A thread of this process, not another process.
const THREAD: When = When::Bits {
    argument: 0,
    mask: SAME_PROCESS | NAMESPACES,
    value: SAME_PROCESS,
};
