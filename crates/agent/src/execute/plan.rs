//! All that a stage's processes need, allocated before they are made.

use std::ffi::{CStr, CString, c_char, c_int};

use crate::user::User;

/// Linux capabilities that a program may hold when the image's user is root, as bits
/// (include/uapi/linux/capability.h). It is what container engines give by default, without
/// NET_RAW: a raw socket could read the agent's own connection on the VM's address.
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

/// Where a waiting interpreter's control socket is. The last one that a process has room for without a
/// larger table (`NR_OPEN_DEFAULT`, include/linux/fdtable.h), so that what the interpreter opens as it
/// starts has the numbers of a plain start.
pub const CONTROL_DESCRIPTOR: c_int = 63;

/// Everything between `clone3` and `execve`.
#[derive(Debug)]
pub struct Plan {
    /// The file to execute.
    pub program: CString,
    /// Its arguments, its name first.
    pub argv: CStringArray,
    /// Its environment.
    pub envp: CStringArray,
    /// Where it starts.
    pub working_dir: CString,
    /// Who it runs as.
    pub user: User,
    /// What stays in the bounding set.
    pub capabilities: u64,
    /// A directory that it sees empty.
    pub hidden: Option<CString>,
    /// Bound over /proc/sys/kernel/random/boot_id: a template's own is every fork's.
    pub boot_id: Option<CString>,
    /// A UTS namespace of its own. Without, it follows the guest's host name.
    pub own_host_name: bool,
    /// Becomes its [`CONTROL_DESCRIPTOR`]: a waiting interpreter is told its program there.
    pub control: Option<c_int>,
    /// The directory of its cgroup. All descriptors are above 2.
    pub cgroup_fd: Option<c_int>,
    /// Its standard input.
    pub stdin: c_int,
    /// Its standard output.
    pub stdout: c_int,
    /// Its standard error.
    pub stderr: c_int,
    /// Where [`super::report::Report`]s go.
    pub report: c_int,
}

impl Plan {
    /// What init must keep open; -1 stands for none.
    pub fn descriptors(&self) -> [c_int; 6] {
        [
            self.stdin,
            self.stdout,
            self.stderr,
            self.report,
            self.cgroup_fd.unwrap_or(-1),
            self.control.unwrap_or(-1),
        ]
    }
}

/// Strings as `execve` takes them: an array of pointers that ends with a null pointer.
#[derive(Debug)]
pub struct CStringArray {
    pointers: Vec<*const c_char>,
    strings: Vec<CString>,
}

impl CStringArray {
    /// The strings, in order.
    pub fn new(strings: Vec<CString>) -> Self {
        let ends = std::iter::once(std::ptr::null());
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain(ends)
            .collect();
        CStringArray { pointers, strings }
    }

    /// Valid while `self` is.
    pub fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// The strings again.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.strings.iter().map(CString::as_c_str)
    }
}
