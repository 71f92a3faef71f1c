//! An interpreter that was started before its program was known, and then takes one.
//!
//! It is a run stage like any other, whose command has a hook in its start-up: on descriptor 63 the
//! hook says that it waits, with one byte, and then reads until the end, fields that end with NUL:
//! the working directory, the number of arguments, the arguments, and the environment.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use cloude_protocol::agent::{Event, ExecuteRequest, Runner, StageName, StageResult};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::{self, Cgroup, OomWatch};
use super::environment::Environment;
use super::pipes::{self, Pipes};
use super::plan::{CStringArray, PROGRAM_CAPABILITIES, Plan};
use super::sink::Sink;
use super::stage::{self, MAX_WALL_TIME, StageSpec};
use super::{child, command, files, result};
use crate::user::User;

/// Where the hook's files are.
const HOOK_DIR: &str = "/run/cloude-hook";

/// A waiting interpreter. Killed when dropped, as its cgroup is.
#[derive(Debug)]
pub struct Waiting {
    runner: Runner,
    pid: i32,
    pidfd: OwnedFd,
    pipes: Pipes,
    control: UnixStream,
    cgroup: Option<Cgroup>,
    before: Before,
}

/// What is the same at the takeover as when it began to wait, and takes time to find out.
#[derive(Debug)]
struct Before {
    cpu_time_us: u64,
    oom: OomWatch,
    available: Option<u64>,
}

/// Start `runner` and wait until its hook does.
pub fn start(environment: &Environment, runner: Runner, user: &User) -> Result<Waiting, String> {
    let directory = environment
        .template
        .as_ref()
        .and_then(|template| template.hook_dir.as_deref())
        .unwrap_or(Path::new(HOOK_DIR));
    let cannot = |error: &dyn std::fmt::Display| format!("the hook's files: {error}");
    std::fs::create_dir_all(directory).map_err(|error| cannot(&error))?;
    // They stay: what an interpreter has loaded it may load again, as Node.js does for each worker.
    files::write(directory, &runner.files, user).map_err(|error| cannot(&error))?;
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
    let path = variables.get("PATH").cloned().unwrap_or_default();
    let working_dir = command::working_dir(&environment.work_dir, None);
    let name = runner.argv.first().ok_or("the runner has no command")?;
    let program = command::look_up(name, &path, &working_dir)?;
    let (pipes, ends) = pipes::make(user).map_err(|errno| format!("no pipes: {errno}"))?;
    let (mut control, theirs) =
        UnixStream::pair().map_err(|error| format!("no control socket: {error}"))?;
    let available = cgroup::available_memory();
    let cgroup = environment.cgroup_root.as_deref().and_then(|root| {
        let name = format!("cloude-{}-warm", std::process::id());
        Cgroup::create(root, &name, available.map(cgroup::program_memory)).ok()
    });
    let arguments = runner.argv.iter();
    let plan = Plan {
        program: command::c_path(&program),
        argv: CStringArray::new(
            arguments
                .filter_map(|text| CString::new(text.as_str()).ok())
                .collect(),
        ),
        envp: CStringArray::new(command::to_c_strings(&variables)),
        working_dir: command::c_path(&working_dir),
        user: user.clone(),
        capabilities: PROGRAM_CAPABILITIES,
        hidden: environment.hidden.as_deref().map(command::c_path),
        boot_id: environment.boot_id(),
        own_host_name: false,
        control: Some(theirs.as_raw_fd()),
        cgroup_fd: cgroup.as_ref().map(Cgroup::as_raw_fd),
        stdin: ends.stdin.as_raw_fd(),
        stdout: ends.stdout.as_raw_fd(),
        stderr: ends.stderr.as_raw_fd(),
        report: ends.report.as_raw_fd(),
    };
    let (pid, pidfd) = child::clone_init(&plan)
        .map_err(|errno| format!("no namespaces: {}", result::system(errno)))?;
    drop((ends, theirs));
    // SAFETY: the kernel made this descriptor for us just now.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let patience = Duration::from_millis(runner.timeout_ms.max(1));
    let waits = control
        .set_read_timeout(Some(patience))
        .and_then(|()| control.read_exact(&mut [0]));
    let before = Before {
        cpu_time_us: cgroup.as_ref().and_then(Cgroup::cpu_time_us).unwrap_or(0),
        oom: OomWatch::start(cgroup.as_ref()),
        available: cgroup::available_memory(),
    };
    let waiting = Waiting {
        runner,
        pid,
        pidfd,
        pipes,
        control,
        cgroup,
        before,
    };
    match waits {
        Ok(()) => Ok(waiting),
        Err(error) => {
            let mut said = String::new();
            let mut bytes = Vec::new();
            if pipes::read_into(&waiting.pipes.stderr, &mut bytes).is_ok() {
                said = String::from_utf8_lossy(&bytes).into_owned();
            }
            waiting.give_up();
            Err(format!(
                "the runner does not wait: {error}; it said {said:?}"
            ))
        }
    }
}

impl Waiting {
    /// Whether it can become the program of `request` so that nothing differs from a plain start.
    pub fn fits(&self, request: &ExecuteRequest) -> bool {
        let runner = &self.runner;
        let same_command = request.run.argv.starts_with(&runner.argv);
        let warm_env = request.env.iter().all(|(name, value)| {
            runner.env.get(name) == Some(value)
                || !runner.cold_env.iter().any(|cold| matches(cold, name))
        });
        // What it read at its start and the request does not have would be missing from a plain one.
        let kept_env = runner.env.iter().all(|(name, value)| {
            request
                .env
                .get(name)
                .is_none_or(|requested| requested == value)
        });
        let lives = poll(
            &mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)],
            PollTimeout::ZERO,
        ) == Ok(0);
        // Interpreters resolve the program's path as they start.
        same_command && warm_env && kept_env && request.working_dir.is_none() && lives
    }

    /// Become the program of `request`, whose files are written, and go on to its end. Also gives the cgroup
    /// that it was in.
    pub fn take_over(
        mut self,
        environment: &Environment,
        request: &ExecuteRequest,
        user: &User,
        sink: &mut dyn Sink,
    ) -> (StageResult, Option<Cgroup>) {
        let (started, started_ns) = (Instant::now(), stage::monotonic_ns());
        let message = self.message(environment, request, user);
        sink.event(Event::Started {
            stage: StageName::Run,
        });
        // The end of the stream ends the message. A message that cannot be sent is seen as the end of
        // the interpreter.
        let _ = self.control.write_all(&message);
        drop(self.control);
        let spec = StageSpec {
            name: StageName::Run,
            stdin: &request.stdin.0,
            wall_time: Duration::from_millis(request.run.wall_time_ms).min(MAX_WALL_TIME),
            output_bytes: request.run.output_bytes,
            tail_max: self.before.available.map_or(u64::MAX, |bytes| bytes / 8),
            console: environment.console.as_ref(),
            announced: true,
        };
        let (pid, pidfd, pipes) = (self.pid, self.pidfd, self.pipes);
        let seen = stage::attend(&spec, pid, pidfd, pipes, sink, started, started_ns);
        let oom_killed = self.before.oom.killed(self.cgroup.as_ref());
        let mut result = result::from_observed(&seen, self.cgroup.as_ref(), oom_killed);
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

    /// End it, for a plain start in its place.
    pub fn give_up(self) {
        // SAFETY: plain system calls on our own child, which was not waited for yet.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// Whether a variable is named by `pattern`, exact or a prefix ending in `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}
