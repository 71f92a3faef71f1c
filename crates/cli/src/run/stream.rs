//! Relays the event stream of an execution to standard output and standard error.

use cloude_protocol::agent::{StageName, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent};
use futures_util::StreamExt as _;
use reqwest::Response;

use crate::client::Backend;
use crate::error::CliError;
use crate::terminal;

/// Relays events up to the last one and returns its result. Both streams of a compiler go to standard
/// error, so that standard output holds the program's output alone.
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
    Err(backend.closed().into())
}

fn line(line: &[u8], backend: &Backend) -> Result<Option<Execution>, CliError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let event = serde_json::from_slice(line).map_err(|error| backend.bad_body(&error))?;
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
