//! `go`, `status` and `cancel`: start a program without waiting, look at it later, and end it.

use std::fmt::Write as _;

use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, RunRequest, RunResponse, Status, StatusResponse};

use crate::args;
use crate::client::Backend;
use crate::error::CliError;
use crate::run::read_code;
use crate::terminal::{self, Style, paint};

/// `cloude go`: prints the id, alone on its line.
pub async fn go(args: args::Go) -> Result<u8, CliError> {
    let backend = Backend::new(&args.backend.url)?;
    let request = RunRequest {
        language: args.language,
        code: read_code(&args.file)?,
    };
    let response: RunResponse = backend.post("run", &request).await?;
    terminal::stdout(format!("{}\n", response.id).as_bytes())?;
    Ok(0)
}

/// `cloude status`: 0 whatever became of the program, as long as the backend knows it.
pub async fn status(args: args::Status) -> Result<u8, CliError> {
    check_id(&args.id)?;
    let backend = Backend::new(&args.backend.url)?;
    let status: StatusResponse = backend.get(&format!("status/{}", args.id)).await?;
    let text = if args.json {
        let json = serde_json::to_string(&status)
            .map_err(|error| CliError::Infrastructure(error.to_string()))?;
        format!("{json}\n")
    } else {
        pretty(&status, terminal::stdout_colour())
    };
    terminal::stdout(text.as_bytes())?;
    Ok(0)
}

/// `cloude cancel`: 0 also where the program had ended before, which is said.
pub async fn cancel(args: args::Cancel) -> Result<u8, CliError> {
    check_id(&args.id)?;
    let backend = Backend::new(&args.backend.url)?;
    let path = format!("v1/executions/{}", args.id);
    let execution: Execution = backend.take(&path).await?;
    let text = if args.json {
        let json = serde_json::to_string(&execution)
            .map_err(|error| CliError::Infrastructure(error.to_string()))?;
        format!("{json}\n")
    } else if execution.cause == Cause::Cancelled {
        "cancelled\n".to_owned()
    } else {
        format!("it had ended; see: cloude status {}\n", args.id)
    };
    terminal::stdout(text.as_bytes())?;
    Ok(0)
}

/// An id goes into a path: nothing else may.
fn check_id(id: &str) -> Result<(), CliError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !id.is_empty() && id.chars().all(valid) {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "{id:?} is not an id: give one that `cloude go` printed"
    )))
}

fn pretty(status: &StatusResponse, colour: bool) -> String {
    let (word, style) = match status.status {
        Status::Pending => ("pending", Style::Dim),
        Status::Running => ("running", Style::Warning),
        Status::Done => ("done", Style::Good),
        Status::Error => ("error", Style::Bad),
    };
    let label = |name: &str| paint(&format!("{name:<10}"), Style::Bold, colour);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} {}", label("id"), status.id);
    let _ = writeln!(text, "{} {}", label("status"), paint(word, style, colour));
    let _ = writeln!(text, "{} {}", label("language"), status.language);
    if let Some(code) = status.exit_code {
        let _ = writeln!(text, "{} {code}", label("exit code"));
    }
    for (name, output) in [("stdout", &status.stdout), ("stderr", &status.stderr)] {
        if !output.is_empty() {
            let end = if output.ends_with('\n') { "" } else { "\n" };
            let _ = write!(text, "{}\n{output}{end}", paint(name, Style::Bold, colour));
        }
    }
    text
}
