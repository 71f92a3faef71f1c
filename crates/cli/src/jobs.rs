//! `go`, `status` and `cancel`: start a program without waiting, query it later, and kill it.

use std::fmt::Write as _;

use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, RunRequest, RunResponse, Status, StatusResponse};

use crate::args;
use crate::client::Backend;
use crate::error::CliError;
use crate::id::check_id;
use crate::run::read_code;
use crate::terminal::{self, Style, paint};

/// `cloude go` prints the execution's id and a newline.
pub async fn go(args: args::Go, options: &args::Backend) -> Result<u8, CliError> {
    let backend = Backend::new(options)?;
    let request = RunRequest {
        language: args.language,
        code: read_code(&args.file)?,
    };
    let response: RunResponse = backend.post("run", &request).await?;
    terminal::stdout(format!("{}\n", response.id).as_bytes())?;
    Ok(0)
}

/// `cloude status` exits with 0 if the backend knows the execution, however it ended.
pub async fn status(args: args::Status, options: &args::Backend) -> Result<u8, CliError> {
    check_id(&args.id)?;
    let backend = Backend::new(options)?;
    let status: StatusResponse = backend.get(&format!("status/{}", args.id)).await?;
    if args.json {
        terminal::json(&status)?;
    } else {
        terminal::stdout(pretty(&status, terminal::stdout_colour()).as_bytes())?;
    }
    Ok(0)
}

/// `cloude cancel` exits with 0 also if the program had ended before.
pub async fn cancel(args: args::Cancel, options: &args::Backend) -> Result<u8, CliError> {
    check_id(&args.id)?;
    let backend = Backend::new(options)?;
    let path = format!("v1/executions/{}", args.id);
    let execution: Execution = backend.delete_json(&path).await?;
    if args.json {
        terminal::json(&execution)?;
    } else if execution.cause == Cause::Cancelled {
        terminal::stdout(b"cancelled\n")?;
    } else {
        let text = format!(
            "already ended: `cloude status {}` shows its output\n",
            args.id
        );
        terminal::stdout(text.as_bytes())?;
    }
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
