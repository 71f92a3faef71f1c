//! `run`: sends one program to the backend, relays its output, exits with its code.

mod input;
mod outcome;
mod stream;

use cloude_protocol::Data;
use cloude_protocol::api::{CompileLimits, Execution, ExecutionRequest, Limits, StartChoice};

use crate::args::{self, Start};
use crate::client::Backend;
use crate::error::{CliError, UsageError};
use crate::languages::by_extension;
use crate::terminal;

pub use input::read_code;

/// `cloude run`. Returns the exit code as documented in docs/cli.md.
pub async fn run(args: args::Run, options: &args::Backend) -> Result<u8, CliError> {
    let json = args.json;
    let backend = Backend::new(options)?;
    let request = request(args, &backend).await?;
    terminal::show_spinner("starting");
    if json {
        let answer: serde_json::Value = backend.post("v1/executions", &request).await?;
        terminal::clear_spinner();
        terminal::stdout(format!("{answer}\n").as_bytes())?;
        let execution: Execution =
            serde_json::from_value(answer).map_err(|error| backend.bad_body(&error))?;
        return Ok(outcome::report(&execution)?);
    }
    let response = backend.post_stream("v1/executions", &request).await?;
    let execution = stream::follow(response, &backend).await?;
    outcome::denied(&execution);
    Ok(outcome::report(&execution)?)
}

async fn request(args: args::Run, backend: &Backend) -> Result<ExecutionRequest, CliError> {
    // Local mistakes are reported before any request is sent.
    let files = args
        .files
        .iter()
        .map(|spec| input::extra_file(spec))
        .collect::<Result<_, _>>()?;
    let env = args
        .env
        .iter()
        .map(|spec| input::variable(spec))
        .collect::<Result<_, _>>()?;
    let secrets = args
        .secrets
        .iter()
        .map(|name| input::secret(name))
        .collect::<Result<_, _>>()?;
    let (code, code_from_stdin) = match (args.code, &args.file) {
        (Some(code), _) => (code, false),
        (None, Some(path)) if path.as_os_str() == "-" => {
            if args.language.is_none() {
                return Err(UsageError::NoLanguage.into());
            }
            (input::code_from_stdin()?, true)
        }
        (None, Some(path)) => (read_code(path)?, false),
        (None, None) => return Err(UsageError::NoProgram.into()),
    };
    let stdin = input::stdin(args.stdin.as_deref(), code_from_stdin)?;
    let language = match (args.language, &args.file) {
        (Some(language), _) => language,
        (None, Some(path)) => language_of(path, backend).await?,
        (None, None) => return Err(UsageError::NoLanguage.into()),
    };
    let file_name = args.file.as_ref().and_then(|path| path.file_name());
    Ok(ExecutionRequest {
        language,
        code,
        file_name: file_name.map(|name| name.to_string_lossy().into_owned()),
        files,
        stdin: Data(stdin),
        args: args.args,
        env,
        secrets,
        network: args.network,
        user: args.user,
        unconfined: args.unconfined,
        limits: Limits {
            wall_time_ms: args.timeout.map(|time| time.as_millis() as u64),
            output_bytes: args.output_limit,
            memory_bytes: args.memory.map(|mib| mib.saturating_mul(1 << 20)),
            vcpus: args.vcpus,
            compile: CompileLimits {
                wall_time_ms: args.compile_timeout.map(|time| time.as_millis() as u64),
                ..CompileLimits::default()
            },
            ..Limits::default()
        },
        start: args.start.map(|start| match start {
            Start::Cold => StartChoice::Cold,
            Start::Fork => StartChoice::Fork,
        }),
        ..ExecutionRequest::default()
    })
}

/// Finds a file's language by its extension, in the backend's list of languages.
async fn language_of(path: &std::path::Path, backend: &Backend) -> Result<String, CliError> {
    let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else {
        let path = path.to_owned();
        return Err(UsageError::NoExtension { path }.into());
    };
    let languages = backend.languages().await?;
    match by_extension(&languages, extension) {
        Some(language) => Ok(language.name.clone()),
        None => Err(UsageError::UnknownExtension {
            extension: extension.to_owned(),
            languages: languages
                .into_iter()
                .map(|language| language.name)
                .collect(),
        }
        .into()),
    }
}
