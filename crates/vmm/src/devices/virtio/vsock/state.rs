//! What a snapshot keeps: the connections, as the guest knows them.

use std::num::Wrapping;

use serde::{Deserialize, Serialize};

use super::BUFFER_SIZE;
use super::connection::{Connection, Phase};
use super::header::SHUTDOWN_BOTH;

/// The device's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockState {
    /// The guest's context id, which the guest has read.
    pub guest_cid: u32,
    /// Whether the guest has reported ready, so that connects need not wait.
    pub ready: bool,
    /// Whether [`super::VsockEvent::Ready`] was said.
    pub ready_said: bool,
    /// Where the search for a free port of the host goes on.
    pub next_port: u32,
    /// Those that were established. Their streams are not part of the state.
    pub connections: Vec<ConnectionState>,
    /// Port pairs, the host's first, that the guest is still to be told a reset for. A connect that was
    /// under way is among them: whoever asked for it is not there after a restore.
    pub resets: Vec<(u32, u32)>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionState {
    /// The id of the connect that it came from.
    pub id: u64,
    /// The host's port.
    pub local_port: u32,
    /// The guest's port.
    pub guest_port: u32,
    /// Whether the host's end is closed and the guest's reset awaited.
    pub closing: bool,
    /// `fwd_cnt`.
    pub forwarded: u32,
    /// The `fwd_cnt` that the guest was told.
    pub forwarded_told: u32,
    /// Whether the guest is to be told without anything to send.
    pub wants_credit_update: bool,
    /// `tx_cnt`.
    pub sent: u32,
    /// The guest's `buf_alloc`.
    pub peer_buf_alloc: u32,
    /// The guest's `fwd_cnt`.
    pub peer_forwarded: u32,
    /// The guest's shutdown flags.
    pub guest_shutdown: u32,
    /// The host's shutdown flags.
    pub host_shutdown: u32,
    /// The part of them that the guest knows.
    pub told_shutdown: u32,
    /// Bytes from the guest that no stream has taken, in hexadecimal.
    pub buffer: String,
}

impl ConnectionState {
    pub(super) fn of(connection: &Connection) -> Self {
        let hex = |bytes: &std::collections::VecDeque<u8>| {
            bytes
                .iter()
                .flat_map(|byte| [byte >> 4, byte & 15])
                .map(hex_digit)
                .collect()
        };
        Self {
            id: connection.id,
            local_port: connection.local_port,
            guest_port: connection.guest_port,
            closing: connection.phase == Phase::Closing,
            forwarded: connection.forwarded.0,
            forwarded_told: connection.forwarded_told.0,
            wants_credit_update: connection.wants_credit_update,
            sent: connection.sent.0,
            peer_buf_alloc: connection.peer_buf_alloc,
            peer_forwarded: connection.peer_forwarded.0,
            guest_shutdown: connection.guest_shutdown,
            host_shutdown: connection.host_shutdown,
            told_shutdown: connection.told_shutdown,
            buffer: hex(&connection.buffer),
        }
    }

    /// The connection without its stream, or what is impossible about the record.
    pub(super) fn connection(&self) -> Result<Connection, String> {
        let buffer = unhex(&self.buffer)
            .filter(|buffer| buffer.len() <= BUFFER_SIZE as usize)
            .ok_or_else(|| format!("the buffer of port {}", self.local_port))?;
        let flags = self.guest_shutdown | self.host_shutdown | self.told_shutdown;
        if flags & !SHUTDOWN_BOTH != 0 {
            return Err(format!(
                "shutdown flags {flags:#x} of port {}",
                self.local_port
            ));
        }
        let phase = if self.closing {
            Phase::Closing
        } else {
            Phase::Established
        };
        let mut connection = Connection::new(self.id, self.local_port, self.guest_port, phase);
        connection.forwarded = Wrapping(self.forwarded);
        connection.sent = Wrapping(self.sent);
        connection.peer_buf_alloc = self.peer_buf_alloc;
        connection.peer_forwarded = Wrapping(self.peer_forwarded);
        connection.guest_shutdown = self.guest_shutdown;
        connection.host_shutdown = self.host_shutdown;
        connection.told_shutdown = self.told_shutdown;
        connection.buffer = buffer.into();
        connection.forwarded_told = Wrapping(self.forwarded_told);
        connection.wants_credit_update = self.wants_credit_update;
        Ok(connection)
    }
}

fn hex_digit(value: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(value & 15)])
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits?;
    digits.len().is_multiple_of(2).then(|| {
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    })
}
