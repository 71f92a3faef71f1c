//! The body of a request, bounded before it is read.

use super::connection::Connection;
use super::request::{Request, read_body};
use super::response::Answer;
use crate::execute::cgroup::available_memory;

/// Largest body in bytes; a third of MemAvailable if that is less.
pub const MAX_BODY_BYTES: u64 = 64 << 20;

/// Largest body of `POST /input` in bytes.
pub const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Bodies up to this size are accepted without reading /proc/meminfo, which is slow.
const SMALL_BODY_BYTES: u64 = 256 << 10;

/// The length of the body, which is at most `most` bytes. An error is the answer to send instead.
pub fn length(request: &Request, most: u64) -> Result<usize, Answer> {
    let length = match request.content_length {
        Some(length) if !request.transfer_encoding => length,
        _ => {
            return Err(Answer::error(
                411,
                "send the body with Content-Length and without Transfer-Encoding",
            ));
        }
    };
    // Parsing needs the body and its decoded content in memory at once.
    let limit = match length {
        ..=SMALL_BODY_BYTES => most,
        _ => available_memory().map_or(most, |bytes| most.min(bytes / 3)),
    };
    if length > limit {
        let error = format!(
            "the request body has {length} bytes and this VM accepts {limit}: send less, or give the VM more memory"
        );
        return Err(Answer::error(413, error));
    }
    Ok(length as usize)
}

/// Reads and parses the body of `POST /input`. An error is the answer to send instead, none if the client disconnected.
pub fn read_input<T: serde::de::DeserializeOwned>(
    request: &Request,
    connection: &mut Connection,
) -> Result<T, Option<Answer>> {
    let length = length(request, MAX_INPUT_BYTES)?;
    let body = read_body(connection, length).map_err(|_| None)?;
    serde_json::from_slice(&body)
        .map_err(|error| Some(Answer::error(400, format!("invalid request body: {error}"))))
}
