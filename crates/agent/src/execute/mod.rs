//! `POST /execute`: compiles one program if its language compiles, runs it, and measures both.
//!
//! Each stage is a process tree in new PID, mount, IPC and UTS namespaces and in a cgroup of its own
//! ([`child`]). The agent stays outside: the program can neither see nor signal it. When a stage's init
//! exits, the kernel kills every process that is left in the namespace.
//!
//! - [`validate`]: refuses requests that cannot be carried out.
//! - [`files`]: writes the program's files.
//! - [`prepare`], [`child`], [`rights`], [`seccomp`]: from a command to `execve`.
//! - [`clock`], [`disk`]: limits that the agent enforces or recognizes itself.
//! - [`stage`], [`relay`]: relays streams until the process tree is dead; [`result`] makes the result of it.
//! - [`artifacts`], [`glob`], [`walk`]: the files that come back.
//! - [`input`], [`terminal`]: input while the program runs.
//! - [`warm`], [`runner`]: the template's warm-up, and interpreters that wait for their program.

pub mod artifacts;
pub mod cgroup;
pub mod child;
pub mod clock;
pub mod command;
pub mod disk;
pub mod elf;
pub mod environment;
pub mod files;
pub mod glob;
pub mod input;
pub mod output;
pub mod pipes;
pub mod plan;
pub mod prepare;
pub mod process;
pub mod raw;
pub mod ready;
pub mod refused_calls;
pub mod relay;
pub mod report;
pub mod result;
pub mod rights;
pub mod runner;
pub mod seccomp;
pub mod sink;
pub mod stage;
pub mod terminal;
pub mod validate;
pub mod walk;
pub mod warm;

use std::time::Duration;

use cloude_protocol::agent::{
    Cause, Event, ExecuteRequest, ExecuteResult, Stage, StageName, StageResult,
};

use self::cgroup::{Cgroup, OomWatch};
use self::clock::CpuBudget;
use self::input::InputPort;
use self::prepare::Command;
use self::relay::OutputLimit;
use self::runner::Waiting;
use self::sink::Sink;
use self::stage::StageSpec;
use crate::user::User;

pub use self::environment::{Environment, Template};
pub use self::validate::{RequestError, check};

/// Runs the stages of `request`, whose files are written, and sends every event, the last included. An
/// interactive run stage takes input from `port`. Returns the run stage's cgroup: dropping it removes it, which can wait until the response is sent.
pub fn execute(
    environment: &Environment,
    request: &ExecuteRequest,
    user: &User,
    waiting: Option<Waiting>,
    port: &InputPort,
    sink: &mut dyn Sink,
) -> Option<Cgroup> {
    Execution {
        environment,
        request,
        user,
        port,
        sink,
        waiting,
        cgroup: None,
    }
    .run()
}

struct Execution<'a> {
    environment: &'a Environment,
    request: &'a ExecuteRequest,
    user: &'a User,
    port: &'a InputPort,
    sink: &'a mut dyn Sink,
    waiting: Option<Waiting>,
    /// The run stage's cgroup, once that has ended.
    cgroup: Option<Cgroup>,
}

impl Execution<'_> {
    fn run(mut self) -> Option<Cgroup> {
        let request = self.request;
        let compile = request
            .compile
            .as_ref()
            .map(|stage| self.stage(StageName::Compile, stage, &[]));
        let compiled = compile.as_ref().is_none_or(result::succeeded);
        let run = (compiled && !self.sink.is_gone()).then(|| self.program());
        let ended = run
            .as_ref()
            .is_some_and(|run| run.cause != Cause::Infrastructure);
        let artifacts_dropped = match &request.artifacts {
            // Every process of the program is dead.
            Some(wanted) if ended && !self.sink.is_gone() => {
                artifacts::send(&self.environment.work_dir, wanted, self.sink)
            }
            _ => 0,
        };
        self.sink.event(Event::Finished(ExecuteResult {
            compile,
            run,
            artifacts_dropped,
        }));
        self.cgroup
    }

    /// The run stage: in the waiting interpreter if the request fits it, else from a new process.
    fn program(&mut self) -> StageResult {
        let request = self.request;
        match self.waiting.take() {
            Some(waiting)
                if waiting.fits(request, self.user) && waiting.limit(&request.run.limits) =>
            {
                let (result, cgroup) =
                    waiting.take_over(self.environment, request, self.user, self.sink);
                self.cgroup = cgroup;
                result
            }
            other => {
                if let Some(waiting) = other {
                    waiting.kill();
                }
                self.stage(StageName::Run, &request.run, &request.stdin.0)
            }
        }
    }

    fn stage(&mut self, name: StageName, stage: &Stage, stdin: &[u8]) -> StageResult {
        self.try_stage(name, stage, stdin)
            .unwrap_or_else(result::infrastructure)
    }

    fn try_stage(
        &mut self,
        name: StageName,
        stage: &Stage,
        stdin: &[u8],
    ) -> Result<StageResult, String> {
        let environment = self.environment;
        let interactive = match name {
            StageName::Compile => None,
            StageName::Run => self.request.interactive,
        };
        let terminal = interactive.and_then(|interactive| interactive.terminal);
        let mut variables = command::environment(&environment.image, self.user, &self.request.env);
        if terminal.is_some() {
            let kind = || "xterm-256color".to_owned();
            variables.entry("TERM".to_owned()).or_insert_with(kind);
        }
        let command = Command {
            label: match name {
                StageName::Compile => "compile",
                StageName::Run => "run",
            },
            argv: &stage.argv,
            variables: &variables,
            working_dir: self.request.working_dir.as_deref(),
            own_host_name: true,
            unconfined: self.request.unconfined,
            limits: stage.limits,
            terminal,
            control: None,
        };
        let prepared = prepare::prepare(environment, self.user, &command)?;
        let cgroup = prepared.cgroup;
        let spec = StageSpec {
            name,
            stdin,
            wall_time: Duration::from_millis(stage.wall_time_ms),
            cpu: stage
                .limits
                .cpu_time_ms
                .zip(cgroup.as_ref())
                .map(|(ms, cgroup)| CpuBudget::new(cgroup, 0, Duration::from_millis(ms))),
            output: OutputLimit {
                bytes: stage.output_bytes,
                tail_max: prepared.available.map_or(u64::MAX, |bytes| bytes / 8),
                kill: stage.kill_at_output_limit,
            },
            console: environment.console.as_ref(),
            announced: false,
            port: interactive.is_some().then_some(self.port),
        };
        let oom = OomWatch::start(cgroup.as_ref());
        let observed = stage::run(
            spec,
            &prepared.plan,
            prepared.pipes,
            prepared.ends,
            self.sink,
        )
        .map_err(result::clone_failed)?;
        let (program, working_dir) = (prepared.program, prepared.working_dir);
        if let Some((step, errno)) = observed.failed {
            return Err(result::failed_step(step, errno, &program, &working_dir));
        }
        let oom_killed = oom.killed(cgroup.as_ref());
        let disk = environment.disk_limits(&stage.limits);
        let mut result = result::from_observed(&observed, cgroup.as_ref(), oom_killed, &disk);
        result::explain_failed_load(&mut result, &working_dir.join(&program));
        if name == StageName::Run {
            self.cgroup = cgroup;
        }
        Ok(result)
    }
}
