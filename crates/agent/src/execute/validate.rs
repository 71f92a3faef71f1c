//! Refuses requests that cannot be carried out, before anything is written or started.

use cloude_protocol::agent::{ExecuteRequest, ProcessLimits};

use super::files;
use super::glob::Pattern;
use super::input::{InputError, check_size};

/// Patterns of artifacts: each is compared with each file.
pub const MAX_PATTERNS: usize = 64;

/// The largest RLIMIT_NOFILE: `fs.nr_open` of Linux, unless it was changed.
const MAX_OPEN_FILES: u64 = 1 << 20;

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
    /// A limit of 0, or one that Linux cannot set.
    #[error("{stage}.limits.{limit} is {value}: give 1 to {most}")]
    Limit {
        /// `compile` or `run`.
        stage: &'static str,
        /// The field.
        limit: &'static str,
        /// From the request.
        value: u64,
        /// The largest one.
        most: u64,
    },
    /// `disk_bytes` is 0.
    #[error("disk_bytes is 0: give at least 1")]
    NoDisk,
    /// The terminal's size.
    #[error("interactive.terminal: {0}")]
    Terminal(#[from] InputError),
    /// A pattern of artifacts.
    #[error(
        "artifacts.patterns: {pattern:?} {reason}; give a path relative to the work directory, with `*`, `?` and `**`"
    )]
    Pattern {
        /// From the request.
        pattern: String,
        /// The problem, to follow the pattern.
        reason: &'static str,
    },
    /// More patterns than [`MAX_PATTERNS`].
    #[error("artifacts.patterns has {0} patterns: give at most {MAX_PATTERNS}")]
    ManyPatterns(usize),
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
        check_limits(name, &stage.limits)?;
        if stage.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(RequestError::Nul {
                what: format!("{name}.argv"),
            });
        }
    }
    if let Some(artifacts) = &request.artifacts {
        check_patterns(&artifacts.patterns)?;
    }
    if let Some(size) = request
        .interactive
        .and_then(|interactive| interactive.terminal)
    {
        check_size(size)?;
    }
    if request.disk_bytes == Some(0) {
        return Err(RequestError::NoDisk);
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

fn check_patterns(patterns: &[String]) -> Result<(), RequestError> {
    if patterns.len() > MAX_PATTERNS {
        return Err(RequestError::ManyPatterns(patterns.len()));
    }
    for pattern in patterns {
        Pattern::new(pattern).map_err(|reason| RequestError::Pattern {
            pattern: pattern.clone(),
            reason,
        })?;
    }
    Ok(())
}

fn check_limits(stage: &'static str, limits: &ProcessLimits) -> Result<(), RequestError> {
    // Sizes are signed in the kernel.
    const MOST: u64 = i64::MAX as u64;
    for (limit, value, most) in [
        ("cpu_time_ms", limits.cpu_time_ms, MOST),
        ("processes", limits.processes.map(u64::from), MOST),
        ("open_files", limits.open_files, MAX_OPEN_FILES),
        ("file_bytes", limits.file_bytes, MOST),
        ("stack_bytes", limits.stack_bytes, MOST),
    ] {
        if let Some(value) = value
            && !(1..=most).contains(&value)
        {
            return Err(RequestError::Limit {
                stage,
                limit,
                value,
                most,
            });
        }
    }
    Ok(())
}
