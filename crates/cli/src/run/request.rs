//! Makes the request of an execution from the arguments of `run`.

use std::collections::BTreeMap;
use std::path::Path;

use cloude_protocol::Data;
use cloude_protocol::agent::Interactive;
use cloude_protocol::api::{ExecutionRequest, OnOutputLimit, StartChoice};

use super::input;
use super::limits::limits;
use super::tree;
use crate::args::{self, AtOutputLimit, Start};
use crate::client::Backend;
use crate::error::{CliError, UsageError};
use crate::languages::by_extension;
use crate::raw_mode;

/// Reads the files and standard input. Local mistakes are reported before anything is sent.
pub async fn request(args: args::Run, backend: &Backend) -> Result<ExecutionRequest, CliError> {
    let limits = limits(&args)?;
    let interactive = interactive(&args)?;
    let (language, version) = language_and_version(&args)?;
    let labels = args
        .labels
        .iter()
        .map(|spec| input::label(spec))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let files = tree::files(&args.files)?;
    let env = args
        .env
        .iter()
        .map(|spec| input::variable(spec))
        .collect::<Result<_, _>>()?;
    let secrets = args
        .secrets
        .iter()
        .map(|spec| input::secret(spec))
        .collect::<Result<_, _>>()?;
    let (code, code_from_stdin) = match (args.code, &args.file, &args.entrypoint) {
        (Some(code), ..) => (code, false),
        (None, Some(path), _) if path.as_os_str() == "-" => {
            if language.is_none() {
                return Err(UsageError::NoLanguage.into());
            }
            (input::code_from_stdin()?, true)
        }
        (None, Some(path), _) => (input::read_code(path)?, false),
        (None, None, Some(_)) => (String::new(), false),
        (None, None, None) => return Err(UsageError::NoProgram.into()),
    };
    let stdin = match args.interactive {
        true if code_from_stdin && !args.detach => return Err(UsageError::StdinTwice.into()),
        // It is sent while the program runs.
        true => Vec::new(),
        false => input::stdin(args.stdin.as_deref(), code_from_stdin)?,
    };
    let program = args.file.as_deref();
    let program = program.or(args.entrypoint.as_deref().map(Path::new));
    let language = match (language, program) {
        (Some(language), _) => language,
        (None, Some(path)) => language_of(path, backend).await?,
        (None, None) => return Err(UsageError::NoLanguage.into()),
    };
    let file_name = args.file.as_ref().and_then(|path| path.file_name());
    Ok(ExecutionRequest {
        language,
        version,
        code,
        entrypoint: args.entrypoint,
        file_name: file_name.map(|name| name.to_string_lossy().into_owned()),
        compile_options: args.compile_options,
        files,
        stdin: Data(stdin),
        interactive,
        args: args.args,
        env,
        secrets,
        network: args.network,
        user: args.user,
        unconfined: args.unconfined,
        limits,
        artifacts: args.artifacts,
        on_output_limit: match args.on_output_limit {
            Some(AtOutputLimit::Kill) => OnOutputLimit::Kill,
            Some(AtOutputLimit::Continue) | None => OnOutputLimit::Continue,
        },
        labels,
        callback_url: args.callback,
        start: args.start.map(|start| match start {
            Start::Cold => StartChoice::Cold,
            Start::Fork => StartChoice::Fork,
        }),
    })
}

/// `--interactive` and `--tty`.
fn interactive(args: &args::Run) -> Result<Option<Interactive>, UsageError> {
    if args.tty && !raw_mode::has_terminal() {
        return Err(UsageError::NotATerminal);
    }
    let terminal = args.tty.then(raw_mode::size);
    Ok(args.interactive.then_some(Interactive { terminal }))
}

/// `--language python@3.13`, or `--language-version`.
fn language_and_version(args: &args::Run) -> Result<(Option<String>, Option<String>), UsageError> {
    let Some(spec) = &args.language else {
        return Ok((None, args.language_version.clone()));
    };
    match spec.split_once('@') {
        None => Ok((Some(spec.clone()), args.language_version.clone())),
        Some((name, version))
            if !name.is_empty() && !version.is_empty() && args.language_version.is_none() =>
        {
            Ok((Some(name.to_owned()), Some(version.to_owned())))
        }
        Some(_) => Err(UsageError::LanguageVersion { spec: spec.clone() }),
    }
}

/// Finds a file's language by its extension, in the backend's list of languages.
async fn language_of(path: &Path, backend: &Backend) -> Result<String, CliError> {
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
