//! Refuses requests that cannot be carried out, before anything is written or started.

use cloude_protocol::agent::ExecuteRequest;

use super::files;

/// A request that is refused with 400.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A file has a bad path or mode.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// `argv` is empty, or starts with an empty string.
    #[error("{stage}.argv is empty: give the program and its arguments")]
    NoCommand {
        /// `compile` or `run`.
        stage: &'static str,
    },
    /// `wall_time_ms` is 0.
    #[error("{stage}.wall_time_ms is 0: give at least 1")]
    NoTime {
        /// `compile` or `run`.
        stage: &'static str,
    },
    /// A string with a NUL byte, which `execve` would cut off there.
    #[error("{what} contains a NUL byte; remove it")]
    Nul {
        /// The field, such as `run.argv` or `env.NAME`.
        what: String,
    },
    /// An invalid variable name.
    #[error("env: the variable name {0:?} is empty or contains `=`")]
    VariableName(String),
}

/// Checks files, stages and environment of a request.
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
