//! The runner: an interpreter that is started in the template and waits there for its program.
//!
//! It is a run stage whose command has a hook in its start-up. The protocol, on descriptor 63: the hook
//! writes one byte when it waits. Then it reads to the end of the stream, fields that end with a NUL byte:
//! working directory, number of arguments, the arguments, the environment (`NAME=value`).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use cloude_protocol::agent::{
    Event, ExecuteRequest, ProcessLimits, Runner, StageName, StageResult,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::{self, Cgroup, OomWatch};
use super::clock::CpuBudget;
use super::environment::Environment;
use super::pipes::{self, Pipes};
use super::prepare::{self, Command};
use super::process::{self, monotonic_ns};
use super::relay::OutputLimit;
use super::sink::Sink;
use super::stage::{self, Running, StageSpec};
use super::{child, command, files, result};
use crate::user::User;

/// The directory of the hook's files.
const HOOK_DIR: &str = "/run/cloude-hook";

/// A waiting interpreter. Dropping it kills it, by its cgroup.
#[derive(Debug)]
pub struct Waiting {
    runner: Runner,
    user: User,
    pid: i32,
    pidfd: OwnedFd,
    pipes: Pipes,
    control: UnixStream,
    cgroup: Option<Cgroup>,
    before: Before,
}

/// Measured when the interpreter began to wait, so that a fork need not measure it.
#[derive(Debug)]
struct Before {
    cpu_time_us: u64,
    oom: OomWatch,
    available: Option<u64>,
}

/// Starts `runner` and returns once its hook waits for a program.
pub fn start(environment: &Environment, runner: Runner, user: &User) -> Result<Waiting, String> {
    let directory = environment
        .template
        .as_ref()
        .and_then(|template| template.hook_dir.as_deref())
        .unwrap_or(Path::new(HOOK_DIR));
    let failed =
        |error: &dyn std::fmt::Display| format!("hook files in {}: {error}", directory.display());
    std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    // The files stay: Node.js loads its hook again for each worker thread.
    files::write(directory, &runner.files, user).map_err(|error| failed(&error))?;
    start_in(environment, runner, user, directory)
}

fn start_in(
    environment: &Environment,
    runner: Runner,
    user: &User,
    directory: &Path,
) -> Result<Waiting, String> {
    let mut variables = command::environment(&environment.image, user, &runner.env);
    for (name, value) in &runner.hook_env {
        let value = value.replace("{dir}", &directory.to_string_lossy());
        variables.insert(name.clone(), value);
    }
    let (mut control, theirs) =
        UnixStream::pair().map_err(|error| format!("socketpair for the runner: {error}"))?;
    let command = Command {
        label: "warm",
        argv: &runner.argv,
        variables: &variables,
        working_dir: None,
        own_host_name: false,
        unconfined: false,
        limits: ProcessLimits::default(),
        terminal: None,
        control: Some(theirs.as_raw_fd()),
    };
    let prepared = prepare::prepare(environment, user, &command)?;
    let cgroup = prepared.cgroup;
    let (pid, pidfd) = child::clone_init(&prepared.plan).map_err(result::clone_failed)?;
    drop((prepared.ends, theirs));
    // SAFETY: the kernel made this descriptor for us just now.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let timeout = Duration::from_millis(runner.timeout_ms.max(1));
    let ready = control
        .set_read_timeout(Some(timeout))
        .and_then(|()| control.read_exact(&mut [0]));
    let before = Before {
        cpu_time_us: cgroup.as_ref().and_then(Cgroup::cpu_time_us).unwrap_or(0),
        oom: OomWatch::start(cgroup.as_ref()),
        available: cgroup::available_memory(),
    };
    let waiting = Waiting {
        runner,
        user: user.clone(),
        pid,
        pidfd,
        pipes: prepared.pipes,
        control,
        cgroup,
        before,
    };
    match ready {
        Ok(()) => Ok(waiting),
        Err(error) => {
            let mut stderr = Vec::new();
            if let Some(pipe) = &waiting.pipes.stderr {
                let _ = pipes::read_into(pipe, &mut stderr);
            }
            waiting.kill();
            Err(format!(
                "the runner's hook did not report within {} ms: {error}; its standard error: {:?}",
                timeout.as_millis(),
                String::from_utf8_lossy(&stderr)
            ))
        }
    }
}

impl Waiting {
    /// True if the program of `request` cannot tell that it runs in this interpreter instead of a new one.
    pub fn fits(&self, request: &ExecuteRequest, user: &User) -> bool {
        let runner = &self.runner;
        let same_rights = *user == self.user && !request.unconfined;
        let same_command = request.run.argv.starts_with(&runner.argv);
        let warm_env = request.env.iter().all(|(name, value)| {
            runner.env.get(name) == Some(value)
                || !runner.cold_env.iter().any(|cold| matches(cold, name))
        });
        // Variables that the interpreter read at its start and that the request sets differently.
        let same_env = runner.env.iter().all(|(name, value)| {
            request
                .env
                .get(name)
                .is_none_or(|requested| requested == value)
        });
        let alive = poll(
            &mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)],
            PollTimeout::ZERO,
        ) == Ok(0);
        // The interpreter resolved its working directory when it started.
        let same_directory = request.working_dir.is_none();
        // execve lays out memory by the stack limit, and interpreters derive their depth of recursion from it.
        let same_stack = request.run.limits.stack_bytes.is_none();
        // It has pipes, and its standard input ends.
        let same_streams = request.interactive.is_none();
        same_command
            && same_streams
            && same_rights
            && warm_env
            && same_env
            && same_directory
            && same_stack
            && alive
    }

    /// Sets the limits of the run stage from outside, while the interpreter waits. False if that is not possible: its
    /// limits are then undefined, and it must be killed.
    pub fn limit(&self, limits: &ProcessLimits) -> bool {
        // CPU time and processes are bounded by the cgroup, which can change at any time. Without the pids controller,
        // processes are bounded by RLIMIT_NPROC, which a new process sets for itself.
        let Some(cgroup) = &self.cgroup else {
            return *limits == ProcessLimits::default();
        };
        if limits.processes.is_some() {
            let most = cgroup::process_limit_of(limits);
            // An interpreter with more threads than that already would not have started with the limit.
            if !cgroup.set_processes(most) || cgroup.process_count().is_none_or(|now| now > most) {
                return false;
            }
        }
        // The kernel checks both at each open(2) and write(2). Descriptors that are open stay open.
        let set = [
            (libc::RLIMIT_NOFILE, limits.open_files),
            (libc::RLIMIT_FSIZE, limits.file_bytes),
        ];
        if set.iter().all(|(_, limit)| limit.is_none()) {
            return true;
        }
        let processes = cgroup.processes();
        !processes.is_empty()
            && processes.iter().all(|pid| {
                set.iter().all(|(resource, limit)| {
                    limit.is_none_or(|limit| process::set_limit(*pid, *resource, limit))
                })
            })
    }

    /// Sends the program of `request`, whose files are written, and attends the stage to its end. Also returns
    /// its cgroup.
    pub fn take_over(
        mut self,
        environment: &Environment,
        request: &ExecuteRequest,
        user: &User,
        sink: &mut dyn Sink,
    ) -> (StageResult, Option<Cgroup>) {
        let (started, started_ns) = (Instant::now(), monotonic_ns());
        let message = self.message(environment, request, user);
        sink.event(Event::Started {
            stage: StageName::Run,
        });
        // The end of the stream ends the message. An interpreter that is dead shows as the end of the stage.
        let _ = self.control.write_all(&message);
        drop(self.control);
        let limits = request.run.limits;
        let spec = StageSpec {
            name: StageName::Run,
            stdin: &request.stdin.0,
            wall_time: Duration::from_millis(request.run.wall_time_ms),
            cpu: limits
                .cpu_time_ms
                .zip(self.cgroup.as_ref())
                .map(|(ms, cgroup)| {
                    CpuBudget::new(cgroup, self.before.cpu_time_us, Duration::from_millis(ms))
                }),
            output: OutputLimit {
                bytes: request.run.output_bytes,
                tail_max: self.before.available.map_or(u64::MAX, |bytes| bytes / 8),
                kill: request.run.kill_at_output_limit,
            },
            console: environment.console.as_ref(),
            announced: true,
            port: None,
        };
        let running = Running {
            pid: self.pid,
            pidfd: self.pidfd,
            pipes: self.pipes,
            started,
            started_ns,
        };
        let observed = stage::attend(spec, running, sink);
        let oom_killed = self.before.oom.killed(self.cgroup.as_ref());
        let mut result = result::from_observed(
            &observed,
            self.cgroup.as_ref(),
            oom_killed,
            &environment.disk_limits(&limits),
        );
        result.cpu_time_us = result.cpu_time_us.saturating_sub(self.before.cpu_time_us);
        result.warm = true;
        (result, self.cgroup)
    }

    fn message(&self, environment: &Environment, request: &ExecuteRequest, user: &User) -> Vec<u8> {
        let arguments = &request.run.argv[self.runner.argv.len()..];
        let mut requested: BTreeMap<String, String> = self.runner.env.clone();
        requested.extend(request.env.clone());
        let variables = command::environment(&environment.image, user, &requested);
        let mut fields = vec![
            environment.work_dir.to_string_lossy().into_owned(),
            arguments.len().to_string(),
        ];
        fields.extend(arguments.iter().cloned());
        fields.extend(
            variables
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        fields
            .iter()
            .flat_map(|field| [field.as_bytes(), b"\0"].concat())
            .collect()
    }

    /// Kills and reaps it.
    pub fn kill(self) {
        // SAFETY: kill(2) and waitpid(2) on our child, which was not waited for: its id is not reused.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// True if `name` is `pattern`, or starts with it up to a final `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}
