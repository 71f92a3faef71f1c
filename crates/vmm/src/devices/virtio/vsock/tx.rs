//! From the guest to the host: takes the guest's packets.

use vm_memory::Permissions;

use super::connection::{Connection, Phase};
use super::device::RESET_LIMIT;
use super::header::{HEADER_SIZE, Header, SHUTDOWN_BOTH, TYPE_STREAM, op};
use super::{HOST_CID, TXQ, Vsock, VsockEvent};
use crate::devices::virtio::{Chain, RingError, Rings, io as guest_io};

/// Packets in one turn of the event loop.
const TURN_LIMIT: usize = 256;

/// What a packet means for its connection.
enum Verdict {
    /// All is well.
    Keep,
    /// The guest ended it; no answer.
    Finish,
    /// It ends with a reset for the guest: both ends are closed, or the guest broke the protocol.
    Reset,
}

impl Vsock {
    /// Takes the packets that there are. `true` if it stopped before the last.
    pub(super) fn transmit(&mut self, rings: &mut Rings) -> Result<bool, RingError> {
        rings.disable_notification(TXQ)?;
        let mut packets = 0;
        let cut_short = loop {
            if packets == TURN_LIMIT || self.resets.len() >= RESET_LIMIT {
                break true;
            }
            let Some(chain) = rings.pop(TXQ)? else {
                if rings.enable_notification(TXQ)? {
                    continue;
                }
                break false;
            };
            self.take_packet(rings, &chain)?;
            rings.push_used(TXQ, chain.head, 0)?;
            packets += 1;
        };
        Ok(cut_short)
    }

    fn take_packet(&mut self, rings: &Rings, chain: &Chain) -> Result<(), RingError> {
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
            self.answer_stranger(&header);
            return Ok(());
        };
        connection.note_peer_credit(header.buf_alloc, header.fwd_cnt);
        let was = connection.phase;
        let verdict = if header.kind == TYPE_STREAM {
            judge(connection, &header, rings, chain)?
        } else {
            Verdict::Reset
        };
        let (id, now) = (connection.id, connection.phase);
        self.report(id, was, now, &verdict);
        self.carry_out(port, verdict);
        Ok(())
    }

    /// A packet for no connection: the guest's report of being ready, or one to refuse.
    fn answer_stranger(&mut self, header: &Header) {
        // A reset is never answered, or two sides could go on for ever.
        if header.op == op::RST && header.kind == TYPE_STREAM {
            return;
        }
        self.resets.push_back((header.dst_port, header.src_port));
        let connect = header.op == op::REQUEST && header.kind == TYPE_STREAM;
        if connect && header.dst_port == self.config.ready_port {
            self.ready = true;
            if !std::mem::replace(&mut self.ready_said, true) {
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
            Verdict::Finish => self.connect_failed(id, "the guest refused: nothing listens there"),
            Verdict::Reset => {
                self.connect_failed(id, "the guest answered with something else");
            }
        }
    }

    fn carry_out(&mut self, port: u32, verdict: Verdict) {
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

fn judge(
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
            // The guest waits for a reset to forget the port; what is kept drains without it.
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
    if !all_there || !connection.has_room_for(len) {
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
        connection.keep(&rest);
    }
    Ok(Verdict::Keep)
}
