//! The stream of events, one a line, of an execution whose client waits.

use bytes::Bytes;
use cloude_protocol::api::Execution;
use futures_util::StreamExt as _;
use reqwest::Response;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::client::Backend;
use crate::error::CliError;

use super::relay::relay;
use super::split::Lines;

/// Relays events up to the last one and returns its result.
pub async fn follow(response: Response, backend: &Backend) -> Result<Execution, CliError> {
    let mut chunks = read_on(response);
    let mut lines = Lines::default();
    while let Some(chunk) = chunks.recv().await {
        lines.push(&chunk.map_err(|error| backend.broken(&error))?);
        while let Some(bytes) = lines.next_line() {
            if let Some(execution) = line(bytes, backend)? {
                return Ok(execution);
            }
        }
    }
    Err(backend.closed().into())
}

/// Reads the response as it comes, on the runtime's other thread. The server closes a connection that takes nothing for
/// `limits.write_timeout_ms`, also if standard output is a pipe that nobody reads, such as that of less(1). The output
/// limit bounds the memory.
fn read_on(response: Response) -> UnboundedReceiver<reqwest::Result<Bytes>> {
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            if sender.send(chunk).is_err() {
                break;
            }
        }
    });
    receiver
}

fn line(line: &[u8], backend: &Backend) -> Result<Option<Execution>, CliError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    relay(backend.json(line)?)
}
