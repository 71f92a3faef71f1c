//! What goes into a request: the program, its input, files beside it, its environment.

use std::io::{IsTerminal as _, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cloude_protocol::Data;
use cloude_protocol::agent::File;

use crate::error::CliError;

/// Reads a program, which the API takes as text.
pub fn read_code(path: &Path) -> Result<String, CliError> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    text(bytes, &path.display().to_string())
}

/// Reads a program from standard input.
pub fn code_from_stdin() -> Result<String, CliError> {
    text(read_stdin()?, "standard input")
}

/// What the program reads from standard input: a file, ours, or nothing. Ours is taken without being
/// asked for where it is not a terminal, and never when the program itself came that way.
pub fn stdin(path: Option<&Path>, code_from_stdin: bool) -> Result<Vec<u8>, CliError> {
    match path {
        Some(path) if path.as_os_str() == "-" && code_from_stdin => Err(CliError::Usage(
            "standard input cannot be both the program and what it reads: give one of them as a file".to_owned(),
        )),
        Some(path) if path.as_os_str() == "-" => read_stdin(),
        Some(path) => std::fs::read(path).map_err(|error| unreadable(path, &error)),
        None if code_from_stdin || std::io::stdin().is_terminal() => Ok(Vec::new()),
        None => read_stdin(),
    }
}

/// `PATH` or `PATH:NAME`. A path with a colon in it is taken whole where such a file exists.
pub fn extra_file(spec: &str) -> Result<File, CliError> {
    let (path, name) = match spec.rsplit_once(':') {
        Some((path, name)) if !Path::new(spec).exists() && !name.is_empty() => {
            (path, name.to_owned())
        }
        _ => {
            let name = Path::new(spec).file_name().and_then(|name| name.to_str());
            let Some(name) = name else {
                return Err(CliError::Usage(format!(
                    "--file {spec:?} names no file: give PATH or PATH:NAME"
                )));
            };
            (spec, name.to_owned())
        }
    };
    let path = Path::new(path);
    let content = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
    let mode = path
        .metadata()
        .map_err(|error| unreadable(path, &error))?
        .permissions()
        .mode();
    let mode = if mode & 0o111 != 0 { Some(0o755) } else { None };
    Ok(File {
        path: name,
        content: Data(content),
        mode,
    })
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
pub fn variable(spec: &str) -> Result<(String, String), CliError> {
    match spec.split_once('=') {
        Some(("", _)) => Err(CliError::Usage(format!(
            "--env {spec:?} has no name: give NAME=VALUE"
        ))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None if spec.is_empty() => Err(CliError::Usage(
            "--env is empty: give NAME=VALUE".to_owned(),
        )),
        None => match std::env::var(spec) {
            Ok(value) => Ok((spec.to_owned(), value)),
            Err(_) => Err(CliError::Usage(format!(
                "--env {spec}: no such variable here, or not UTF-8: give {spec}=VALUE"
            ))),
        },
    }
}

fn read_stdin() -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(CliError::Usage(format!(
            "cannot read standard input: {error}"
        ))),
    }
}

fn text(bytes: Vec<u8>, what: &str) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|error| {
        CliError::Usage(format!(
            "{what} is not UTF-8 at byte {}: programs are text; hand binary files over with --file",
            error.utf8_error().valid_up_to()
        ))
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Usage(format!("cannot read {}: {error}", path.display()))
}
