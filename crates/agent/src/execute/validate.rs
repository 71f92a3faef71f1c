//! Refusing a request that cannot be carried out, before anything is done.

use cloude_protocol::agent::ExecuteRequest;

use super::files;

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
