//! From the host to the guest: fills the guest's receive buffers.

use std::io;
use std::time::Duration;

use vm_memory::Permissions;

use super::connection::{Connection, Next};
use super::header::{HEADER_SIZE, Header, TYPE_STREAM, op};
use super::{BUFFER_SIZE, HOST_CID, RXQ, Vsock};
use crate::devices::virtio::{Chain, RingError, Rings, io as guest_io};

/// Packets in one turn of the event loop.
const TURN_LIMIT: usize = 512;
/// The most of a packet's payload, which is also what Linux's driver sends at most
/// (`VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
const MAX_PAYLOAD: usize = 64 * 1024;

impl Vsock {
    /// Gives the guest what there is for it.
    pub(super) fn receive(&mut self, rings: &mut Rings) -> Result<(), RingError> {
        let mut packets = 0;
        while !self.resets.is_empty() || !self.line.is_empty() {
            if packets == TURN_LIMIT {
                rings.kick(RXQ);
                break;
            }
            let Some(chain) = rings.pop(RXQ)? else {
                if rings.enable_notification(RXQ)? {
                    continue;
                }
                break;
            };
            // No payload at all would look like the end of a stream.
            if chain.writable_len() <= HEADER_SIZE {
                return Err(RingError::Short {
                    queue: RXQ,
                    head: chain.head,
                });
            }
            let Some(len) = self.fill(rings, &chain)? else {
                rings.unpop(RXQ, 1);
                break;
            };
            rings.push_used(RXQ, chain.head, len)?;
            packets += 1;
        }
        Ok(())
    }

    /// Fills one chain; `None` if it turns out that there is nothing to say.
    fn fill(&mut self, rings: &Rings, chain: &Chain) -> Result<Option<usize>, RingError> {
        loop {
            // Looked at again behind each connection, whose failed stream may have added one.
            if let Some((local_port, guest_port)) = self.resets.pop_front() {
                let header = Header {
                    src_port: local_port,
                    dst_port: guest_port,
                    op: op::RST,
                    ..self.header_base()
                };
                guest_io::copy_in(rings.memory(), &chain.writable, 0, &header.to_bytes())?;
                return Ok(Some(HEADER_SIZE));
            }
            let Some(port) = self.line.pop_front() else {
                return Ok(None);
            };
            let filled = self.fill_from(port, rings, chain)?;
            if let Some(connection) = self.connections.get_mut(&port) {
                connection.queued = false;
            }
            // Behind the others, if it has more.
            self.enqueue(port);
            if filled.is_some() {
                return Ok(filled);
            }
        }
    }

    fn fill_from(
        &mut self,
        port: u32,
        rings: &Rings,
        chain: &Chain,
    ) -> Result<Option<usize>, RingError> {
        let (base, patience) = (self.header_base(), self.patience);
        let Some(connection) = self.connections.get_mut(&port) else {
            return Ok(None);
        };
        let (op, flags, len) = match connection.next() {
            Next::Nothing => return Ok(None),
            Next::Data(credit) => match read_stream(connection, rings, chain, credit)? {
                Ok(Some(len)) => (op::RW, 0, len),
                // The end of the stream, or nothing yet: the line decides what follows.
                Ok(None) => return Ok(None),
                Err(_) => {
                    self.reset_connection(port);
                    return Ok(None);
                }
            },
            next => {
                let (op, flags) = control(connection, next, patience);
                (op, flags, 0)
            }
        };
        let header = Header {
            src_port: connection.local_port,
            dst_port: connection.guest_port,
            len: len as u32,
            op,
            flags,
            buf_alloc: BUFFER_SIZE,
            fwd_cnt: connection.forwarded.0,
            ..base
        };
        // Every packet tells the credit.
        connection.forwarded_told = connection.forwarded;
        connection.wants_credit_update = false;
        guest_io::copy_in(rings.memory(), &chain.writable, 0, &header.to_bytes())?;
        Ok(Some(HEADER_SIZE + len))
    }

    fn header_base(&self) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: u64::from(self.config.guest_cid),
            kind: TYPE_STREAM,
            ..Header::default()
        }
    }
}

/// Notes that a packet without payload is being sent: its operation and flags.
fn control(connection: &mut Connection, next: Next, patience: Duration) -> (u16, u32) {
    match next {
        Next::Request => {
            connection.wants_request = false;
            (op::REQUEST, 0)
        }
        Next::CreditRequest => {
            connection.asked_for_credit = true;
            (op::CREDIT_REQUEST, 0)
        }
        Next::Shutdown(flags) => {
            connection.told_shutdown = flags;
            Vsock::close_if_both_ends_told(connection, patience);
            (op::SHUTDOWN, flags)
        }
        Next::CreditUpdate | Next::Data(_) | Next::Nothing => (op::CREDIT_UPDATE, 0),
    }
}

fn read_stream(
    connection: &mut Connection,
    rings: &Rings,
    chain: &Chain,
    credit: usize,
) -> Result<io::Result<Option<usize>>, RingError> {
    let room = (chain.writable_len() - HEADER_SIZE)
        .min(credit)
        .min(MAX_PAYLOAD);
    let views = guest_io::slices(
        rings.memory(),
        &chain.writable,
        HEADER_SIZE,
        room,
        Permissions::Write,
    )?;
    Ok(connection.receive(&views))
}
