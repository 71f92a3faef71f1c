//! Guest to TAP.

use std::io::ErrorKind;
use std::os::fd::AsFd;

use vm_memory::Permissions;

use super::filter::Verdict;
use super::packet::{INSPECTED, ethernet};
use super::virtio_header::VirtioHeader;
use super::{ETHERNET_HEADER_SIZE, HEADER_SIZE, MAX_FRAME, Net, TXQ};
use crate::devices::virtio::{Chain, RingError, Rings, io as guest_io};

/// The most frames per call, so that other devices get their turn on the event loop.
const CALL_LIMIT: usize = 256;
/// The most bytes that are copied for the egress filter: virtio header, Ethernet, IPv4 and TCP.
const HEADERS: usize = HEADER_SIZE + INSPECTED;

enum Sent {
    Done,
    TapFull,
}

impl Net {
    pub(super) fn transmit(&mut self, rings: &mut Rings) -> Result<(), RingError> {
        self.tx_blocked = false;
        rings.disable_notification(TXQ)?;
        let mut frames = 0;
        loop {
            if frames == CALL_LIMIT {
                rings.kick(TXQ);
                break;
            }
            if self
                .limiter
                .as_mut()
                .is_some_and(|limiter| !limiter.may_send())
            {
                // The timer goes on with the waiting frames.
                break;
            }
            let Some(chain) = rings.pop(TXQ)? else {
                if rings.enable_notification(TXQ)? {
                    continue;
                }
                break;
            };
            if let Sent::TapFull = self.send_frame(rings, &chain)? {
                rings.unpop(TXQ, 1);
                self.tx_blocked = true;
                break;
            }
            rings.push_used(TXQ, chain.head, 0)?;
            frames += 1;
        }
        rings.flush(TXQ)
    }

    fn send_frame(&mut self, rings: &Rings, chain: &Chain) -> Result<Sent, RingError> {
        let len = chain.readable_len();
        if !(HEADER_SIZE + ETHERNET_HEADER_SIZE..=MAX_FRAME).contains(&len) {
            self.count_sent(1, 0);
            return Ok(Sent::Done);
        }
        // The headers are sent from the checked copy: the guest could change its memory after the check.
        let mut copy = [0; HEADERS];
        let headers = &mut copy[..len.min(HEADERS)];
        guest_io::copy_out(rings.memory(), &chain.readable, 0, headers)?;
        let packets = match self.check(headers, len) {
            Some(packets) => packets,
            None => {
                // A dropped frame costs a packet, so that a flood of them is slowed down, too.
                self.count_sent(1, 0);
                return Ok(Sent::Done);
            }
        };
        let body = guest_io::slices(
            rings.memory(),
            &chain.readable,
            headers.len(),
            len - headers.len(),
            Permissions::Read,
        )?;
        match guest_io::writev(self.tap.as_fd(), headers, &body) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Sent::TapFull),
            // A frame that the TAP refuses is dropped, as on a wire.
            _ => {
                self.count_sent(packets, len - HEADER_SIZE);
                Ok(Sent::Done)
            }
        }
    }

    /// Returns the number of packets that the frame is on the wire, or `None` if it is dropped.
    fn check(&mut self, headers: &[u8], len: usize) -> Option<u64> {
        let (virtio, frame) = headers.split_first_chunk::<HEADER_SIZE>()?;
        let virtio = VirtioHeader::parse(virtio);
        let len = len - HEADER_SIZE;
        let verdict = match &self.filter {
            Some(filter) => filter.check(&virtio, frame, len),
            None if ethernet(frame).1 == self.config.mac => Verdict::Pass(None),
            None => Verdict::Ignore,
        };
        match verdict {
            Verdict::Pass(flow) => {
                if let (Some(flow), Some(limiter)) = (flow, &mut self.limiter)
                    && !limiter.may_open(flow)
                {
                    self.denials.count(flow.denial());
                    return None;
                }
                Some(virtio.packets(len))
            }
            Verdict::Deny(denial) => {
                self.denials.count(denial);
                None
            }
            Verdict::Ignore => None,
        }
    }

    fn count_sent(&mut self, packets: u64, bytes: usize) {
        if let Some(limiter) = &mut self.limiter {
            limiter.tx.take(packets, bytes);
        }
    }
}
