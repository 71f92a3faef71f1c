//! The new process between clone3(2) and execve(2).
//!
//! Its parent has other threads, one of which may have held a lock of the allocator: everything here is a system
//! call on values that the parent prepared.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::ptr::{null, null_mut};

use super::CONTROL_FD;

/// The input of the new process. All descriptors are above those that it will have.
pub(super) struct Plan {
    pub binary: CString,
    /// The argument of `worker`.
    pub walls: CString,
    /// Makes the other namespaces, and keeps the capabilities that [`crate::jail::enter`] needs over execve.
    pub namespaces: bool,
    pub stdin: RawFd,
    pub stderr: RawFd,
    pub control: RawFd,
    /// Gives the start by one byte, and takes a [`Failure`].
    pub parent: RawFd,
    /// The parent's end of the same socket: closed, so that the process sees the parent's end.
    pub other_end: RawFd,
}

/// A failed step.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    step: u8,
    errno: i32,
}

const STEPS: [&str; 5] = [
    "the worker's descriptors",
    "new mount, network, IPC, UTS and cgroup namespaces",
    "the capabilities that set up the worker's jail",
    "PR_SET_NO_NEW_PRIVS",
    "executing the worker",
];
const DESCRIPTORS: u8 = 0;
const NAMESPACES: u8 = 1;
const CAPABILITIES: u8 = 2;
const NO_NEW_PRIVS: u8 = 3;
const EXECUTE: u8 = 4;

impl Failure {
    fn encode(self) -> [u8; 5] {
        let [a, b, c, d] = self.errno.to_le_bytes();
        [self.step, a, b, c, d]
    }

    /// The failure in the bytes that [`exec`] sent.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [step, errno @ ..] = <[u8; 5]>::try_from(bytes).ok()?;
        let errno = i32::from_le_bytes(errno);
        Some(Self { step, errno })
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let error = io::Error::from_raw_os_error(failure.errno);
        match STEPS.get(usize::from(failure.step)) {
            // The caller names the binary.
            Some(_) if failure.step == EXECUTE => error,
            Some(step) => io::Error::new(error.kind(), format!("{step}: {error}")),
            None => error,
        }
    }
}

/// Becomes the worker. Never returns: it ends the process if a step fails, after telling the parent.
///
/// # Safety
///
/// Call it only in a process that clone3 has just made without CLONE_VM.
pub(super) unsafe fn exec(plan: &Plan) -> ! {
    // SAFETY: the descriptor is that of the plan, and the buffer is one byte on the stack.
    unsafe {
        libc::close(plan.other_end);
        let mut start = 0u8;
        if libc::read(plan.parent, (&raw mut start).cast(), 1) != 1 {
            // The parent has ended, or could not prepare this process.
            libc::_exit(1);
        }
    }
    let Err(failure) = become_worker(plan);
    let bytes = failure.encode();
    // SAFETY: the bytes lie on the stack.
    unsafe {
        libc::write(plan.parent, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(1)
    }
}

fn become_worker(plan: &Plan) -> Result<Infallible, Failure> {
    // SAFETY: setpgid takes integers. Ctrl-C at the terminal must reach only the caller, which may let its VMs finish.
    unsafe { libc::setpgid(0, 0) };
    for (from, to) in [
        (plan.stdin, 0),
        (plan.stderr, 1),
        (plan.stderr, 2),
        (plan.control, CONTROL_FD),
    ] {
        // SAFETY: dup2 takes integers, and no descriptor of the plan is among the targets.
        check(DESCRIPTORS, unsafe { libc::dup2(from, to) }.into())?;
    }
    let first = (CONTROL_FD + 1) as libc::c_uint;
    // SAFETY: close_range takes integers. The plan's descriptors close when execve succeeds.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    // Before Linux 5.11 there is no such call. The standard library opens every file as close-on-exec.
    let _ = marked;
    if plan.namespaces {
        let flags = libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        // SAFETY: unshare takes an integer, and the process has one thread.
        check(NAMESPACES, unsafe { libc::unshare(flags) }.into())?;
        keep_capabilities()?;
    }
    // SAFETY: prctl takes integers; sigemptyset and sigprocmask write and read a set on the stack; signal takes
    // integers.
    unsafe {
        check(
            NO_NEW_PRIVS,
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into(),
        )?;
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    let arguments = [
        c"cloude-vmm".as_ptr(),
        c"worker".as_ptr(),
        plan.walls.as_ptr(),
        null(),
    ];
    let environment = [null()];
    // SAFETY: the path is NUL-terminated, and both lists end with a null pointer.
    let result = unsafe {
        libc::execve(
            plan.binary.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    check(EXECUTE, result.into())?;
    unreachable!("execve returned without an error")
}

/// linux/capability.h: mounting and pivot_root(2), chroot(2), the worker's user and groups, and dropping the rest.
const NEEDED: [u32; 5] = [
    6,  // CAP_SETGID
    7,  // CAP_SETUID
    8,  // CAP_SETPCAP
    18, // CAP_SYS_CHROOT
    21, // CAP_SYS_ADMIN
];

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes the needed capabilities of the new user namespace ambient, so that they survive execve for a user other than
/// root. All others end there.
fn keep_capabilities() -> Result<(), Failure> {
    let bits = NEEDED
        .iter()
        .fold(0, |bits, capability| bits | 1 << capability);
    // _LINUX_CAPABILITY_VERSION_3.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let kept = Data {
        effective: bits,
        permitted: bits,
        inheritable: bits,
    };
    let none = Data {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    };
    let data = [kept, none];
    // SAFETY: capset reads a header and, for version 3, two structures.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check(CAPABILITIES, set)?;
    for capability in NEEDED {
        // SAFETY: the option takes integers only.
        let raised = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                libc::c_ulong::from(capability),
                0,
                0,
            )
        };
        check(CAPABILITIES, raised.into())?;
    }
    Ok(())
}

fn check(step: u8, result: i64) -> Result<(), Failure> {
    if result < 0 {
        // SAFETY: errno is a variable of this thread.
        let errno = unsafe { *libc::__errno_location() };
        return Err(Failure { step, errno });
    }
    Ok(())
}
