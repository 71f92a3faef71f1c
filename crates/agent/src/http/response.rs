//! Responses: one JSON value, or a chunked stream of events.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use cloude_protocol::agent::{ErrorBody, Event, NDJSON};

use super::connection::Connection;
use crate::execute::sink::Sink;

/// Time for the client to read a whole response, else the connection is dropped.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Pending bytes above which no more output is read from the program.
const HIGH_WATER: usize = 256 * 1024;

/// A response with one JSON value.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub json: Vec<u8>,
    /// The `Allow` field of a 405.
    pub allow: Option<&'static str>,
}

impl Answer {
    /// 200 with a value.
    pub fn ok(value: &impl serde::Serialize) -> Answer {
        match serde_json::to_vec(value) {
            Ok(json) => Answer {
                status: 200,
                json,
                allow: None,
            },
            Err(error) => {
                Answer::error(500, format!("cannot encode the response as JSON: {error}"))
            }
        }
    }

    /// 204, without a body.
    pub fn empty() -> Answer {
        Answer {
            status: 204,
            json: Vec::new(),
            allow: None,
        }
    }

    /// An error status with an [`ErrorBody`].
    pub fn error(status: u16, error: impl Into<String>) -> Answer {
        let json = serde_json::to_vec(&ErrorBody {
            error: error.into(),
        })
        .unwrap_or_default();
        Answer {
            status,
            json,
            allow: None,
        }
    }

    /// Sends the response. `keep_alive` is false if the connection closes after it.
    pub fn send(&self, connection: &Connection, keep_alive: bool) -> io::Result<()> {
        let mut bytes =
            format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).into_bytes();
        // RFC 9110, section 8.6: a 204 has no Content-Length.
        if self.status != 204 {
            let length = self.json.len();
            let content = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
            bytes.extend_from_slice(content.as_bytes());
        }
        if self.status == 401 {
            bytes.extend_from_slice(b"WWW-Authenticate: Bearer\r\n");
        }
        if let Some(methods) = self.allow {
            bytes.extend_from_slice(format!("Allow: {methods}\r\n").as_bytes());
        }
        if !keep_alive {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.json);
        connection.write_all(&bytes, Instant::now() + ANSWER_TIME)
    }
}

/// Reason phrases of RFC 9110, section 15.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}

/// A stream of events, one per chunk, buffered while the client reads slowly.
#[derive(Debug)]
pub struct EventStream<'a> {
    connection: &'a Connection,
    /// Encoded events; sent up to `sent`.
    pending: Vec<u8>,
    sent: usize,
    gone: bool,
}

impl<'a> EventStream<'a> {
    /// Starts the response.
    pub fn start(connection: &'a Connection) -> Self {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {NDJSON}\r\nTransfer-Encoding: chunked\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        );
        EventStream {
            connection,
            pending: head.into_bytes(),
            sent: 0,
            gone: false,
        }
    }

    /// Ends the response and waits until the client has read it.
    pub fn finish(mut self) -> io::Result<()> {
        self.pending.extend_from_slice(b"0\r\n\r\n");
        self.connection
            .write_all(&self.pending[self.sent..], Instant::now() + ANSWER_TIME)
    }

    /// Encodes one event as a line in a chunk of its own (RFC 9112, section 7.1). The chunk size has a fixed number
    /// of digits and is filled in last, so that the JSON is not moved.
    fn encode(&mut self, event: &Event) {
        const SIZE: usize = 8;
        let at = self.pending.len();
        self.pending.extend_from_slice(b"00000000\r\n");
        let body = self.pending.len();
        if serde_json::to_writer(&mut self.pending, event).is_err() {
            self.pending.truncate(at);
            return;
        }
        self.pending.push(b'\n');
        let size = format!("{:0SIZE$x}", self.pending.len() - body);
        self.pending[at..at + SIZE].copy_from_slice(size.as_bytes());
        self.pending.extend_from_slice(b"\r\n");
    }
}

impl Sink for EventStream<'_> {
    fn event(&mut self, event: Event) -> Option<Vec<u8>> {
        if !self.gone {
            self.encode(&event);
            // The last event is sent together with the last chunk.
            if !matches!(event, Event::Finished(_)) {
                self.flush_some();
            }
        }
        match event {
            Event::Output { data, .. } | Event::ArtifactData { data } => Some(data.0),
            _ => None,
        }
    }

    fn has_room(&self) -> bool {
        self.gone || self.pending.len() - self.sent < HIGH_WATER
    }

    fn wants_write(&self) -> bool {
        !self.gone && self.sent < self.pending.len()
    }

    fn flush_some(&mut self) {
        while self.wants_write() {
            match self.connection.write_some(&self.pending[self.sent..]) {
                Ok(0) => return,
                Ok(written) => self.sent += written,
                Err(_) => self.set_gone(),
            }
        }
        if self.sent == self.pending.len() {
            self.pending.clear();
            self.sent = 0;
        }
    }

    fn is_gone(&self) -> bool {
        self.gone
    }

    fn set_gone(&mut self) {
        self.gone = true;
        self.pending = Vec::new();
        self.sent = 0;
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.connection.as_fd())
    }
}
