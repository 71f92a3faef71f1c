//! The device's state in a snapshot: the connections as the guest sees them.

use std::num::Wrapping;

use serde::{Deserialize, Serialize};

use super::BUFFER_SIZE;
use super::connection::{Connection, Phase};
use super::header::SHUTDOWN_BOTH;

/// The state of the device. Streams are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VsockState {
    /// The guest's CID, which the guest has read.
    pub guest_cid: u32,
    /// True if the guest has reported ready, so that connects start at once.
    pub ready: bool,
    /// True if [`super::VsockEvent::Ready`] was reported.
    pub ready_reported: bool,
    /// The host port to try first for the next connect.
    pub next_port: u32,
    /// Established and closing connections.
    pub connections: Vec<ConnectionState>,
    /// RST packets that are not sent yet: host port, guest port. Pending connects are among them, since their
    /// requester does not exist after a restore.
    pub resets: Vec<(u32, u32)>,
}

/// The state of one connection; the fields are those of [`Connection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConnectionState {
    pub id: u64,
    pub local_port: u32,
    pub guest_port: u32,
    /// True for [`Phase::Closing`], false for [`Phase::Established`].
    pub closing: bool,
    pub fwd_cnt: u32,
    pub last_fwd_cnt: u32,
    pub wants_credit_update: bool,
    pub tx_cnt: u32,
    pub peer_buf_alloc: u32,
    pub peer_fwd_cnt: u32,
    pub guest_shutdown: u32,
    pub host_shutdown: u32,
    pub sent_shutdown: u32,
    pub buffer: Vec<u8>,
}

impl ConnectionState {
    pub fn of(connection: &Connection) -> Self {
        Self {
            id: connection.id,
            local_port: connection.local_port,
            guest_port: connection.guest_port,
            closing: connection.phase == Phase::Closing,
            fwd_cnt: connection.fwd_cnt.0,
            last_fwd_cnt: connection.last_fwd_cnt.0,
            wants_credit_update: connection.wants_credit_update,
            tx_cnt: connection.tx_cnt.0,
            peer_buf_alloc: connection.peer_buf_alloc,
            peer_fwd_cnt: connection.peer_fwd_cnt.0,
            guest_shutdown: connection.guest_shutdown,
            host_shutdown: connection.host_shutdown,
            sent_shutdown: connection.sent_shutdown,
            buffer: connection.buffer.iter().copied().collect(),
        }
    }

    /// The connection without its stream, or the field that is impossible.
    pub fn into_connection(self) -> Result<Connection, String> {
        let (port, buffered) = (self.local_port, self.buffer.len());
        if buffered > BUFFER_SIZE as usize {
            return Err(format!(
                "host port {port} has {buffered} buffered bytes, at most {BUFFER_SIZE} are possible"
            ));
        }
        let flags = self.guest_shutdown | self.host_shutdown | self.sent_shutdown;
        if flags & !SHUTDOWN_BOTH != 0 {
            return Err(format!("host port {port} has shutdown flags {flags:#x}"));
        }
        let phase = if self.closing {
            Phase::Closing
        } else {
            Phase::Established
        };
        let mut connection = Connection::new(self.id, port, self.guest_port, phase);
        connection.fwd_cnt = Wrapping(self.fwd_cnt);
        connection.last_fwd_cnt = Wrapping(self.last_fwd_cnt);
        connection.wants_credit_update = self.wants_credit_update;
        connection.tx_cnt = Wrapping(self.tx_cnt);
        connection.peer_buf_alloc = self.peer_buf_alloc;
        connection.peer_fwd_cnt = Wrapping(self.peer_fwd_cnt);
        connection.guest_shutdown = self.guest_shutdown;
        connection.host_shutdown = self.host_shutdown;
        connection.sent_shutdown = self.sent_shutdown;
        connection.buffer = self.buffer.into();
        Ok(connection)
    }
}
