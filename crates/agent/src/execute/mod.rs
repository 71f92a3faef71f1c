//! `POST /execute`: one program, compiled where it must be, run, and measured.
//!
//! The agent stays outside of what the program sees. Each stage is a process tree in PID, mount, IPC
//! and UTS namespaces and a cgroup of its own ([`child`]); its end is the end of everything in it.

pub mod cgroup;
pub mod child;
pub mod command;
pub mod elf;
mod environment;
pub mod files;
pub mod output;
pub mod pipes;
pub mod plan;
mod raw;
pub mod report;
mod result;
mod rights;
pub mod runner;
pub mod sink;
pub mod stage;
mod validate;
pub mod warm;

use std::ffi::CString;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use cloude_protocol::agent::{Event, ExecuteRequest, ExecuteResult, Stage, StageName, StageResult};

use self::cgroup::{Cgroup, OomWatch};
use self::plan::{CStringArray, PROGRAM_CAPABILITIES, Plan};
use self::runner::Waiting;
use self::sink::Sink;
use self::stage::{MAX_WALL_TIME, StageSpec};
use crate::user::User;

pub use self::environment::{Environment, Template};
pub use self::validate::{RequestError, check};

/// Run the stages of `request`, whose files are written, and send every event, the last included. Gives the run
/// stage's cgroup, to be dropped, which removes it, once the answer is sent.
pub fn execute(
    environment: &Environment,
    request: &ExecuteRequest,
    user: &User,
    waiting: Option<Waiting>,
    sink: &mut dyn Sink,
) -> Option<Cgroup> {
    Execution {
        environment,
        request,
        user,
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
    sink: &'a mut dyn Sink,
    waiting: Option<Waiting>,
    /// The run stage's, which has ended.
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
        self.sink
            .event(Event::Finished(ExecuteResult { compile, run }));
        self.cgroup
    }

    /// The run stage: by the interpreter that waits, or from the start.
    fn program(&mut self) -> StageResult {
        let request = self.request;
        match self.waiting.take() {
            Some(waiting) if waiting.fits(request) => {
                let (result, cgroup) =
                    waiting.take_over(self.environment, request, self.user, self.sink);
                self.cgroup = cgroup;
                result
            }
            other => {
                if let Some(waiting) = other {
                    waiting.give_up();
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
        let variables = command::environment(&environment.image, self.user, &self.request.env);
        let working_dir =
            command::working_dir(&environment.work_dir, self.request.working_dir.as_deref());
        let path = variables
            .get("PATH")
            .map(String::as_str)
            .unwrap_or_default();
        let program = command::look_up(&stage.argv[0], path, &working_dir)?;
        let (pipes, ends) =
            pipes::make(self.user).map_err(|errno| format!("no pipes for the program: {errno}"))?;
        let available = cgroup::available_memory();
        let cgroup = self.make_cgroup(name, available);
        let plan = Plan {
            program: command::c_path(&program),
            argv: CStringArray::new(
                stage
                    .argv
                    .iter()
                    .filter_map(|text| CString::new(text.as_str()).ok())
                    .collect(),
            ),
            envp: CStringArray::new(command::to_c_strings(&variables)),
            working_dir: command::c_path(&working_dir),
            user: self.user.clone(),
            capabilities: PROGRAM_CAPABILITIES,
            hidden: environment.hidden.as_deref().map(command::c_path),
            boot_id: environment.boot_id(),
            own_host_name: true,
            control: None,
            cgroup_fd: cgroup.as_ref().map(Cgroup::as_raw_fd),
            stdin: ends.stdin.as_raw_fd(),
            stdout: ends.stdout.as_raw_fd(),
            stderr: ends.stderr.as_raw_fd(),
            report: ends.report.as_raw_fd(),
        };
        let spec = StageSpec {
            name,
            stdin,
            wall_time: Duration::from_millis(stage.wall_time_ms).min(MAX_WALL_TIME),
            output_bytes: stage.output_bytes,
            tail_max: available.map_or(u64::MAX, |bytes| bytes / 8),
            console: environment.console.as_ref(),
            announced: false,
        };
        let oom = OomWatch::start(cgroup.as_ref());
        let observed = stage::run(&spec, &plan, pipes, ends, self.sink).map_err(|errno| {
            format!(
                "could not make the program's namespaces: {}",
                result::system(errno)
            )
        })?;
        if let Some((step, errno)) = observed.failed {
            return Err(result::failed_step(step, errno, &program, &working_dir));
        }
        let oom_killed = oom.killed(cgroup.as_ref());
        let mut result = result::from_observed(&observed, cgroup.as_ref(), oom_killed);
        result::explain_failed_load(&mut result, &working_dir.join(&program));
        if name == StageName::Run {
            self.cgroup = cgroup;
        }
        Ok(result)
    }

    /// A stage without a cgroup runs all the same; its numbers are then the kernel's per process.
    fn make_cgroup(&self, name: StageName, available: Option<u64>) -> Option<Cgroup> {
        let root = self.environment.cgroup_root.as_deref()?;
        let name = match name {
            StageName::Compile => "compile",
            StageName::Run => "run",
        };
        let name = format!("cloude-{}-{name}", std::process::id());
        Cgroup::create(root, &name, available.map(cgroup::program_memory)).ok()
    }
}
