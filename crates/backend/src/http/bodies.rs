//! Request bodies: their memory is reserved before they are read, and they must arrive in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::RequestError;
use crate::bounds::{Bounds, Counted};
use crate::config::Limits;

/// A body up to this length needs no reservation. The number of connections bounds the memory of these, and large
/// bodies that do not arrive cannot keep them out.
const SMALL: usize = 64 << 10;
/// Maximum wait for a reservation.
const WAIT: Duration = Duration::from_secs(2);
/// Bytes that extend the deadline by one second. A slower body is late in the end, however long it is.
const BYTES_PER_S: usize = 1 << 20;
/// Unit of a reservation, because a semaphore takes at most `u32::MAX` permits at once.
const KIB: usize = 1024;

/// The limits of all request bodies together.
#[derive(Debug)]
pub struct Bodies {
    /// Maximum bytes of one body.
    max: usize,
    timeout: Duration,
    room: Arc<Semaphore>,
    bounds: Bounds,
}

/// A whole body, and the reservation of its memory.
#[derive(Debug)]
pub struct Received {
    pub bytes: Vec<u8>,
    _room: Option<(OwnedSemaphorePermit, Counted)>,
}

impl Bodies {
    /// No body is being received.
    pub fn new(limits: &Limits, bounds: Bounds) -> Self {
        let room = (limits.body_bytes_in_flight / KIB).min(Semaphore::MAX_PERMITS);
        Bodies {
            max: limits.body_bytes,
            timeout: Duration::from_millis(limits.body_timeout_ms),
            room: Arc::new(Semaphore::new(room)),
            bounds,
        }
    }

    /// Reads a body. Fails before it is read if its Content-Length exceeds the maximum.
    pub async fn receive(&self, headers: &HeaderMap, body: Body) -> Result<Received, RequestError> {
        let length = match headers.get(CONTENT_LENGTH) {
            // hyper has refused a Content-Length that is no number.
            Some(length) => {
                let length = length.to_str().ok().and_then(|length| length.parse().ok());
                length.unwrap_or(usize::MAX)
            }
            None => self.max,
        };
        if length > self.max {
            return Err(RequestError::LargeBody);
        }
        let _room = self.reserve(length).await?;
        let bytes = self.read(body, length).await?;
        Ok(Received { bytes, _room })
    }

    async fn reserve(
        &self,
        length: usize,
    ) -> Result<Option<(OwnedSemaphorePermit, Counted)>, RequestError> {
        if length <= SMALL {
            return Ok(None);
        }
        let permits = u32::try_from(length.div_ceil(KIB)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        match tokio::time::timeout(WAIT, room).await {
            Ok(Ok(room)) => Ok(Some((room, self.bounds.body(length)))),
            _ => Err(RequestError::BodiesFull),
        }
    }

    /// `length`: bytes that the body has at most.
    async fn read(&self, body: Body, length: usize) -> Result<Vec<u8>, RequestError> {
        let mut chunks = body.into_data_stream();
        let mut bytes = Vec::new();
        let start = Instant::now();
        loop {
            let earned = Duration::from_secs((bytes.len() / BYTES_PER_S) as u64);
            let next = tokio::time::timeout_at(start + self.timeout + earned, chunks.next());
            let chunk = match next.await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => {
                    return Err(RequestError::UnreadableBody(error.to_string()));
                }
                Ok(None) => return Ok(bytes),
                Err(_) => return Err(RequestError::SlowBody),
            };
            let needed = bytes.len() + chunk.len();
            if needed > length {
                return Err(RequestError::LargeBody);
            }
            if needed > bytes.capacity() {
                // Doubles as `extend` does, but stays within the reservation.
                let capacity = needed.next_power_of_two().min(length);
                bytes.reserve_exact(capacity - bytes.len());
            }
            bytes.extend_from_slice(&chunk);
        }
    }
}
