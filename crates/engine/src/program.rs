//! Running one program, from its text to its output.

use std::sync::Arc;

use cloude_protocol::agent::{
    Event, ExecuteRequest, ExecuteResult, File, Stage, StageName, Stream,
};
use cloude_protocol::api::StartKind;
use cloude_protocol::language::{Command, Language};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::Failure;
use crate::guest::{self, AgentError};
use crate::images::Images as _;
use crate::languages::Source;
use crate::launched::Launched;
use crate::launcher::Launcher as _;
use crate::machine::MachineSpec;

/// Wall-clock limit of a stage whose language file sets none, in milliseconds.
const WALL_TIME_MS: u64 = 30_000;
/// Bytes of each output stream that are returned, at most.
const OUTPUT_BYTES: u64 = 1 << 20;

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
    /// The VM or the agent in it failed.
    #[error(transparent)]
    Vm(#[from] Failure),
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
        let (vcpus, memory_mib) = self.config().vm.default_machine(language);
        let image = self
            .images()
            .ensure(language, memory_mib)
            .await
            .map_err(RunError::Image)?;
        let spec = MachineSpec {
            id: request.id.clone(),
            image: image.path,
            language: Arc::clone(language),
            vcpus,
            memory_mib,
            network: false,
            template_owner: None,
            start: None,
        };
        let cancel = CancellationToken::new();
        let Launched {
            stream,
            token,
            start,
            template,
            network,
            mut machine,
            ..
        } = self.launch(spec, cancel.clone()).await?;
        if template.is_some() {
            let identity = guest::new_identity(&request.id, network)
                .map_err(|error| Failure::infrastructure(format!("an identity: {error}")))?;
            request.identity = Some(identity);
        }
        let mut events = Events::default();
        let executed = guest::exchange(
            (stream, &token),
            machine.as_mut(),
            &request,
            self.config().agent.grace(),
            &cancel,
            |event| events.push(event),
        )
        .await;
        machine.stop().await;
        if let Some(template) = &template {
            match &executed {
                // The fork works, whatever the end of its program.
                _ if events.began => self.report_fork(template, Ok(())),
                Err(error) if !error.refused => {
                    self.report_fork(template, Err(&error.failure));
                }
                _ => {}
            }
        }
        // The connection was open until the VM had ended.
        drop(executed.map_err(|error| error.failure)?);
        events.output(start)
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
                streams[index].extend(data.0);
            }
            Event::Finished(result) => self.result = Some(result),
            Event::Identity
            | Event::Started { .. }
            | Event::Dropped { .. }
            | Event::Artifact { .. }
            | Event::ArtifactData { .. } => {}
        }
    }

    fn output(self, start: StartKind) -> Result<Output, RunError> {
        let result = self
            .result
            .ok_or_else(|| Failure::infrastructure(AgentError::Incomplete.to_string()))?;
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
        ..Stage::default()
    };
    let mut run = stage(&language.run, source.run);
    run.argv.extend(program.args.iter().cloned());
    let compile = language.compile.as_ref().zip(source.compile);
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
        env: language.environment(),
        ..ExecuteRequest::default()
    })
}
