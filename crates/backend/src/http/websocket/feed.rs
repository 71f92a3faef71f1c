//! The bytes that a client has sent and that the program has not read yet.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cloude_engine::guest::InputError;
use tokio::sync::Notify;

use crate::jobs::InputPort;

/// Beyond this number of bytes, nothing more is received from the client.
const MAX_WAITING: usize = 64 << 10;

/// A bounded buffer of one connection. While the program reads slowly, the next messages are received until it is full, so
/// that a signal among them does not wait.
#[derive(Debug, Default)]
pub struct Feed {
    waiting: Mutex<Waiting>,
    /// The buffer has bytes, or an end.
    filled: Notify,
    /// The buffer is empty.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    end: bool,
}

impl Feed {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes, and then the end if `end`; returns when there is room for more.
    pub async fn push(&self, bytes: &[u8], end: bool) {
        {
            let mut waiting = self.waiting();
            // Standard input is closed: the program gets no byte after its end.
            if !waiting.end {
                waiting.bytes.extend_from_slice(bytes);
                waiting.end = end;
            }
        }
        self.filled.notify_one();
        loop {
            if self.waiting().bytes.len() <= MAX_WAITING {
                return;
            }
            self.emptied.notified().await;
        }
    }

    /// Sends the bytes to the program as it reads them. Returns only if that fails.
    pub async fn run(&self, port: &InputPort) -> InputError {
        loop {
            let Waiting { bytes, end } = std::mem::take(&mut *self.waiting());
            if bytes.is_empty() && !end {
                self.filled.notified().await;
                continue;
            }
            self.emptied.notify_one();
            if let Err(error) = port.send(bytes, end).await {
                return error;
            }
        }
    }
}
