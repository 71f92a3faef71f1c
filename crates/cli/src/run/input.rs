//! Reads the parts of a request: source code, standard input, files, environment variables.

use std::io::{IsTerminal as _, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cloude_protocol::agent::File;
use cloude_protocol::{Data, Secret};

use crate::error::UsageError;

/// Reads source code from a file. The API takes it as text.
pub fn read_code(path: &Path) -> Result<String, UsageError> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, error))?;
    text(bytes, &path.display().to_string())
}

/// Reads source code from standard input.
pub fn code_from_stdin() -> Result<String, UsageError> {
    text(read_stdin()?, "standard input")
}

/// The program's standard input: a file, this process's standard input, or nothing. Without `--stdin`, this
/// process's standard input is read unless it is a terminal or was the source code.
pub fn stdin(path: Option<&Path>, code_from_stdin: bool) -> Result<Vec<u8>, UsageError> {
    match path {
        Some(path) if path.as_os_str() == "-" && code_from_stdin => Err(UsageError::StdinTwice),
        Some(path) if path.as_os_str() == "-" => read_stdin(),
        Some(path) => std::fs::read(path).map_err(|error| unreadable(path, error)),
        None if code_from_stdin || std::io::stdin().is_terminal() => Ok(Vec::new()),
        None => read_stdin(),
    }
}

/// Reads a file given as `PATH` or `PATH:NAME`. A path that exists is not split at its colon.
pub fn extra_file(spec: &str) -> Result<File, UsageError> {
    let (path, name) = match spec.rsplit_once(':') {
        Some((path, name)) if !Path::new(spec).exists() && !name.is_empty() => {
            (path, name.to_owned())
        }
        _ => {
            let name = Path::new(spec).file_name().and_then(|name| name.to_str());
            let Some(name) = name else {
                return Err(UsageError::FileWithoutName {
                    spec: spec.to_owned(),
                });
            };
            (spec, name.to_owned())
        }
    };
    let path = Path::new(path);
    let content = std::fs::read(path).map_err(|error| unreadable(path, error))?;
    let mode = path
        .metadata()
        .map_err(|error| unreadable(path, error))?
        .permissions()
        .mode();
    let mode = if mode & 0o111 != 0 { Some(0o755) } else { None };
    Ok(File {
        path: name,
        content: Data(content),
        mode,
    })
}

/// Parses `NAME=VALUE`, or `NAME` for a variable of this process.
pub fn variable(spec: &str) -> Result<(String, String), UsageError> {
    let name = match spec.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            return Ok((name.to_owned(), value.to_owned()));
        }
        None if !spec.is_empty() => spec.to_owned(),
        _ => {
            let spec = spec.to_owned();
            return Err(UsageError::EnvWithoutName { spec });
        }
    };
    match std::env::var(&name) {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(UsageError::EnvUnset { name }),
    }
}

/// The value of a variable of this process, which the backend treats as a secret. A value on the command line would not
/// be one: `ps` shows it.
pub fn secret(name: &str) -> Result<(String, Secret), UsageError> {
    if let Some((name, _)) = name.split_once('=') {
        let name = name.to_owned();
        return Err(UsageError::SecretValue { name });
    }
    match variable(name) {
        Ok((name, value)) => Ok((name, Secret(value))),
        Err(UsageError::EnvUnset { name }) => Err(UsageError::SecretUnset { name }),
        Err(error) => Err(error),
    }
}

fn read_stdin() -> Result<Vec<u8>, UsageError> {
    let mut bytes = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(UsageError::ReadStdin { error }),
    }
}

fn text(bytes: Vec<u8>, name: &str) -> Result<String, UsageError> {
    String::from_utf8(bytes).map_err(|error| UsageError::NotUtf8 {
        name: name.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

fn unreadable(path: &Path, error: std::io::Error) -> UsageError {
    UsageError::ReadFile {
        path: path.to_owned(),
        error,
    }
}
