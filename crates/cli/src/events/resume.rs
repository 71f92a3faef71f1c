//! The events of an execution by its id. A connection that breaks is made again, at the byte after the last event.

use std::time::{Duration, Instant};

use cloude_protocol::api::Execution;
use futures_util::StreamExt as _;
use reqwest::Response;

use super::relay::{is_known, relay};
use super::sse::{Frame, Parser};
use crate::client::Backend;
use crate::error::{BackendError, CliError};

/// The pause before another attempt to connect.
const PAUSE: Duration = Duration::from_millis(500);
/// Relays events up to the last one and returns its result. An error after the first connection is repeated until no event
/// has come for the time for retries.
pub async fn follow_by_id(id: &str, backend: &Backend) -> Result<Execution, CliError> {
    let path = format!("v1/executions/{id}/events");
    let mut last_id = String::new();
    let mut response = backend.get_events(&path, &last_id).await?;
    let mut progress = Instant::now();
    loop {
        let before = last_id.clone();
        let error = match read(response, backend, &mut last_id).await? {
            Ended::Result(execution) => return Ok(*execution),
            Ended::Broken(error) => error,
        };
        if last_id != before {
            progress = Instant::now();
        }
        response = again(&path, &last_id, progress, error, backend).await?;
    }
}

/// How a connection ended.
enum Ended {
    Result(Box<Execution>),
    Broken(CliError),
}

/// Reads one response to its end. The client takes what it writes, and no more: the backend resumes a stream that it closed
/// because of a slow reader.
async fn read(
    response: Response,
    backend: &Backend,
    last_id: &mut String,
) -> Result<Ended, CliError> {
    let mut chunks = response.bytes_stream();
    let mut parser = Parser::default();
    while let Some(chunk) = chunks.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Ok(Ended::Broken(backend.broken(&error).into())),
        };
        for frame in parser.push(&chunk) {
            let result = event(&frame, backend)?;
            if !frame.id.is_empty() {
                *last_id = frame.id;
            }
            if let Some(execution) = result {
                return Ok(Ended::Result(Box::new(execution)));
            }
        }
    }
    Ok(Ended::Broken(backend.closed().into()))
}

fn event(frame: &Frame, backend: &Backend) -> Result<Option<Execution>, CliError> {
    if !is_known(&frame.name) {
        return Ok(None);
    }
    relay(backend.json(&frame.data)?)
}

/// Connects again until the time for retries is over. Returns the last error then.
async fn again(
    path: &str,
    last_id: &str,
    progress: Instant,
    first: CliError,
    backend: &Backend,
) -> Result<Response, CliError> {
    let mut error = first;
    while progress.elapsed() + PAUSE < backend.retry_for() {
        tokio::time::sleep(PAUSE).await;
        error = match backend.get_events(path, last_id).await {
            Ok(response) => return Ok(response),
            Err(
                error @ CliError::Backend(
                    BackendError::Connect { .. }
                    | BackendError::NoAnswer { .. }
                    | BackendError::NotClouded { .. },
                ),
            ) => error,
            Err(error) => return Err(error),
        };
    }
    Err(error)
}
