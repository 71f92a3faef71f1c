//! What happens between `clone3` and `execve`, in two processes of a stage's own namespaces:
//!
//! - **init**, PID 1 of the stage: mounts a /proc of its own, puts what is not the program's out of
//!   sight, starts the program, reaps, reports how the program ended, and exits, at which the kernel
//!   kills whatever is left in the namespace.
//! - **the program**: gives up its rights, becomes the image's user, and executes.
//!
//! Both are copies of a process with several threads, so that another thread may have held any lock:
//! nothing here allocates, panics, or calls what may take a lock. All memory is in [`Plan`], made
//! before. Raw system calls stand where the C library would look at its list of threads.

use std::ffi::{CStr, c_int, c_long};
use std::ptr::null_mut;

use super::plan::{CONTROL_DESCRIPTOR, Plan};
use super::raw::{close_all_but, errno, exit, fail, mount, report, write_file};
use super::report::{EXITED, STARTED, Step};
use super::rights::{become_user, bound_capabilities, reset_signals};

/// Kernel interfaces that root could turn against the agent without any capability, by file
/// permission alone: core_pattern and modprobe run programs in the first namespaces, sysrq powers off.
const READ_ONLY: [&CStr; 6] = [
    c"/proc/sys",
    c"/proc/sysrq-trigger",
    c"/proc/irq",
    c"/proc/bus",
    c"/proc/fs",
    c"/proc/acpi",
];

/// The kernel's `struct clone_args` up to `cgroup` (include/uapi/linux/sched.h, CLONE_ARGS_SIZE_VER2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Start a stage's init. Gives its process id and a descriptor of the process.
pub fn clone_init(plan: &Plan) -> Result<(i32, c_int), c_int> {
    let mut pidfd: c_int = -1;
    let mut namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
    if plan.own_host_name {
        namespaces |= libc::CLONE_NEWUTS;
    }
    let args = CloneArgs {
        flags: (namespaces | libc::CLONE_PIDFD) as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // SAFETY: `args` and `pidfd` outlive the call. Without CLONE_VM the child has its own copy of
    // everything, and goes on with `run_init`, which keeps to what such a copy may do.
    match unsafe { clone3(&args) } {
        0 => run_init(plan),
        pid if pid > 0 => Ok((pid as i32, pidfd)),
        _ => Err(errno()),
    }
}

/// # Safety
/// As `fork`: the child must do only what is safe in a copy of a process with several threads.
unsafe fn clone3(args: &CloneArgs) -> c_long {
    // SAFETY: the pointer and size describe `args`; the rest is the caller's promise.
    unsafe { libc::syscall(libc::SYS_clone3, &raw const *args, size_of::<CloneArgs>()) }
}

fn run_init(plan: &Plan) -> ! {
    // SAFETY: plain system calls on plain numbers. Not dumpable: nothing that runs as the same user
    // may look into this copy of the agent's memory. The stage does not outlive the agent's thread.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        // A waiting interpreter outlives the thread of its connection; the end of its control
        // socket ends it.
        if plan.control.is_none() {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        }
        libc::setsid();
    }
    close_all_but(plan.descriptors());
    write_file(c"/proc/self/oom_score_adj", b"-1000");
    prepare_mounts(plan);
    let mut args = CloneArgs {
        // As vfork, without sharing memory: init goes on once the program was executed, or failed.
        flags: libc::CLONE_VFORK as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = plan.cgroup_fd {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup as u64;
    }
    // SAFETY: `args` outlives the call; the child keeps to the rules of this module.
    let program = match unsafe { clone3(&args) } {
        0 => run_program(plan),
        pid if pid > 0 => pid as i32,
        _ => fail(plan, Step::Clone),
    };
    report(plan, STARTED, 0, 0);
    close_all_but([plan.report, -1, -1, -1, -1, -1]);
    let status = reap_until(program);
    report(plan, EXITED, 0, status);
    exit(0)
}

/// Wait for everything that dies in the namespace until it is the program; gives its wait status.
fn reap_until(program: i32) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::wait4(-1, &mut status, 0, null_mut()) };
        if pid == program {
            return status;
        }
        if pid < 0 && errno() != libc::EINTR {
            exit(1)
        }
    }
}

fn prepare_mounts(plan: &Plan) {
    let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    if mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None) != 0 {
        fail(plan, Step::PrivateMounts)
    }
    if mount(Some(c"proc"), c"/proc", Some(c"proc"), quiet, None) != 0 {
        fail(plan, Step::Proc)
    }
    let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | quiet;
    for path in READ_ONLY {
        // What the kernel does not have cannot be written to.
        if mount(Some(path), path, None, libc::MS_BIND, None) != 0 {
            if errno() == libc::ENOENT {
                continue;
            }
            fail(plan, Step::ReadOnly)
        }
        if mount(None, path, None, read_only, None) != 0 {
            fail(plan, Step::ReadOnly)
        }
    }
    if let Some(boot_id) = &plan.boot_id {
        let path = c"/proc/sys/kernel/random/boot_id";
        if mount(Some(boot_id), path, None, libc::MS_BIND, None) != 0
            || mount(None, path, None, read_only, None) != 0
        {
            fail(plan, Step::BootId)
        }
    }
    // EINVAL: no file system is mounted there, so that there is nothing to protect.
    if mount(None, c"/sys", None, read_only, None) != 0
        && !matches!(errno(), libc::EINVAL | libc::ENOENT)
    {
        fail(plan, Step::ReadOnly)
    }
    if let Some(hidden) = &plan.hidden {
        let empty = Some(c"size=4k,nr_inodes=1,mode=000");
        let flags = libc::MS_RDONLY | quiet;
        if mount(Some(c"none"), hidden, Some(c"tmpfs"), flags, empty) != 0
            && errno() != libc::ENOENT
        {
            fail(plan, Step::Hide)
        }
    }
}

fn run_program(plan: &Plan) -> ! {
    if plan.cgroup_fd.is_some() {
        show_own_cgroup(plan);
    }
    // SAFETY: plain system calls on plain numbers and a static structure.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
        let no_core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: libc::RLIM_INFINITY,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        let files = libc::rlimit {
            rlim_cur: 1024,
            rlim_max: 524_288,
        };
        libc::setrlimit(libc::RLIMIT_NOFILE, &files);
    }
    write_file(c"/proc/self/oom_score_adj", b"0");
    connect_streams(plan);
    bound_capabilities(plan);
    become_user(plan);
    reset_signals();
    // SAFETY: the pointers are to NUL-terminated strings, and to arrays of such that end with a null
    // pointer, all of `plan`.
    unsafe {
        if libc::chdir(plan.working_dir.as_ptr()) != 0 {
            fail(plan, Step::WorkingDir)
        }
        libc::execve(
            plan.program.as_ptr(),
            plan.argv.as_ptr(),
            plan.envp.as_ptr(),
        );
    }
    fail(plan, Step::Exec)
}

/// The program's cgroup is the root of what it sees, and it cannot write there.
fn show_own_cgroup(plan: &Plan) {
    let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | quiet;
    let path = c"/sys/fs/cgroup";
    // SAFETY: plain system calls on a plain number and a NUL-terminated string. The same file system
    // does not go over itself (EBUSY), so that the one there leaves this namespace first.
    let own = unsafe {
        libc::umount2(path.as_ptr(), libc::MNT_DETACH);
        libc::unshare(libc::CLONE_NEWCGROUP) == 0
    };
    if !own
        || mount(Some(c"cgroup2"), path, Some(c"cgroup2"), quiet, None) != 0
        || mount(None, path, None, read_only, None) != 0
    {
        fail(plan, Step::Cgroup)
    }
}

fn connect_streams(plan: &Plan) {
    let streams = [plan.stdin, plan.stdout, plan.stderr];
    for (target, source) in streams.into_iter().enumerate() {
        // SAFETY: plain system calls on plain numbers. The plan's descriptors are all above 2, so
        // that none is overwritten, and `dup2` clears close-on-exec on its copy.
        if unsafe { libc::dup2(source, target as c_int) } < 0 {
            fail(plan, Step::Streams)
        }
    }
    // SAFETY: as above. Whatever else is open goes at `execve`, the report pipe included.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked != 0 {
        fail(plan, Step::Streams)
    }
    if let Some(control) = plan.control {
        // SAFETY: as above; `fcntl` where it already is there, which `dup2` would leave as it is.
        let given = unsafe {
            if control == CONTROL_DESCRIPTOR {
                libc::fcntl(control, libc::F_SETFD, 0)
            } else {
                if plan.report == CONTROL_DESCRIPTOR {
                    fail(plan, Step::Streams) // It would go.
                }
                libc::dup2(control, CONTROL_DESCRIPTOR)
            }
        };
        if given < 0 {
            fail(plan, Step::Streams)
        }
    }
}
