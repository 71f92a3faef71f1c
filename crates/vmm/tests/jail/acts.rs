//! The acts of a misbehaving worker.
//!
//! A test must do no harm where a wall is missing, as in a build that is broken on purpose: no act may change a file
//! of the host, a process or a setting if it succeeds, though the worker may be root. Arguments are chosen to fail later.

use std::ffi::CStr;
use std::io;
use std::ptr::{null, null_mut};

use cloude_vmm::jail::{self, Wall};

/// An act, and how it must end.
pub struct Act {
    pub name: &'static str,
    /// The forbidden system call that the host is told. `None`: the kernel kills the process without a report.
    pub syscall: Option<libc::c_long>,
    /// The errors that the other walls may answer with, where there is no filter.
    pub errors: &'static [i32],
    run: fn(parent: i32) -> i64,
}

impl Act {
    /// Acts. Returns 0 for success, or the error.
    pub fn run(&self, parent: i32) -> i32 {
        match (self.run)(parent) {
            result if result < 0 => io::Error::last_os_error().raw_os_error().unwrap_or(-1),
            _ => 0,
        }
    }
}

/// The act of this name.
pub fn by_name(name: &str) -> &'static Act {
    let refused = REFUSED.iter().map(|(_, act)| act);
    let mut all = FORBIDDEN.iter().chain(refused).chain([&NOTHING]);
    all.find(|act| act.name == name)
        .expect("an act has this name")
}

/// A system call that the filter must not let through.
const fn dies(name: &'static str, syscall: libc::c_long, run: fn(i32) -> i64) -> Act {
    Act {
        name,
        syscall: Some(syscall),
        errors: &[],
        run,
    }
}

const fn fails(name: &'static str, errors: &'static [i32], run: fn(i32) -> i64) -> Act {
    Act {
        name,
        syscall: None,
        errors,
        run,
    }
}

macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {{
        // SAFETY: the call is forbidden or refused. Its pointers are null or lead to strings and zeroed buffers that
        // outlive it.
        unsafe { libc::syscall($number $(, $argument)*) }
    }};
}

const PATH: &CStr = c"/etc/passwd";
/// A file that does not exist.
const NOWHERE: &CStr = c"/cloude-jail-test-of-a-missing-file";
const ROOT: &CStr = c"/";

/// KVM_CREATE_VM and KVM_SET_USER_MEMORY_REGION.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;

#[rustfmt::skip]
pub const FORBIDDEN: &[Act] = &[
    dies("open", libc::SYS_open, |_| call!(libc::SYS_open, PATH.as_ptr(), 0)),
    dies("openat", libc::SYS_openat, |_| call!(libc::SYS_openat, libc::AT_FDCWD, PATH.as_ptr(), 0)),
    dies("openat2", libc::SYS_openat2, |_| call!(libc::SYS_openat2, libc::AT_FDCWD, PATH.as_ptr(), 0, 0)),
    dies("stat_of_a_path", libc::SYS_statx, |_| call!(libc::SYS_statx, libc::AT_FDCWD, PATH.as_ptr(), 0, 0, 0)),
    dies("unlink", libc::SYS_unlink, |_| call!(libc::SYS_unlink, NOWHERE.as_ptr())),
    dies("execve", libc::SYS_execve, |_| call!(libc::SYS_execve, c"/bin/sh".as_ptr(), 0, 0)),
    dies("execveat", libc::SYS_execveat, |_| call!(libc::SYS_execveat, 3, c"".as_ptr(), 0, 0, libc::AT_EMPTY_PATH)),
    dies("fork", libc::SYS_clone, |_| call!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0)),
    dies("vfork", libc::SYS_vfork, |_| call!(libc::SYS_vfork)),
    dies("a_thread_in_a_new_user_namespace", libc::SYS_clone,
        |_| call!(libc::SYS_clone, libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_NEWUSER, 0, 0, 0, 0)),
    dies("ptrace", libc::SYS_ptrace, |parent| call!(libc::SYS_ptrace, libc::PTRACE_ATTACH, parent, 0, 0)),
    dies("process_vm_readv", libc::SYS_process_vm_readv, |parent| call!(libc::SYS_process_vm_readv, parent, 0, 0, 0, 0, 0)),
    dies("kill_of_the_parent", libc::SYS_kill, |parent| call!(libc::SYS_kill, parent, 0)),
    dies("tgkill_with_another_signal", libc::SYS_tgkill, |parent| call!(libc::SYS_tgkill, parent, parent, 0)),
    dies("pidfd_open", libc::SYS_pidfd_open, |parent| call!(libc::SYS_pidfd_open, parent, 0)),
    dies("pidfd_getfd", libc::SYS_pidfd_getfd, |_| call!(libc::SYS_pidfd_getfd, 3, 0, 0)),
    dies("socket", libc::SYS_socket, |_| call!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)),
    dies("a_netlink_socket", libc::SYS_socket, |_| call!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0)),
    dies("connect", libc::SYS_connect, |_| call!(libc::SYS_connect, 3, 0, 0)),
    dies("bind", libc::SYS_bind, |_| call!(libc::SYS_bind, 3, 0, 0)),
    dies("sendto_an_address", libc::SYS_sendto, |_| call!(libc::SYS_sendto, 3, 0, 0, 0, ROOT.as_ptr(), 16)),
    dies("mount", libc::SYS_mount, |_| call!(libc::SYS_mount, 0, ROOT.as_ptr(), 0, 0, 0)),
    dies("fsopen", libc::SYS_fsopen, |_| call!(libc::SYS_fsopen, c"proc".as_ptr(), 0)),
    dies("open_tree", libc::SYS_open_tree, |_| call!(libc::SYS_open_tree, libc::AT_FDCWD, ROOT.as_ptr(), 0)),
    dies("pivot_root", libc::SYS_pivot_root, |_| call!(libc::SYS_pivot_root, ROOT.as_ptr(), ROOT.as_ptr())),
    dies("chroot", libc::SYS_chroot, |_| call!(libc::SYS_chroot, ROOT.as_ptr())),
    dies("unshare", libc::SYS_unshare, |_| call!(libc::SYS_unshare, libc::CLONE_NEWUSER)),
    dies("setns", libc::SYS_setns, |_| call!(libc::SYS_setns, 3, 0)),
    dies("setuid", libc::SYS_setuid, |_| call!(libc::SYS_setuid, 0)),
    dies("capset", libc::SYS_capset, |_| call!(libc::SYS_capset, 0, 0)),
    dies("keyctl", libc::SYS_keyctl, |_| call!(libc::SYS_keyctl, 0, 0)),
    dies("add_key", libc::SYS_add_key, |_| call!(libc::SYS_add_key, c"user".as_ptr(), c"a".as_ptr(), 0, 0, -3)),
    dies("io_uring_setup", libc::SYS_io_uring_setup, |_| call!(libc::SYS_io_uring_setup, 1, 0)),
    dies("bpf", libc::SYS_bpf, |_| call!(libc::SYS_bpf, 0, 0, 0)),
    dies("perf_event_open", libc::SYS_perf_event_open, |_| call!(libc::SYS_perf_event_open, 0, 0, -1, -1, 0)),
    dies("userfaultfd", libc::SYS_userfaultfd, |_| call!(libc::SYS_userfaultfd, 0)),
    dies("init_module", libc::SYS_init_module, |_| call!(libc::SYS_init_module, 0, 0, c"".as_ptr())),
    dies("reboot", libc::SYS_reboot, |_| call!(libc::SYS_reboot, 0, 0, 0, 0)),
    dies("modify_ldt", libc::SYS_modify_ldt, |_| call!(libc::SYS_modify_ldt, 0, 0, 0)),
    dies("personality", libc::SYS_personality, |_| call!(libc::SYS_personality, 0x040_0000)),
    dies("clock_settime", libc::SYS_clock_settime, |_| call!(libc::SYS_clock_settime, 0, 0)),
    dies("vmsplice", libc::SYS_vmsplice, |_| call!(libc::SYS_vmsplice, 3, 0, 0, 0)),
    dies("memfd_secret", libc::SYS_memfd_secret, |_| call!(libc::SYS_memfd_secret, 0)),
    dies("a_higher_limit_for_the_parent", libc::SYS_prlimit64, |parent| call!(libc::SYS_prlimit64, parent, libc::RLIMIT_CORE, 0, 0)),
    dies("dumpable", libc::SYS_prctl, |_| call!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0)),
    dies("another_handler_of_sigsys", libc::SYS_rt_sigaction, |_| call!(libc::SYS_rt_sigaction, libc::SIGSYS, 0, 0, 8)),
    dies("executable_memory", libc::SYS_mmap,
        |_| call!(libc::SYS_mmap, 0, 4096, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)),
    dies("making_memory_executable", libc::SYS_mprotect,
        |_| call!(libc::SYS_mprotect, 0, 4096, libc::PROT_READ | libc::PROT_EXEC)),
    dies("executable_memory_with_a_key", libc::SYS_pkey_mprotect,
        |_| call!(libc::SYS_pkey_mprotect, 0, 4096, libc::PROT_READ | libc::PROT_EXEC, -1)),
    dies("typing_into_a_terminal", libc::SYS_ioctl, |_| call!(libc::SYS_ioctl, 2, libc::TIOCSTI, c"x".as_ptr())),
    dies("duplicating_a_descriptor_of_the_event_loop", libc::SYS_fcntl, |_| {
        jail::narrow_event_loop().unwrap();
        call!(libc::SYS_fcntl, 3, libc::F_DUPFD_CLOEXEC, 0)
    }),
    dies("a_vm_of_the_running_event_loop", libc::SYS_ioctl, |_| {
        jail::narrow_event_loop().unwrap();
        call!(libc::SYS_ioctl, 0, KVM_CREATE_VM, 0)
    }),
    dies("a_memory_slot_of_the_running_event_loop", libc::SYS_ioctl, |_| {
        jail::narrow_event_loop().unwrap();
        call!(libc::SYS_ioctl, 0, KVM_SET_USER_MEMORY_REGION, 0)
    }),
    dies("a_thread_of_the_running_event_loop", libc::SYS_clone, |_| {
        jail::narrow_event_loop().unwrap();
        let flags = libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND;
        call!(libc::SYS_clone, flags, 0, 0, 0, 0)
    }),
    dies("another_filter_of_the_running_event_loop", libc::SYS_seccomp, |_| {
        jail::narrow_event_loop().unwrap();
        call!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, 0)
    }),
    dies("a_memory_slot_of_a_vcpu", libc::SYS_ioctl, |_| {
        jail::narrow_vcpu().unwrap();
        call!(libc::SYS_ioctl, 0, KVM_SET_USER_MEMORY_REGION, 0)
    }),
    dies("a_memfd_of_a_vcpu", libc::SYS_memfd_create, |_| {
        jail::narrow_vcpu().unwrap();
        call!(libc::SYS_memfd_create, c"m".as_ptr(), 0)
    }),
    dies("a_thread_of_a_vcpu", libc::SYS_clone, |_| {
        jail::narrow_vcpu().unwrap();
        call!(libc::SYS_clone, libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND, 0, 0, 0, 0)
    }),
    dies("an_x32_call", 0x4000_0000 | libc::SYS_getpid, |_| call!(0x4000_0000 | libc::SYS_getpid)),
    Act { name: "a_32_bit_call", syscall: None, errors: &[], run: |_| {
        let number: i64;
        // SAFETY: getpid of the 32-bit interface touches no memory.
        unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20i64 => number) };
        number
    } },
    Act { name: "a_forbidden_call_with_sigsys_blocked", syscall: None, errors: &[], run: |_| {
        // SAFETY: the set lies on the stack.
        unsafe {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::sigprocmask(libc::SIG_BLOCK, &all, null_mut());
        }
        call!(libc::SYS_getppid)
    } },
];

/// An act that succeeds.
const NOTHING: Act = fails("nothing", &[], |_| 0);

/// What every jail has: no capabilities, and limits.
const EVERY: &[Wall] = &[];
const NAMESPACES: &[Wall] = &[Wall::Namespaces];
const EMPTY_ROOT: &[Wall] = &[Wall::Namespaces, Wall::Root];
const LANDLOCK: &[Wall] = &[Wall::Landlock];

#[rustfmt::skip]
pub const REFUSED: &[(&[Wall], Act)] = &[
    (EMPTY_ROOT, fails("opening_a_file", &[libc::ENOENT], |_| call!(libc::SYS_open, PATH.as_ptr(), 0))),
    (EMPTY_ROOT, fails("opening_proc", &[libc::ENOENT], |_| call!(libc::SYS_open, c"/proc/1/mem".as_ptr(), 0))),
    (EMPTY_ROOT, fails("leaving_the_root_by_dots", &[libc::ENOENT], |_| call!(libc::SYS_open, c"../../../../../../../../../../etc/passwd".as_ptr(), 0))),
    (EMPTY_ROOT, fails("making_a_file", &[libc::EROFS], |_| call!(libc::SYS_open, ROOT.as_ptr(), libc::O_TMPFILE | libc::O_WRONLY, 0o600))),
    (EMPTY_ROOT, fails("executing_a_program", &[libc::ENOENT], |_| {
        let arguments = [c"sh".as_ptr(), null()];
        call!(libc::SYS_execve, c"/bin/sh".as_ptr(), arguments.as_ptr(), 0)
    })),
    (EVERY, fails("mounting", &[libc::EPERM], |_| call!(libc::SYS_mount, c"none".as_ptr(), ROOT.as_ptr(), c"no-such-type".as_ptr(), 0, 0))),
    (EVERY, fails("a_new_mount_namespace", &[libc::EPERM], |_| call!(libc::SYS_unshare, libc::CLONE_NEWNS))),
    (EVERY, fails("chroot_to_slash", &[libc::EPERM], |_| call!(libc::SYS_chroot, ROOT.as_ptr()))),
    (NAMESPACES, fails("becoming_root", &[libc::EPERM, libc::EINVAL], |_| call!(libc::SYS_setuid, 0))),
    (EVERY, fails("changing_the_host_name", &[libc::EPERM], |_| call!(libc::SYS_sethostname, c"x".as_ptr(), -1))),
    (NAMESPACES, fails("killing_the_parent", &[libc::ESRCH], |parent| call!(libc::SYS_kill, parent, 0))),
    (NAMESPACES, fails("tracing_the_parent", &[libc::ESRCH], |parent| call!(libc::SYS_ptrace, libc::PTRACE_ATTACH, parent, 0, 0))),
    (NAMESPACES, fails("reaching_the_loopback_network", &[libc::ENETUNREACH], |_| connect_tcp())),
    (NAMESPACES, fails(REACHES_A_SOCKET, &[libc::ECONNREFUSED], connect_abstract)),
    (EVERY, fails("a_raw_socket", &[libc::EPERM], |_| call!(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, 1))),
    (EVERY, fails("more_descriptors_than_the_limit", &[libc::EMFILE, libc::EINVAL], |_| call!(libc::SYS_fcntl, 3, libc::F_DUPFD, 256))),
    (LANDLOCK, fails("opening_a_file_of_the_host", &[libc::EACCES], |_| call!(libc::SYS_open, PATH.as_ptr(), 0))),
    (LANDLOCK, fails("listing_a_directory", &[libc::EACCES], |_| call!(libc::SYS_open, ROOT.as_ptr(), libc::O_DIRECTORY))),
    (LANDLOCK, fails("executing_a_file", &[libc::EACCES], |_| {
        let arguments = [c"sh".as_ptr(), null()];
        call!(libc::SYS_execve, c"/bin/sh".as_ptr(), arguments.as_ptr(), 0)
    })),
    (EVERY, fails("gaining_capabilities", &[libc::EPERM], |_| {
        // _LINUX_CAPABILITY_VERSION_3, and every capability in each set.
        let header = [0x2008_0522u32, 0];
        let all = [u32::MAX; 6];
        call!(libc::SYS_capset, header.as_ptr(), all.as_ptr())
    })),
    (EVERY, fails("a_higher_limit_of_core_files", &[libc::EPERM], |_| {
        let unlimited = [u64::MAX; 2];
        call!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, unlimited.as_ptr(), 0)
    })),
];

/// The act that connects to [`socket_name`].
pub const REACHES_A_SOCKET: &str = "reaching_an_abstract_socket";

/// The name of an abstract Unix socket of the host's process.
pub fn socket_name(host: i32) -> String {
    format!("cloude-jail-{host}")
}

fn connect_tcp() -> i64 {
    // 127.0.0.1:1.
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 1u16.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the address lies on the stack and has the size that is given.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        libc::connect(
            socket,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        )
        .into()
    }
}

fn connect_abstract(parent: i32) -> i64 {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let address = SocketAddr::from_abstract_name(socket_name(parent)).unwrap();
    match UnixStream::connect_addr(&address) {
        Ok(_) => 0,
        // errno still holds the error.
        Err(_) => -1,
    }
}
