//! `go` and `status`: start a program without waiting, and look at it later.

use std::fmt::Write as _;

use cloude_protocol::api::{RunRequest, RunResponse, Status, StatusResponse};

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
    // An id goes into a path: nothing else may.
    if args.id.is_empty()
        || !args
            .id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    {
        return Err(CliError::Usage(format!(
            "{:?} is not an id: give one that `cloude go` printed",
            args.id
        )));
    }
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
