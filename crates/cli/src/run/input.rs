//! Reads the parts of a request: source code, standard input, environment variables, labels.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use cloude_protocol::Secret;

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

/// A secret variable: `NAME` of a variable of this process, which `ps` does not show, or `NAME=VALUE`.
pub fn secret(spec: &str) -> Result<(String, Secret), UsageError> {
    match variable(spec) {
        Ok((name, value)) => Ok((name, Secret(value))),
        Err(UsageError::EnvUnset { name }) => Err(UsageError::SecretUnset { name }),
        Err(error) => Err(error),
    }
}

/// Parses `NAME=VALUE`.
pub fn label(spec: &str) -> Result<(String, String), UsageError> {
    match spec.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(UsageError::Label {
            spec: spec.to_owned(),
        }),
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
