//! `POST /execute`: one program, compiled where it must be, run, and measured.
//!
//! The agent stays outside of what the program sees. Each stage is a process tree in PID, mount, IPC
//! and UTS namespaces and a cgroup of its own ([`child`]); its end is the end of everything in it.

pub mod cgroup;
pub mod child;
pub mod command;
pub mod elf;
pub mod files;
pub mod output;
pub mod pipes;
pub mod plan;
pub mod report;
mod result;
mod rights;
pub mod runner;
pub mod sink;
pub mod stage;
pub mod warm;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloude_protocol::agent::{Event, ExecuteRequest, ExecuteResult, Stage, StageName, StageResult};
use cloude_protocol::boot::ImageConfig;

use self::cgroup::{Cgroup, OomWatch};
use self::plan::{CStringArray, PROGRAM_CAPABILITIES, Plan};
use self::runner::Waiting;
use self::sink::Sink;
use self::stage::StageSpec;
use crate::user::{User, UserError};

/// Never more wall clock than this for a stage: a year, which no clock overflows on.
const MAX_WALL_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where and as whom programs run.
#[derive(Debug)]
pub struct Environment {
    /// Files are written here, and programs start here. Owned by the image's user.
    pub work_dir: PathBuf,
    /// What the image says.
    pub image: ImageConfig,
    /// A directory that programs see empty.
    pub hidden: Option<PathBuf>,
    /// A mounted cgroup2 file system.
    pub cgroup_root: Option<PathBuf>,
    /// Takes a copy of what programs print. Does not block.
    pub console: Option<File>,
    /// This VM is to be forked.
    pub template: Option<Template>,
}

/// What a template has beside.
#[derive(Debug, Default)]
pub struct Template {
    /// Bound over the stages' /proc/sys/kernel/random/boot_id.
    pub boot_id: Option<PathBuf>,
    /// Where a hook's files go, `/run/cloude-hook` if none.
    pub hook_dir: Option<PathBuf>,
}

impl Environment {
    fn boot_id(&self) -> Option<CString> {
        let path = self.template.as_ref()?.boot_id.as_deref()?;
        Some(command::c_path(path))
    }

    /// The image's user, as its own files have it.
    pub fn user(&self) -> Result<User, UserError> {
        User::look_up(&self.image.user, Path::new("/"))
    }
}

/// What is wrong with a request; the answer is 400.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A file.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// A stage without a command.
    #[error("{stage}.argv is empty: give the program and its arguments")]
    NoCommand {
        /// `compile` or `run`.
        stage: &'static str,
    },
    /// A stage without time.
    #[error("{stage}.wall_time_ms is 0: give at least 1")]
    NoTime {
        /// `compile` or `run`.
        stage: &'static str,
    },
    /// A string that the kernel cannot take.
    #[error("{what} holds a NUL byte, which no program can be given")]
    Nul {
        /// Which string.
        what: String,
    },
    /// A variable's name that is none.
    #[error("environment variable name {0:?} is empty or holds `=`")]
    VariableName(String),
}

/// Refuse what cannot be carried out, before anything is done.
pub fn check(request: &ExecuteRequest) -> Result<(), RequestError> {
    request.files.iter().try_for_each(files::check)?;
    let stages = request
        .compile
        .iter()
        .map(|stage| ("compile", stage))
        .chain([("run", &request.run)]);
    for (name, stage) in stages {
        if stage.argv.first().is_none_or(String::is_empty) {
            return Err(RequestError::NoCommand { stage: name });
        }
        if stage.wall_time_ms == 0 {
            return Err(RequestError::NoTime { stage: name });
        }
        if stage.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(RequestError::Nul {
                what: format!("{name}.argv"),
            });
        }
    }
    for (name, value) in &request.env {
        if name.is_empty() || name.contains('=') {
            return Err(RequestError::VariableName(name.clone()));
        }
        if name.contains('\0') || value.contains('\0') {
            return Err(RequestError::Nul {
                what: format!("env.{name}"),
            });
        }
    }
    match &request.working_dir {
        Some(path) if path.contains('\0') => Err(RequestError::Nul {
            what: "working_dir".into(),
        }),
        _ => Ok(()),
    }
}

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
        Cgroup::create(root, &name, available.map(program_memory)).ok()
    }
}

/// What a program may use of what is available: all but a little, with which the agent can still
/// say that it was too much.
fn program_memory(available: u64) -> u64 {
    const AT_LEAST: u64 = 4 << 20;
    available
        .saturating_sub((available / 32).max(AT_LEAST))
        .max(AT_LEAST)
}
