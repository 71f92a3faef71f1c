//! Follows the stream of an execution and puts each byte where it belongs.

use cloude_protocol::agent::{StageName, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent};
use futures_util::StreamExt as _;
use reqwest::Response;

use crate::client::Backend;
use crate::error::CliError;
use crate::terminal;

/// Shows events until the last, which it gives. A compiler's output goes to standard error
/// whichever stream it was on: standard output is the program's alone.
pub async fn follow(response: Response, backend: &Backend) -> Result<Execution, CliError> {
    let mut chunks = response.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| backend.broken(&error))?;
        let searched = buffer.len();
        buffer.extend_from_slice(&chunk);
        let mut start = 0;
        let mut from = searched;
        while let Some(length) = buffer[from..].iter().position(|&byte| byte == b'\n') {
            let end = from + length;
            if let Some(execution) = line(&buffer[start..end], backend)? {
                return Ok(execution);
            }
            start = end + 1;
            from = start;
        }
        buffer.drain(..start);
    }
    Err(CliError::Infrastructure(format!(
        "{} closed the connection before the result came",
        backend.shown()
    )))
}

fn line(line: &[u8], backend: &Backend) -> Result<Option<Execution>, CliError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let event =
        serde_json::from_slice(line).map_err(|error| backend.not_a_backend(&error.to_string()))?;
    match event {
        ExecutionEvent::Accepted { .. } => {}
        ExecutionEvent::Started {
            stage: StageName::Compile,
        } => terminal::show_spinner("compiling"),
        ExecutionEvent::Started {
            stage: StageName::Run,
        } => terminal::clear_spinner(),
        ExecutionEvent::Output {
            stage: StageName::Run,
            stream: Stream::Stdout,
            data,
        } => {
            terminal::clear_spinner();
            terminal::stdout(&data.0)?;
        }
        ExecutionEvent::Output { data, .. } => {
            terminal::clear_spinner();
            terminal::stderr(&data.0);
        }
        ExecutionEvent::Dropped {
            stage,
            stream,
            bytes,
        } => {
            terminal::clear_spinner();
            super::outcome::dropped(stage, stream, bytes);
        }
        ExecutionEvent::Result(execution) => {
            terminal::clear_spinner();
            return Ok(Some(*execution));
        }
    }
    Ok(None)
}
