//! Host to guest: fills the guest's receive buffers.

use std::io;
use std::time::Duration;

use vm_memory::Permissions;

use super::connection::{Connection, PendingPacket};
use super::header::{HEADER_SIZE, Header, TYPE_STREAM, op};
use super::{BUFFER_SIZE, HOST_CID, RXQ, Vsock};
use crate::devices::virtio::{Chain, RingError, Rings, io as guest_io};

/// The most packets per call, so that other devices get their turn on the event loop.
const CALL_LIMIT: usize = 512;
/// The largest payload of a packet in bytes: Linux's `VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`.
const MAX_PAYLOAD: usize = 64 * 1024;

impl Vsock {
    /// Sends the pending packets to the guest.
    pub(super) fn receive(&mut self, rings: &mut Rings) -> Result<(), RingError> {
        let mut packets = 0;
        while !self.resets.is_empty() || !self.rx_pending.is_empty() {
            if packets == CALL_LIMIT {
                rings.kick(RXQ);
                break;
            }
            let Some(chain) = rings.pop(RXQ)? else {
                if rings.enable_notification(RXQ)? {
                    continue;
                }
                break;
            };
            // A buffer without space for payload would read zero bytes, which looks like the end of the stream.
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

    /// Fills one chain and returns its length; `None` if no connection had a packet.
    fn fill(&mut self, rings: &Rings, chain: &Chain) -> Result<Option<usize>, RingError> {
        loop {
            // Checked after each connection: a failed stream queues an RST.
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
            let Some(port) = self.rx_pending.pop_front() else {
                return Ok(None);
            };
            let filled = self.fill_from(port, rings, chain)?;
            if let Some(connection) = self.connections.get_mut(&port) {
                connection.queued = false;
            }
            // At the back of the queue if it has more packets.
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
        let (base, timeout) = (self.header_base(), self.timeout);
        let Some(connection) = self.connections.get_mut(&port) else {
            return Ok(None);
        };
        let (op, flags, len) = match connection.pending_packet() {
            PendingPacket::Nothing => return Ok(None),
            PendingPacket::Data(credit) => match read_stream(connection, rings, chain, credit)? {
                Ok(Some(len)) => (op::RW, 0, len),
                // The stream has ended or has no bytes yet; the caller queues the connection again.
                Ok(None) => return Ok(None),
                Err(_) => {
                    self.reset_connection(port);
                    return Ok(None);
                }
            },
            next => {
                let (op, flags) = control(connection, next, timeout);
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
            fwd_cnt: connection.fwd_cnt.0,
            ..base
        };
        // Every packet carries the credit.
        connection.last_fwd_cnt = connection.fwd_cnt;
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

/// The operation and flags of a packet without payload, which the connection records as sent.
fn control(connection: &mut Connection, next: PendingPacket, timeout: Duration) -> (u16, u32) {
    match next {
        PendingPacket::Request => {
            connection.wants_request = false;
            (op::REQUEST, 0)
        }
        PendingPacket::CreditRequest => {
            connection.credit_requested = true;
            (op::CREDIT_REQUEST, 0)
        }
        PendingPacket::Shutdown(flags) => {
            connection.sent_shutdown = flags;
            Vsock::close_if_shut_down(connection, timeout);
            (op::SHUTDOWN, flags)
        }
        PendingPacket::CreditUpdate | PendingPacket::Data(_) | PendingPacket::Nothing => {
            (op::CREDIT_UPDATE, 0)
        }
    }
}

fn read_stream(
    connection: &mut Connection,
    rings: &Rings,
    chain: &Chain,
    credit: usize,
) -> Result<io::Result<Option<usize>>, RingError> {
    let len = (chain.writable_len() - HEADER_SIZE)
        .min(credit)
        .min(MAX_PAYLOAD);
    let views = guest_io::slices(
        rings.memory(),
        &chain.writable,
        HEADER_SIZE,
        len,
        Permissions::Write,
    )?;
    Ok(connection.receive(&views))
}
