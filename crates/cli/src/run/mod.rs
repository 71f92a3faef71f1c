//! `run`: one program, from its file to its exit code.

mod input;
mod outcome;
mod stream;

use cloude_protocol::Data;
use cloude_protocol::api::{Execution, ExecutionRequest, Limits, StartChoice};

use crate::args::{self, Start};
use crate::client::Backend;
use crate::error::CliError;
use crate::languages::by_extension;
use crate::terminal;

pub use input::read_code;

/// `cloude run`: gives the exit code that docs/cli.md promises.
pub async fn run(args: args::Run) -> Result<u8, CliError> {
    let json = args.json;
    let backend = Backend::new(&args.backend.url)?;
    let request = request(args, &backend).await?;
    terminal::show_spinner("starting");
    if json {
        let answer: serde_json::Value = backend.post("v1/executions", &request).await?;
        terminal::clear_spinner();
        terminal::stdout(format!("{answer}\n").as_bytes())?;
        let execution: Execution = serde_json::from_value(answer)
            .map_err(|error| backend.not_a_backend(&error.to_string()))?;
        return outcome::report(&execution);
    }
    let response = backend.post_stream("v1/executions", &request).await?;
    let execution = stream::follow(response, &backend).await?;
    outcome::report(&execution)
}

async fn request(args: args::Run, backend: &Backend) -> Result<ExecutionRequest, CliError> {
    // What is wrong on this side is said before the backend is asked.
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
    let (code, code_from_stdin) = match (args.code, &args.file) {
        (Some(code), _) => (code, false),
        (None, Some(path)) if path.as_os_str() == "-" => {
            if args.language.is_none() {
                return Err(CliError::Usage(
                    "a program from standard input has no extension: name its language with -l"
                        .to_owned(),
                ));
            }
            (input::code_from_stdin()?, true)
        }
        (None, Some(path)) => (read_code(path)?, false),
        (None, None) => {
            return Err(CliError::Usage(
                "name a file to run, or give the program with -c".to_owned(),
            ));
        }
    };
    let stdin = input::stdin(args.stdin.as_deref(), code_from_stdin)?;
    let language = match (args.language, &args.file) {
        (Some(language), _) => language,
        (None, Some(path)) => language_of(path, backend).await?,
        (None, None) => return Err(CliError::Usage("name the language with -l".to_owned())),
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
        network: args.network,
        limits: Limits {
            wall_time_ms: args.timeout.map(|time| time.as_millis() as u64),
            compile_time_ms: args.compile_timeout.map(|time| time.as_millis() as u64),
            output_bytes: args.output_limit,
            memory_mib: args.memory,
            vcpus: args.vcpus,
        },
        start: args.start.map(|start| match start {
            Start::Cold => StartChoice::Cold,
            Start::Fork => StartChoice::Fork,
        }),
    })
}

/// Asks the backend which language a file is in: languages are its data, not ours.
async fn language_of(path: &std::path::Path, backend: &Backend) -> Result<String, CliError> {
    let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else {
        return Err(CliError::Usage(format!(
            "{} has no extension that tells its language: name it with -l",
            path.display()
        )));
    };
    let languages = backend.languages().await?;
    match by_extension(&languages, extension) {
        Some(language) => Ok(language.name.clone()),
        None => {
            let names: Vec<&str> = languages
                .iter()
                .map(|language| language.name.as_str())
                .collect();
            Err(CliError::Usage(format!(
                "no language has files that end in .{extension}: name one with -l ({})",
                names.join(", ")
            )))
        }
    }
}
