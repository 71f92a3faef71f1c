//! Between `clone3` and `execve`: the two processes of a stage, in its new namespaces.
//!
//! - **init**, PID 1 of the PID namespace: mounts a new /proc, hides the agent's files, starts the program,
//!   reaps orphans, reports the program's wait status and exits. The kernel then kills every process that is
//!   left in the namespace.
//! - **the program**: drops capabilities, becomes its user, confines itself and calls `execve`.
//!
//! Both are copies of a process with several threads. A thread that does not exist in the copy may have held
//! any lock, so nothing here allocates, panics or calls a function that may lock. All memory is in [`Plan`],
//! allocated before. Raw system calls replace C library functions that walk the list of threads.

use std::ffi::{CStr, c_int, c_long};
use std::ptr::null_mut;

use super::plan::{CONTROL_DESCRIPTOR, Plan};
use super::raw::{close_all_but, errno, exit, fail, mount, report, write_file};
use super::report::{EXITED, STARTED, Step};
use super::rights::{become_user, bound_capabilities, confine, reset_signals};

/// Kernel interfaces that uid 0 can write without a capability. core_pattern and modprobe run programs outside
/// of the stage's namespaces; sysrq-trigger powers the VM off.
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

/// Starts a stage's init. Returns its process id and pidfd, or the errno of `clone3`.
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
    // SAFETY: `args` and `pidfd` outlive the call. Without CLONE_VM the child has a copy of all memory; it
    // calls `run_init`, which obeys the rules of this module.
    match unsafe { clone3(&args) } {
        0 => run_init(plan),
        pid if pid > 0 => Ok((pid as i32, pidfd)),
        _ => Err(errno()),
    }
}

/// # Safety
/// As for fork(2): the child must obey the rules of this module.
unsafe fn clone3(args: &CloneArgs) -> c_long {
    // SAFETY: the pointer and size describe `args`; the caller obeys the rules for the child.
    unsafe { libc::syscall(libc::SYS_clone3, &raw const *args, size_of::<CloneArgs>()) }
}

fn run_init(plan: &Plan) -> ! {
    // SAFETY: system calls with numbers alone. Not dumpable: no process of the same user may read this copy of
    // the agent's memory with ptrace(2). PDEATHSIG: a stage ends with the agent's thread.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        // A waiting interpreter outlives the thread that started it; it ends with its control socket.
        if plan.control.is_none() {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        }
        libc::setsid();
    }
    close_all_but(plan.descriptors());
    write_file(c"/proc/self/oom_score_adj", b"-1000");
    prepare_mounts(plan);
    let mut args = CloneArgs {
        // Init continues after the child's execve or exit. Memory is not shared (no CLONE_VM).
        flags: libc::CLONE_VFORK as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = plan.cgroup_fd {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup as u64;
    }
    // SAFETY: `args` outlives the call; the child obeys the rules of this module.
    let program = match unsafe { clone3(&args) } {
        0 => run_program(plan),
        pid if pid > 0 => pid as i32,
        _ => fail(plan, Step::Clone),
    };
    report(plan, STARTED, 0, 0);
    close_all_but([plan.report, -1, -1, -1, -1, -1, -1]);
    let status = reap_until(program);
    report(plan, EXITED, 0, status);
    exit(0)
}

/// Reaps every process that dies in the namespace, up to the program. Returns the program's wait status.
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
        // ENOENT: this kernel lacks the interface.
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
    // EINVAL: no file system is mounted on /sys.
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
    if let Some(procs) = plan.pids_v1_fd {
        enter_pids_v1(plan, procs);
    }
    if plan.cgroup_fd.is_some() {
        show_own_cgroup(plan);
    }
    // SAFETY: system calls with numbers alone.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
    }
    write_file(c"/proc/self/oom_score_adj", b"0");
    connect_streams(plan);
    // SAFETY: a system call with numbers alone. This process leads a session without a terminal.
    if plan.terminal && unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } != 0 {
        fail(plan, Step::Terminal)
    }
    // No file is opened after it: a low limit of open files would refuse it.
    set_limits(plan);
    bound_capabilities(plan);
    become_user(plan);
    reset_signals();
    // SAFETY: `plan` holds the NUL-terminated strings and the null-terminated arrays of them.
    unsafe {
        if libc::chdir(plan.working_dir.as_ptr()) != 0 {
            fail(plan, Step::WorkingDir)
        }
    }
    confine(plan);
    // SAFETY: as above.
    unsafe {
        libc::execve(
            plan.program.as_ptr(),
            plan.argv.as_ptr(),
            plan.envp.as_ptr(),
        );
    }
    fail(plan, Step::Exec)
}

fn enter_pids_v1(plan: &Plan, procs: c_int) {
    // SAFETY: the pointer and length are those of one byte. "0" is the writing process.
    if unsafe { libc::write(procs, b"0".as_ptr().cast(), 1) } != 1 {
        fail(plan, Step::ProcessCgroup)
    }
}

/// Sets resource limits. Those of a request are soft and hard: without CAP_SYS_RESOURCE nobody raises them again.
fn set_limits(plan: &Plan) {
    let set = |resource, soft, hard| {
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        // SAFETY: the structure outlives the call.
        unsafe { libc::setrlimit(resource, &limit) == 0 }
    };
    set(libc::RLIMIT_CORE, 0, libc::RLIM_INFINITY);
    let processes = match plan.processes {
        Some(limit) => limit,
        None => libc::RLIM_INFINITY,
    };
    set(libc::RLIMIT_NPROC, processes, processes);
    if plan.open_files.is_none() {
        set(libc::RLIMIT_NOFILE, 1024, 524_288);
    }
    for (resource, limit) in [
        (libc::RLIMIT_NOFILE, plan.open_files),
        (libc::RLIMIT_FSIZE, plan.file_bytes),
        (libc::RLIMIT_STACK, plan.stack_bytes),
    ] {
        if let Some(limit) = limit
            && !set(resource, limit, limit)
        {
            fail(plan, Step::Limits)
        }
    }
}

/// Mounts the program's cgroup as the root of /sys/fs/cgroup, read-only.
fn show_own_cgroup(plan: &Plan) {
    let quiet = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | quiet;
    let path = c"/sys/fs/cgroup";
    // SAFETY: system calls with numbers and a NUL-terminated string. The old mount is detached first: mounting
    // the same file system over it fails with EBUSY.
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
        // SAFETY: a system call with numbers alone. All descriptors of the plan are above 2, so that none is
        // overwritten. dup2 clears close-on-exec on the copy.
        if unsafe { libc::dup2(source, target as c_int) } < 0 {
            fail(plan, Step::Streams)
        }
    }
    // SAFETY: as above. execve closes all other descriptors, the report pipe included.
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
        // SAFETY: as above. dup2 of a descriptor onto itself would not clear close-on-exec.
        let given = unsafe {
            if control == CONTROL_DESCRIPTOR {
                libc::fcntl(control, libc::F_SETFD, 0)
            } else {
                if plan.report == CONTROL_DESCRIPTOR {
                    fail(plan, Step::Streams) // dup2 would close it.
                }
                libc::dup2(control, CONTROL_DESCRIPTOR)
            }
        };
        if given < 0 {
            fail(plan, Step::Streams)
        }
    }
}
