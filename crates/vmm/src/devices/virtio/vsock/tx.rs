//! Guest to host: processes the guest's packets.

use vm_memory::Permissions;

use super::connection::{Connection, Phase};
use super::device::RESET_LIMIT;
use super::header::{HEADER_SIZE, Header, SHUTDOWN_BOTH, TYPE_STREAM, op};
use super::{HOST_CID, TXQ, Vsock, VsockEvent};
use crate::devices::virtio::{Chain, RingError, Rings, io as guest_io};

/// The most packets per call, so that other devices get their turn on the event loop.
const CALL_LIMIT: usize = 256;

/// The effect of a packet on its connection.
enum Verdict {
    /// The connection continues.
    Keep,
    /// The guest ended it with RST, which is not answered.
    Finish,
    /// It ends with an RST to the guest: both sides have shut down, or the guest broke the protocol.
    Reset,
}

impl Vsock {
    /// Processes the available packets. Returns true if some are left.
    pub(super) fn transmit(&mut self, rings: &mut Rings) -> Result<bool, RingError> {
        rings.disable_notification(TXQ)?;
        let mut packets = 0;
        let cut_short = loop {
            if packets == CALL_LIMIT || self.resets.len() >= RESET_LIMIT {
                break true;
            }
            let Some(chain) = rings.pop(TXQ)? else {
                if rings.enable_notification(TXQ)? {
                    continue;
                }
                break false;
            };
            self.process_packet(rings, &chain)?;
            rings.push_used(TXQ, chain.head, 0)?;
            packets += 1;
        };
        Ok(cut_short)
    }

    fn process_packet(&mut self, rings: &Rings, chain: &Chain) -> Result<(), RingError> {
        let mut bytes = [0; HEADER_SIZE];
        if guest_io::copy_out(rings.memory(), &chain.readable, 0, &mut bytes)? < HEADER_SIZE {
            return Err(RingError::Short {
                queue: TXQ,
                head: chain.head,
            });
        }
        let header = Header::from_bytes(&bytes);
        if header.src_cid != u64::from(self.config.guest_cid) || header.dst_cid != HOST_CID {
            return Ok(());
        }
        let port = header.dst_port;
        let ours = self
            .connections
            .get_mut(&port)
            .filter(|c| c.guest_port == header.src_port);
        let Some(connection) = ours else {
            self.handle_unknown_connection(&header);
            return Ok(());
        };
        connection.update_peer_credit(header.buf_alloc, header.fwd_cnt);
        let was = connection.phase;
        let verdict = if header.kind == TYPE_STREAM {
            handle_packet(connection, &header, rings, chain)?
        } else {
            Verdict::Reset
        };
        let (id, now) = (connection.id, connection.phase);
        self.report(id, was, now, &verdict);
        self.apply(port, verdict);
        Ok(())
    }

    /// A packet for no connection: the ready report, or one to refuse.
    fn handle_unknown_connection(&mut self, header: &Header) {
        // An RST is never answered, or both sides could send RST for ever.
        if header.op == op::RST && header.kind == TYPE_STREAM {
            return;
        }
        self.resets.push_back((header.dst_port, header.src_port));
        let connect = header.op == op::REQUEST && header.kind == TYPE_STREAM;
        if connect && header.dst_port == self.config.ready_port {
            self.ready = true;
            if !std::mem::replace(&mut self.ready_reported, true) {
                self.shared.report(VsockEvent::Ready);
            }
        }
    }

    fn report(&mut self, id: u64, was: Phase, now: Phase, verdict: &Verdict) {
        if was != Phase::Connecting {
            return;
        }
        match verdict {
            Verdict::Keep if now == Phase::Established => {
                self.shared.report(VsockEvent::Connected(id));
            }
            Verdict::Keep => {}
            Verdict::Finish => {
                self.connect_failed(id, "the guest refused: no process listens on the port");
            }
            Verdict::Reset => {
                self.connect_failed(
                    id,
                    "the guest answered REQUEST with neither RESPONSE nor RST",
                );
            }
        }
    }

    fn apply(&mut self, port: u32, verdict: Verdict) {
        match verdict {
            Verdict::Keep => {
                self.after_flush(port);
                self.enqueue(port);
            }
            Verdict::Finish => self.finish(port),
            Verdict::Reset => self.reset_connection(port),
        }
    }
}

fn handle_packet(
    connection: &mut Connection,
    header: &Header,
    rings: &Rings,
    chain: &Chain,
) -> Result<Verdict, RingError> {
    Ok(match (connection.phase, header.op) {
        (_, op::RST) => Verdict::Finish,
        (Phase::Connecting, op::RESPONSE) => {
            connection.phase = Phase::Established;
            connection.deadline = None;
            Verdict::Keep
        }
        (Phase::Connecting, _) => Verdict::Reset,
        (_, op::RW) => data(connection, header, rings, chain)?,
        (_, op::SHUTDOWN) => {
            connection.guest_shut_down(header.flags);
            // The guest waits for RST to release the port; buffered bytes drain without the connection.
            if connection.guest_shutdown == SHUTDOWN_BOTH {
                Verdict::Reset
            } else {
                Verdict::Keep
            }
        }
        (_, op::CREDIT_UPDATE) => Verdict::Keep,
        (_, op::CREDIT_REQUEST) => {
            connection.wants_credit_update = true;
            Verdict::Keep
        }
        _ => Verdict::Reset,
    })
}

fn data(
    connection: &mut Connection,
    header: &Header,
    rings: &Rings,
    chain: &Chain,
) -> Result<Verdict, RingError> {
    let len = header.len as usize;
    let all_there = chain.readable_len() - HEADER_SIZE >= len;
    if !all_there || !connection.fits_credit(len) {
        return Ok(Verdict::Reset);
    }
    if len == 0 {
        return Ok(Verdict::Keep);
    }
    let views = guest_io::slices(
        rings.memory(),
        &chain.readable,
        HEADER_SIZE,
        len,
        Permissions::Read,
    )?;
    let taken = connection.deliver(&views);
    if taken < len {
        let mut rest = vec![0; len - taken];
        guest_io::copy_out(
            rings.memory(),
            &chain.readable,
            HEADER_SIZE + taken,
            &mut rest,
        )?;
        connection.buffer_bytes(&rest);
    }
    Ok(Verdict::Keep)
}
