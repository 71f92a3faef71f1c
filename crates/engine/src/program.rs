//! Running one program, from its text to its output.

use std::sync::Arc;
use std::time::Duration;

use cloude_protocol::agent::{
    Event, ExecuteRequest, ExecuteResult, File, Stage, StageName, Stream,
};
use cloude_protocol::api::StartKind;
use cloude_protocol::language::{Command, Language};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::Failure;
use crate::guest::{self, AgentError, Connection};
use crate::images::Images as _;
use crate::languages::Source;
use crate::launched::Launched;
use crate::launcher::Launcher as _;
use crate::machine::{MEMORY_STEP_MIB, MachineSpec};

/// Wall-clock limit of a stage whose language file sets none, in milliseconds.
const WALL_TIME_MS: u64 = 30_000;
/// Bytes of each output stream that are returned, at most.
const OUTPUT_BYTES: u64 = 1 << 20;
/// A guest may send this many bytes beyond the limit: head and tail of a stream are rounded to chunks.
const OUTPUT_SLACK: usize = 256 << 10;
/// After a broken connection, the time to wait for the VM's end, which explains it.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A program to run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// A name or alias of [`Engine::languages`].
    pub language: String,
    /// The source code.
    pub code: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Standard input.
    pub stdin: Vec<u8>,
}

impl Program {
    /// A program without arguments and input.
    pub fn new(language: impl Into<String>, code: impl Into<String>) -> Self {
        Program {
            language: language.into(),
            code: code.into(),
            ..Program::default()
        }
    }
}

/// A finished program.
#[derive(Clone, Debug)]
pub struct Output {
    /// Standard output of the program, at most 1 MiB.
    pub stdout: Vec<u8>,
    /// Standard error of the program, or of the compiler if that failed; at most 1 MiB.
    pub stderr: Vec<u8>,
    /// Exit code or signal, times and peak memory of each stage.
    pub result: ExecuteResult,
    /// Whether the VM was booted, forked, or taken from the pool.
    pub start: StartKind,
}

/// A program that could not be run. A program that fails is an [`Output`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No language has this name.
    #[error("there is no language `{name}`; there are {known}")]
    Language {
        /// The name of the program's language.
        name: String,
        /// All names.
        known: String,
    },
    /// The language finds no program in the code.
    #[error("{0}")]
    Code(String),
    /// The language has no image, and building one failed.
    #[error("{0}")]
    Image(String),
    /// The VM failed.
    #[error(transparent)]
    Vm(#[from] Failure),
    /// The agent in the VM failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl Engine {
    /// Runs a program in a fresh VM of its language's default machine, without a network. The VM is gone when
    /// this returns. Dropping the future kills the VM.
    pub async fn run(&self, program: &Program) -> Result<Output, RunError> {
        let language =
            self.languages()
                .find(&program.language)
                .ok_or_else(|| RunError::Language {
                    name: program.language.clone(),
                    known: self.languages().supported(),
                })?;
        let mut request = request(language, program)?;
        let (machine, vm) = (&language.machine, &self.config().vm);
        let memory_mib = machine
            .memory_mib
            .unwrap_or(vm.memory_mib)
            .next_multiple_of(MEMORY_STEP_MIB);
        let image = self
            .images()
            .ensure(language, memory_mib)
            .await
            .map_err(RunError::Image)?;
        let spec = MachineSpec {
            id: request.id.clone(),
            image: image.path,
            language: Arc::clone(language),
            vcpus: machine.vcpus.unwrap_or(vm.vcpus),
            memory_mib,
            network: false,
            start: None,
        };
        let Launched {
            stream,
            token,
            start,
            template,
            network,
            mut machine,
            ..
        } = self.launch(spec, CancellationToken::new()).await?;
        if template.is_some() {
            let identity = guest::new_identity(&request.id, network)
                .map_err(|error| Failure::infrastructure(format!("an identity: {error}")))?;
            request.identity = Some(identity);
        }
        let mut events = Events::default();
        let compile_ms = request
            .compile
            .as_ref()
            .map_or(0, |stage| stage.wall_time_ms);
        let limit_ms = compile_ms + request.run.wall_time_ms + self.config().agent.grace_ms;
        let exchange = guest::execute(stream, &token, &request, |event| events.push(event));
        let executed = tokio::select! {
            biased;
            executed = exchange => executed.map_err(RunError::from),
            failure = machine.failed() => Err(failure.into()),
            () = tokio::time::sleep(Duration::from_millis(limit_ms)) => {
                Err(Failure::infrastructure("the VM did not answer within its wall-clock limits").into())
            }
        };
        let executed = match executed {
            // Usually the VM ended, and its worker has the reason.
            Err(RunError::Agent(error)) if error.is_connection() => {
                match tokio::time::timeout(END_TIMEOUT, machine.failed()).await {
                    Ok(failure) => Err(failure.into()),
                    Err(_) => Err(RunError::Agent(error)),
                }
            }
            other => other,
        };
        machine.stop().await;
        if let Some(template) = &template {
            self.report(template, events.began, &executed);
        }
        drop(executed?);
        events.output(start)
    }
}

impl Engine {
    /// Reports a fork. A program that began proves that the fork works, whatever its end.
    fn report(&self, template: &str, began: bool, executed: &Result<Connection, RunError>) {
        match executed {
            _ if began => self.report_fork(template, Ok(())),
            Err(RunError::Vm(failure)) => self.report_fork(template, Err(failure)),
            Err(RunError::Agent(error)) if !error.is_refused_request() => {
                self.report_fork(template, Err(&Failure::infrastructure(error.to_string())));
            }
            _ => {}
        }
    }
}

/// Output and result, from the agent's events.
#[derive(Default)]
struct Events {
    compile: [Vec<u8>; 2],
    run: [Vec<u8>; 2],
    result: Option<ExecuteResult>,
    /// The agent reported something of the program.
    began: bool,
    /// A stream was longer than its limit.
    excess: bool,
}

impl Events {
    fn push(&mut self, event: Event) {
        self.began |= !matches!(event, Event::Identity);
        match event {
            Event::Output {
                stage,
                stream,
                data,
            } => {
                let streams = match stage {
                    StageName::Compile => &mut self.compile,
                    StageName::Run => &mut self.run,
                };
                let index = match stream {
                    Stream::Stdout => 0,
                    Stream::Stderr => 1,
                };
                // The agent observes the limit; a program that replaced it may not.
                if streams[index].len() + data.0.len() > OUTPUT_BYTES as usize + OUTPUT_SLACK {
                    self.excess = true;
                } else {
                    streams[index].extend(data.0);
                }
            }
            Event::Finished(result) => self.result = Some(result),
            Event::Identity | Event::Started { .. } | Event::Dropped { .. } => {}
        }
    }

    fn output(self, start: StartKind) -> Result<Output, RunError> {
        if self.excess {
            return Err(
                Failure::infrastructure("the guest sent more output than its limit").into(),
            );
        }
        let result = self.result.ok_or(AgentError::Incomplete)?;
        let [stdout, stderr] = match result.run {
            Some(_) => self.run,
            None => self.compile,
        };
        Ok(Output {
            stdout,
            stderr,
            result,
            start,
        })
    }
}

fn request(language: &Language, program: &Program) -> Result<ExecuteRequest, RunError> {
    let source = Source::of(language, &program.code, None).map_err(RunError::Code)?;
    let stage = |command: &Command, argv| Stage {
        argv,
        wall_time_ms: command.wall_time_ms.unwrap_or(WALL_TIME_MS),
        output_bytes: OUTPUT_BYTES,
    };
    let mut run = stage(&language.run, source.run);
    run.argv.extend(program.args.iter().cloned());
    let compile = language.compile.as_ref().zip(source.compile);
    let environment = language.compile.iter().flat_map(|command| &command.env);
    Ok(ExecuteRequest {
        id: uuid::Uuid::new_v4().to_string(),
        files: vec![File {
            path: source.file,
            content: program.code.clone().into(),
            mode: None,
        }],
        compile: compile.map(|(command, argv)| stage(command, argv)),
        run,
        stdin: program.stdin.clone().into(),
        env: environment
            .chain(&language.run.env)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        working_dir: None,
        identity: None,
    })
}
