//! Guest to TAP.

use std::io::ErrorKind;
use std::os::fd::AsFd;

use vm_memory::Permissions;

use super::{ETHERNET_HEADER_SIZE, HEADER_SIZE, MAX_FRAME, Net, TXQ};
use crate::devices::virtio::{Chain, RingError, Rings, io as guest_io};

/// The most frames per call, so that other devices get their turn on the event loop.
const CALL_LIMIT: usize = 256;
/// Size of the virtio header and the Ethernet header.
const HEADERS: usize = HEADER_SIZE + ETHERNET_HEADER_SIZE;
/// The source address in these headers.
const SOURCE: std::ops::Range<usize> = HEADER_SIZE + 6..HEADER_SIZE + 12;

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
        if !(HEADERS..=MAX_FRAME).contains(&len) {
            return Ok(Sent::Done);
        }
        // The headers are sent from the checked copy: the guest could change its memory after the check.
        let mut headers = [0; HEADERS];
        guest_io::copy_out(rings.memory(), &chain.readable, 0, &mut headers)?;
        if headers[SOURCE] != self.config.mac {
            return Ok(Sent::Done);
        }
        let body = guest_io::slices(
            rings.memory(),
            &chain.readable,
            HEADERS,
            len - HEADERS,
            Permissions::Read,
        )?;
        match guest_io::writev(self.tap.as_fd(), &headers, &body) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Sent::TapFull),
            // A frame that the TAP refuses is dropped, as on a wire.
            _ => Ok(Sent::Done),
        }
    }
}
