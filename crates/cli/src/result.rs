//! `result`: waits for an execution, prints its output, saves its artifacts, and exits with its code.

use std::time::{Duration, Instant};

use cloude_protocol::agent::{StageName, StageResult, Stream};
use cloude_protocol::api::Execution;

use crate::args;
use crate::artifacts;
use crate::client::Backend;
use crate::error::CliError;
use crate::id::check_id;
use crate::outcome;
use crate::terminal;

/// HTTP status of an execution that has not ended.
const ACCEPTED: u16 = 202;
/// The shortest time between two requests, for a backend that does not wait.
const PAUSE: Duration = Duration::from_millis(500);

/// `cloude result`. The output, the notes and the exit code are those of `cloude run`.
pub async fn result(args: args::ResultArgs, options: &args::Backend) -> Result<u8, CliError> {
    check_id(&args.id)?;
    let backend = Backend::new(options)?;
    terminal::show_spinner("waiting");
    let body = ended(&args.id, &backend).await?;
    terminal::clear_spinner();
    let execution: Execution = backend.json(&body)?;
    if args.json {
        // As the backend sent it, also fields of later versions.
        let value: serde_json::Value = backend.json(&body)?;
        terminal::json(&value)?;
    } else {
        print(&execution)?;
    }
    let code = outcome::report(&execution)?;
    if let Some(folder) = args.artifact_dir {
        artifacts::save(&execution, &folder, args.force, &backend).await?;
    }
    Ok(code)
}

/// Waits for the end. Each request waits for as long as the backend allows.
async fn ended(id: &str, backend: &Backend) -> Result<bytes::Bytes, CliError> {
    let path = format!("v1/executions/{id}?wait=60s");
    loop {
        let start = Instant::now();
        let (status, body) = backend.get_answer(&path).await?;
        if status != ACCEPTED {
            return Ok(body);
        }
        tokio::time::sleep(PAUSE.saturating_sub(start.elapsed())).await;
    }
}

fn print(execution: &Execution) -> Result<(), CliError> {
    if let Some(compile) = &execution.compile {
        terminal::stderr(&compile.stdout.0);
        terminal::stderr(&compile.stderr.0);
        dropped(StageName::Compile, &compile.result);
    }
    terminal::stdout(&execution.stdout.0)?;
    terminal::stderr(&execution.stderr.0);
    if let Some(run) = &execution.run {
        dropped(StageName::Run, run);
    }
    outcome::denied(execution);
    Ok(())
}

fn dropped(stage: StageName, result: &StageResult) {
    for (stream, bytes) in [
        (Stream::Stdout, result.stdout_dropped),
        (Stream::Stderr, result.stderr_dropped),
    ] {
        if bytes > 0 {
            outcome::dropped_in(stage, stream, bytes);
        }
    }
}
