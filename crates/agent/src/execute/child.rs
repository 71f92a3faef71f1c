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

use std::ffi::{CStr, c_int, c_long, c_void};
use std::ptr::{null, null_mut};

use super::plan::Plan;

/// What init and the program write to the report pipe, in one `write` below PIPE_BUF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// [`STARTED`], [`FAILED`] or [`EXITED`].
    pub kind: i32,
    /// The [`Step`] that failed.
    pub step: i32,
    /// The failed step's errno, or the program's wait status.
    pub value: i32,
    /// Keeps `at_ns` aligned.
    pub reserved: i32,
    /// CLOCK_MONOTONIC when it was written, in nanoseconds.
    pub at_ns: u64,
}

/// The program was executed.
pub const STARTED: i32 = 1;
/// A step before that failed; nothing runs.
pub const FAILED: i32 = 2;
/// The program ended.
pub const EXITED: i32 = 3;

/// What can fail, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// Make mounts private.
    PrivateMounts,
    /// Mount the stage's /proc.
    Proc,
    /// Make a kernel interface read-only.
    ReadOnly,
    /// Hide the agent's directory.
    Hide,
    /// Start the program's process.
    Clone,
    /// Show the stage's own cgroup, read-only.
    Cgroup,
    /// Connect the standard streams.
    Streams,
    /// Bound capabilities.
    Capabilities,
    /// Become the image's user.
    User,
    /// Enter the working directory.
    WorkingDir,
    /// Execute the command.
    Exec,
}

impl Step {
    /// The step of a report.
    pub fn from_report(step: i32) -> Option<Step> {
        use Step::*;
        [
            PrivateMounts,
            Proc,
            ReadOnly,
            Hide,
            Clone,
            Cgroup,
            Streams,
            Capabilities,
            User,
            WorkingDir,
            Exec,
        ]
        .into_iter()
        .find(|known| *known as i32 == step)
    }

    /// What could not be done.
    pub fn describe(self) -> &'static str {
        match self {
            Step::PrivateMounts => "make the mount namespace private",
            Step::Proc => "mount /proc",
            Step::ReadOnly => "make /proc/sys and /sys read-only",
            Step::Hide => "hide the agent's directory",
            Step::Clone => "start the program's process",
            Step::Cgroup => "mount the stage's cgroup",
            Step::Streams => "connect the standard streams",
            Step::Capabilities => "bound the program's capabilities",
            Step::User => "become the image's user",
            Step::WorkingDir => "enter the working directory",
            Step::Exec => "execute the command",
        }
    }
}

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
    let namespaces =
        libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
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

fn errno() -> c_int {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() }
}

fn run_init(plan: &Plan) -> ! {
    // SAFETY: plain system calls on plain numbers. Not dumpable: nothing that runs as the same user
    // may look into this copy of the agent's memory. The stage does not outlive the agent's thread.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
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
    close_all_but([plan.report, -1, -1, -1, -1]);
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
}

/// Past this point not even a setuid program gets back what is dropped here.
fn bound_capabilities(plan: &Plan) {
    for capability in 0..64 {
        if plan.capabilities & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: a plain system call on plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            if errno() == libc::EINVAL {
                break; // Past the last capability that this kernel knows.
            }
            fail(plan, Step::Capabilities)
        }
    }
    // SAFETY: as above.
    unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
}

/// `struct __user_cap_header_struct` (include/uapi/linux/capability.h).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// Version 3: two words for each set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn become_user(plan: &Plan) {
    let (uid, gid) = (plan.user.uid, plan.user.gid);
    let groups = &plan.user.groups;
    // SAFETY: `groups` outlives the call. Raw calls: the C library's would signal threads that this
    // copy of the process does not have.
    let changed = unsafe {
        libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
    };
    if !changed {
        fail(plan, Step::User)
    }
    // Root keeps what is in the bound, others lost everything when they left user 0; nobody passes
    // anything on by inheritance.
    let kept = if uid == 0 { plan.capabilities } else { 0 };
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let sets: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: the header says how many words follow, and both outlive the call.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
        fail(plan, Step::Capabilities)
    }
}

/// The kernel's own calls: the C library keeps two signals to itself and resets neither.
fn reset_signals() {
    /// `struct sigaction` of the kernel (arch/x86/include/uapi/asm/signal.h); all-zero is SIG_DFL.
    const DEFAULT: [u64; 4] = [0; 4];
    const NONE: [u64; 1] = [0];
    // SAFETY: the structure and the set are as large as the kernel takes them, 8 bytes for a set.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                null_mut::<c_void>(),
                8,
            );
        }
        let set = libc::SIG_SETMASK;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            set,
            NONE.as_ptr(),
            null_mut::<c_void>(),
            8,
        );
    }
}

fn mount(
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

/// Best effort: what it sets only shifts whom the out-of-memory killer prefers.
fn write_file(path: &CStr, content: &[u8]) {
    // SAFETY: the pointers and length are those of `path` and `content`; the descriptor is ours.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, content.as_ptr().cast(), content.len());
            libc::close(file);
        }
    }
}

/// Close every descriptor above 2 but `kept`; -1 stands for none.
fn close_all_but(mut kept: [c_int; 5]) {
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

/// Close descriptors from `first` to before `end`.
fn close_range(first: u32, end: u32) {
    if first < end {
        let last = if end == u32::MAX { end } else { end - 1 };
        // SAFETY: this copy of the process has no owner of these descriptors that still acts.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

fn report(plan: &Plan, kind: i32, step: i32, value: i32) {
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

fn fail(plan: &Plan, step: Step) -> ! {
    report(plan, FAILED, step as i32, errno());
    exit(127)
}

fn exit(code: c_int) -> ! {
    // SAFETY: ends this process without running anything of the copied one.
    unsafe { libc::_exit(code) }
}
