//! Everything that the processes of a stage use between `clone3` and `execve`, allocated before.

use std::ffi::{CStr, CString, c_char, c_int};

use crate::user::User;

/// Capabilities of a program whose user is root, as bits (include/uapi/linux/capability.h): the default set
/// of container engines without NET_RAW. A raw socket could read the agent's TCP connection.
pub const PROGRAM_CAPABILITIES: u64 = 1 // CHOWN
    | 1 << 1 // DAC_OVERRIDE
    | 1 << 3 // FOWNER
    | 1 << 4 // FSETID
    | 1 << 5 // KILL
    | 1 << 6 // SETGID
    | 1 << 7 // SETUID
    | 1 << 8 // SETPCAP
    | 1 << 10 // NET_BIND_SERVICE
    | 1 << 18 // SYS_CHROOT
    | 1 << 27 // MKNOD
    | 1 << 29 // AUDIT_WRITE
    | 1 << 31; // SETFCAP

/// The descriptor of a waiting interpreter's control socket: the last one of a process's initial table
/// (`NR_OPEN_DEFAULT`, include/linux/fdtable.h), so that files which the interpreter opens get the same numbers
/// as without it.
pub const CONTROL_DESCRIPTOR: c_int = 63;

/// The arguments of `execve`, and of the system calls before it.
#[derive(Debug)]
pub struct Plan {
    /// The file to execute.
    pub program: CString,
    /// Its arguments, its name first.
    pub argv: CStringArray,
    /// Its environment.
    pub envp: CStringArray,
    /// Absolute working directory.
    pub working_dir: CString,
    /// User, group and supplementary groups.
    pub user: User,
    /// The capability bounding set: [`PROGRAM_CAPABILITIES`] of root, none of others.
    pub capabilities: u64,
    /// RLIMIT_NPROC, which does not bind root. None where a cgroup bounds the processes: the limit of PID 1, from which
    /// it would be inherited, is about the same and is counted nowhere.
    pub processes: Option<u64>,
    /// RLIMIT_NOFILE: the limit of the request, or a soft limit of 1024 that a program may raise.
    pub open_files: Option<u64>,
    /// RLIMIT_FSIZE in bytes.
    pub file_bytes: Option<u64>,
    /// RLIMIT_STACK in bytes.
    pub stack_bytes: Option<u64>,
    /// The seccomp filter ([`super::seccomp`]); none for an unconfined program that is not root.
    pub filter: Option<&'static [libc::sock_filter]>,
    /// A directory to cover with an empty, read-only tmpfs.
    pub hidden: Option<CString>,
    /// Bind-mounted over /proc/sys/kernel/random/boot_id, which is the same in every fork of a template.
    pub boot_id: Option<CString>,
    /// New UTS namespace. A runner has none, so that it sees the host name of the fork's identity.
    pub own_host_name: bool,
    /// Duplicated to [`CONTROL_DESCRIPTOR`], over which a waiting interpreter receives its program.
    pub control: Option<c_int>,
    /// The streams are a terminal, which becomes the program's controlling one.
    pub terminal: bool,
    /// The directory of its cgroup, for CLONE_INTO_CGROUP. All descriptors are above 2.
    pub cgroup_fd: Option<c_int>,
    /// `cgroup.procs` of the pids controller of cgroup v1.
    pub pids_v1_fd: Option<c_int>,
    /// Read end of standard input.
    pub stdin: c_int,
    /// Write end of standard output.
    pub stdout: c_int,
    /// Write end of standard error.
    pub stderr: c_int,
    /// Write end of the pipe of [`super::report::Report`]s.
    pub report: c_int,
}

impl Plan {
    /// The descriptors that init keeps open; -1 for absent ones.
    pub fn descriptors(&self) -> [c_int; 7] {
        [
            self.stdin,
            self.stdout,
            self.stderr,
            self.report,
            self.cgroup_fd.unwrap_or(-1),
            self.control.unwrap_or(-1),
            self.pids_v1_fd.unwrap_or(-1),
        ]
    }
}

/// Strings with a null-terminated array of pointers to them, as `execve` takes it.
#[derive(Debug)]
pub struct CStringArray {
    pointers: Vec<*const c_char>,
    strings: Vec<CString>,
}

impl CStringArray {
    /// From strings, in order.
    pub fn new(strings: Vec<CString>) -> Self {
        let ends = std::iter::once(std::ptr::null());
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain(ends)
            .collect();
        CStringArray { pointers, strings }
    }

    /// The array. Valid as long as `self`.
    pub fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// The strings, in order.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.strings.iter().map(CString::as_c_str)
    }
}
