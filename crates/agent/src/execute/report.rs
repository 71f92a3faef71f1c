//! Reports of a stage's init to the agent, over a pipe that the program does not have.

/// One report, written by init, or by the program's process before `execve`. A write below PIPE_BUF is atomic.
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

/// `execve` succeeded.
pub const STARTED: i32 = 1;
/// A step before `execve` failed; the program does not run.
pub const FAILED: i32 = 2;
/// The program ended.
pub const EXITED: i32 = 3;

/// The steps before `execve`, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Step {
    /// Make mounts private.
    PrivateMounts,
    /// Mount the stage's /proc.
    Proc,
    /// Make a kernel interface read-only.
    ReadOnly,
    /// Give the fork's boot id.
    BootId,
    /// Hide the agent's directory.
    Hide,
    /// Start the program's process.
    Clone,
    /// Show the stage's own cgroup, read-only.
    Cgroup,
    /// Enter the cgroup that bounds the processes.
    ProcessCgroup,
    /// Set the resource limits.
    Limits,
    /// Connect the standard streams.
    Streams,
    /// Make the terminal the controlling one.
    Terminal,
    /// Bound capabilities.
    Capabilities,
    /// Become the program's user.
    User,
    /// Enter the working directory.
    WorkingDir,
    /// Keep `execve` from adding privileges.
    NoNewPrivileges,
    /// Install the seccomp filter.
    Filter,
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
            BootId,
            Hide,
            Clone,
            Cgroup,
            ProcessCgroup,
            Limits,
            Streams,
            Terminal,
            Capabilities,
            User,
            WorkingDir,
            NoNewPrivileges,
            Filter,
            Exec,
        ]
        .into_iter()
        .find(|known| *known as i32 == step)
    }

    /// The step, to follow "cannot".
    pub fn describe(self) -> &'static str {
        match self {
            Step::PrivateMounts => "make the mount namespace private",
            Step::Proc => "mount /proc",
            Step::ReadOnly => "make /proc/sys and /sys read-only",
            Step::BootId => "bind the boot id",
            Step::Hide => "hide the agent's directory",
            Step::Clone => "start the program's process",
            Step::Cgroup => "mount the stage's cgroup",
            Step::ProcessCgroup => "enter the cgroup of the pids controller",
            Step::Limits => "set the program's resource limits (setrlimit)",
            Step::Streams => "connect the standard streams",
            Step::Terminal => "make the terminal the program's controlling terminal",
            Step::Capabilities => "bound the program's capabilities",
            Step::User => "become the program's user",
            Step::WorkingDir => "enter the working directory",
            Step::NoNewPrivileges => "set no_new_privs",
            Step::Filter => {
                "install the seccomp filter (the kernel needs CONFIG_SECCOMP_FILTER, or the request `unconfined`)"
            }
            Step::Exec => "execute the command",
        }
    }
}
