//! Everything that a stage needs before its init is made: pipes, cgroup and [`Plan`].

use std::collections::BTreeMap;
use std::ffi::{CString, c_int};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use cloude_protocol::agent::{ProcessLimits, TerminalSize};

use super::cgroup::{self, Cgroup};
use super::command;
use super::environment::Environment;
use super::pipes::{self, Pipes, ProgramEnds};
use super::plan::{CStringArray, PROGRAM_CAPABILITIES, Plan};
use super::seccomp;
use crate::user::User;

/// A command, and how its stage differs from others.
#[derive(Debug)]
pub struct Command<'a> {
    /// Last part of the cgroup's name: `compile`, `run` or `warm`.
    pub label: &'a str,
    /// The program and its arguments. At least one.
    pub argv: &'a [String],
    /// The whole environment.
    pub variables: &'a BTreeMap<String, String>,
    /// Relative to the work directory; the work directory if none.
    pub working_dir: Option<&'a str>,
    /// The stage has a UTS namespace.
    pub own_host_name: bool,
    /// Without the seccomp filter.
    pub unconfined: bool,
    /// Limits of its processes.
    pub limits: ProcessLimits,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<TerminalSize>,
    /// The control socket of an interpreter that waits for its program.
    pub control: Option<c_int>,
}

/// A stage that is ready to start.
#[derive(Debug)]
pub struct Prepared {
    /// For the processes between `clone3` and `execve`.
    pub plan: Plan,
    /// The agent's ends.
    pub pipes: Pipes,
    /// The program's ends; the descriptors of `plan`.
    pub ends: ProgramEnds,
    /// None if the guest has no cgroup2 file system: times and memory then come from wait4(2).
    pub cgroup: Option<Cgroup>,
    /// The file to execute.
    pub program: PathBuf,
    /// The absolute working directory.
    pub working_dir: PathBuf,
    /// MemAvailable before the stage started, in bytes.
    pub available: Option<u64>,
}

/// Looks the command up and allocates all that its processes need.
pub fn prepare(
    environment: &Environment,
    user: &User,
    command: &Command<'_>,
) -> Result<Prepared, String> {
    let working_dir = command::working_dir(&environment.work_dir, command.working_dir);
    let path = command.variables.get("PATH").map_or("", String::as_str);
    let name = command.argv.first().ok_or("the command is empty")?;
    let program = command::look_up(name, path, &working_dir)?;
    let (pipes, ends) = match command.terminal {
        None => pipes::make(user)
            .map_err(|errno| format!("cannot make the program's pipes: {errno}"))?,
        Some(size) => pipes::make_terminal(user, size)
            .map_err(|error| format!("cannot make the program's terminal: {error}"))?,
    };
    let available = cgroup::available_memory();
    let processes = cgroup::process_limit_of(&command.limits);
    let cgroup = environment.cgroups.as_ref().and_then(|roots| {
        let name = format!("cloude-{}-{}", std::process::id(), command.label);
        let memory_max = available.map(cgroup::program_memory);
        Cgroup::create(roots, &name, memory_max, processes).ok()
    });
    if command.limits.cpu_time_ms.is_some() && cgroup.is_none() {
        return Err(
            "cpu_time_ms needs a cgroup2 file system, which the guest's kernel lacks".into(),
        );
    }
    let argv = command.argv.iter();
    let plan = Plan {
        program: command::c_path(&program),
        argv: CStringArray::new(
            argv.filter_map(|text| CString::new(text.as_str()).ok())
                .collect(),
        ),
        envp: CStringArray::new(command::to_c_strings(command.variables)),
        working_dir: command::c_path(&working_dir),
        user: user.clone(),
        capabilities: if user.uid == 0 {
            PROGRAM_CAPABILITIES
        } else {
            0
        },
        processes: (!cgroup.as_ref().is_some_and(Cgroup::bounds_processes)).then_some(processes),
        open_files: command.limits.open_files,
        file_bytes: command.limits.file_bytes,
        stack_bytes: command.limits.stack_bytes,
        filter: seccomp::filters().of(command.unconfined, user.uid == 0),
        hidden: environment.hidden.as_deref().map(command::c_path),
        boot_id: environment.boot_id(),
        own_host_name: command.own_host_name,
        control: command.control,
        terminal: command.terminal.is_some(),
        cgroup_fd: cgroup.as_ref().map(Cgroup::as_raw_fd),
        pids_v1_fd: cgroup.as_ref().and_then(Cgroup::procs_v1),
        stdin: ends.stdin.as_raw_fd(),
        stdout: ends.stdout.as_raw_fd(),
        stderr: ends.stderr.as_raw_fd(),
        report: ends.report.as_raw_fd(),
    };
    Ok(Prepared {
        plan,
        pipes,
        ends,
        cgroup,
        program,
        working_dir,
        available,
    })
}
