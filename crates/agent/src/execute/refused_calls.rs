//! The system calls that programs are refused.
//!
//! The default of container engines is the model: what programs use is allowed, what serves to administer a
//! machine or is a frequent way into a kernel is refused, and so is what a kernel newer than this file adds.
//! The numbers are those of `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`.

use libc::{EAFNOSUPPORT, ENOSYS, EPERM};

use Action::{AllowValueOrRefuseBits, Refuse, RefuseBits, RefuseValue};

/// The last call that this file knows: `removexattrat`, of Linux 6.13. It has one number in both tables.
pub const LAST: u32 = 466;

/// Every CLONE_NEW* flag of clone(2). CLONE_NEWTIME is none of them: its bit is part of the exit signal.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
const CLONE_NEWTIME: u32 = 0x80;

/// The personalities of 64-bit Linux with a program's own choices: PER_LINUX32, UNAME26 and ADDR_NO_RANDOMIZE
/// (debuggers and sanitizers set it). The others weaken what protects the program, such as MMAP_PAGE_ZERO.
const PERSONALITIES: u32 = 0x0008 | 0x0002_0000 | 0x0004_0000;

/// The filter's decision on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The kernel carries it out.
    Allow,
    /// Refused with this errno.
    Refuse(i32),
    /// Refused with EPERM if the first argument has one of these bits.
    RefuseBits(u32),
    /// Refused if the first argument is this value, with the errno.
    RefuseValue(u32, i32),
    /// Allowed for this value of the first argument, else as `RefuseBits`.
    AllowValueOrRefuseBits(u32, u32),
}

/// A personality of 0xffffffff asks for the current one.
const PERSONALITY: Action = AllowValueOrRefuseBits(u32::MAX, !PERSONALITIES);
/// A program talks to no vsock port of the host, and to none of the agent.
const SOCKET: Action = RefuseValue(libc::AF_VSOCK as u32, EAFNOSUPPORT);
const UNSHARE: Action = RefuseBits(NEW_NAMESPACES | CLONE_NEWTIME);

/// A call's number, and what happens to it.
pub type Call = (libc::c_long, Action);

/// Namespaces and mounts, for x86-64, in any order.
#[rustfmt::skip]
pub const NAMESPACES: &[Call] = &[
    // clone3 has its flags in memory, where a filter cannot see them; for ENOSYS the C library and Go use
    // clone.
    (libc::SYS_clone, RefuseBits(NEW_NAMESPACES)),
    (libc::SYS_clone3, Refuse(ENOSYS)),
    (libc::SYS_unshare, UNSHARE),
    (libc::SYS_setns, Refuse(EPERM)),
    // Mounts.
    (libc::SYS_mount, Refuse(EPERM)),
    (libc::SYS_umount2, Refuse(EPERM)),
    (libc::SYS_pivot_root, Refuse(EPERM)),
    (libc::SYS_open_tree, Refuse(EPERM)),
    (libc::SYS_move_mount, Refuse(EPERM)),
    (libc::SYS_fsopen, Refuse(EPERM)),
    (libc::SYS_fsconfig, Refuse(EPERM)),
    (libc::SYS_fsmount, Refuse(EPERM)),
    (libc::SYS_fspick, Refuse(EPERM)),
    (libc::SYS_mount_setattr, Refuse(EPERM)),
    (libc::SYS_quotactl, Refuse(EPERM)),
    (libc::SYS_quotactl_fd, Refuse(EPERM)),
    (libc::SYS_swapon, Refuse(EPERM)),
    (libc::SYS_swapoff, Refuse(EPERM)),
    // A handle names a file without its path, and so leaves the mounts that are visible.
    (libc::SYS_open_by_handle_at, Refuse(EPERM)),
];

/// The others, for x86-64.
#[rustfmt::skip]
pub const OTHERS: &[Call] = &[
    // The kernel itself.
    (libc::SYS_kexec_load, Refuse(EPERM)),
    (libc::SYS_kexec_file_load, Refuse(EPERM)),
    (libc::SYS_init_module, Refuse(EPERM)),
    (libc::SYS_finit_module, Refuse(EPERM)),
    (libc::SYS_delete_module, Refuse(EPERM)),
    (libc::SYS_reboot, Refuse(EPERM)),
    (libc::SYS_iopl, Refuse(EPERM)),
    (libc::SYS_ioperm, Refuse(EPERM)),
    (libc::SYS_syslog, Refuse(EPERM)),
    (libc::SYS_acct, Refuse(EPERM)),
    (libc::SYS_sethostname, Refuse(EPERM)),
    (libc::SYS_setdomainname, Refuse(EPERM)),
    (libc::SYS_settimeofday, Refuse(EPERM)),
    (libc::SYS_clock_settime, Refuse(EPERM)),
    (libc::SYS_vhangup, Refuse(EPERM)),
    // Large parts of the kernel that few programs use. Libraries have another way without io_uring.
    (libc::SYS_bpf, Refuse(EPERM)),
    (libc::SYS_perf_event_open, Refuse(EPERM)),
    (libc::SYS_fanotify_init, Refuse(EPERM)),
    (libc::SYS_userfaultfd, Refuse(EPERM)),
    (libc::SYS_io_uring_setup, Refuse(ENOSYS)),
    (libc::SYS_io_uring_enter, Refuse(ENOSYS)),
    (libc::SYS_io_uring_register, Refuse(ENOSYS)),
    // The kernel's keyrings know no namespaces.
    (libc::SYS_add_key, Refuse(EPERM)),
    (libc::SYS_request_key, Refuse(EPERM)),
    (libc::SYS_keyctl, Refuse(EPERM)),
    // Pages of other processes.
    (libc::SYS_move_pages, Refuse(EPERM)),
    (libc::SYS_migrate_pages, Refuse(EPERM)),
    // Left over from old kernels.
    (libc::SYS_uselib, Refuse(EPERM)),
    (libc::SYS_ustat, Refuse(EPERM)),
    (libc::SYS_sysfs, Refuse(EPERM)),
    (libc::SYS__sysctl, Refuse(EPERM)),
    (libc::SYS_lookup_dcookie, Refuse(EPERM)),
    // By argument.
    (libc::SYS_personality, PERSONALITY),
    (libc::SYS_socket, SOCKET),
];

/// [`NAMESPACES`] for 32-bit programs, where the kernel runs them (CONFIG_IA32_EMULATION).
#[rustfmt::skip]
pub const NAMESPACES_32: &[Call] = &[
    (120, RefuseBits(NEW_NAMESPACES)), // clone
    (435, Refuse(ENOSYS)),             // clone3
    (310, UNSHARE),
    (346, Refuse(EPERM)), // setns
    (21, Refuse(EPERM)),  // mount
    (22, Refuse(EPERM)),  // umount
    (52, Refuse(EPERM)),  // umount2
    (217, Refuse(EPERM)), // pivot_root
    (428, Refuse(EPERM)), // open_tree
    (429, Refuse(EPERM)), // move_mount
    (430, Refuse(EPERM)), // fsopen
    (431, Refuse(EPERM)), // fsconfig
    (432, Refuse(EPERM)), // fsmount
    (433, Refuse(EPERM)), // fspick
    (442, Refuse(EPERM)), // mount_setattr
    (131, Refuse(EPERM)), // quotactl
    (443, Refuse(EPERM)), // quotactl_fd
    (87, Refuse(EPERM)),  // swapon
    (115, Refuse(EPERM)), // swapoff
    (342, Refuse(EPERM)), // open_by_handle_at
];

/// [`OTHERS`] for 32-bit programs. `socketcall` has its arguments in memory.
#[rustfmt::skip]
pub const OTHERS_32: &[Call] = &[
    (283, Refuse(EPERM)), // kexec_load
    (128, Refuse(EPERM)), // init_module
    (350, Refuse(EPERM)), // finit_module
    (129, Refuse(EPERM)), // delete_module
    (88, Refuse(EPERM)),  // reboot
    (110, Refuse(EPERM)), // iopl
    (101, Refuse(EPERM)), // ioperm
    (103, Refuse(EPERM)), // syslog
    (51, Refuse(EPERM)),  // acct
    (74, Refuse(EPERM)),  // sethostname
    (121, Refuse(EPERM)), // setdomainname
    (25, Refuse(EPERM)),  // stime
    (79, Refuse(EPERM)),  // settimeofday
    (264, Refuse(EPERM)), // clock_settime
    (404, Refuse(EPERM)), // clock_settime64
    (111, Refuse(EPERM)), // vhangup
    (357, Refuse(EPERM)), // bpf
    (336, Refuse(EPERM)), // perf_event_open
    (338, Refuse(EPERM)), // fanotify_init
    (374, Refuse(EPERM)), // userfaultfd
    (425, Refuse(ENOSYS)), // io_uring_setup
    (426, Refuse(ENOSYS)), // io_uring_enter
    (427, Refuse(ENOSYS)), // io_uring_register
    (286, Refuse(EPERM)), // add_key
    (287, Refuse(EPERM)), // request_key
    (288, Refuse(EPERM)), // keyctl
    (317, Refuse(EPERM)), // move_pages
    (294, Refuse(EPERM)), // migrate_pages
    (86, Refuse(EPERM)),  // uselib
    (62, Refuse(EPERM)),  // ustat
    (135, Refuse(EPERM)), // sysfs
    (149, Refuse(EPERM)), // _sysctl
    (253, Refuse(EPERM)), // lookup_dcookie
    (136, PERSONALITY),
    (359, SOCKET),
];
