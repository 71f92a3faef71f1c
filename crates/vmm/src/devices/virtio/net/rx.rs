//! From the TAP to the guest.
//!
//! A read of a TAP takes one whole frame and cuts what does not fit. So a frame is read straight into
//! the guest's buffers only when they hold the largest frame that can come; otherwise it goes through
//! a buffer of ours, and is dropped if it turns out not to fit.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};

use vm_memory::Permissions;

use super::device::{F_GUEST_TSO4, F_GUEST_TSO6, F_MRG_RXBUF};
use super::{ETHERNET_HEADER_SIZE, HEADER_SIZE, MAX_FRAME, Net, RXQ};
use crate::devices::virtio::{RingError, Rings, Segment, io as guest_io};

/// Frames in one turn of the event loop.
const TURN_LIMIT: usize = 256;
/// Frames that are dropped before a VM runs, at most: twice what a TAP holds (`TUN_READQ_SIZE` of the
/// kernel's drivers/net/tun.c), so that a flood does not keep it from running.
const WAITING_LIMIT: usize = 1000;
/// Offset of `num_buffers` in the virtio header (spec section 5.1.6).
const NUM_BUFFERS: usize = 10;

impl Net {
    /// Drops what came while the VM was paused: it is older than the guest, or not for it at all.
    pub(super) fn drop_waiting(&mut self) {
        let mut start = [0_u8; HEADER_SIZE];
        for _ in 0..WAITING_LIMIT {
            // SAFETY: the pointer and length are those of a live, exclusive buffer; what of the frame does
            // not fit is lost with it.
            let got =
                unsafe { libc::read(self.tap.as_raw_fd(), start.as_mut_ptr().cast(), start.len()) };
            if got <= 0 {
                break;
            }
            self.metrics.rx_dropped += 1;
        }
    }

    pub(super) fn receive(&mut self, rings: &mut Rings) -> Result<(), RingError> {
        let mut frames = 0;
        loop {
            if frames == TURN_LIMIT {
                // The TAP is watched by edge: nobody else would come back to it.
                rings.kick(RXQ);
                break;
            }
            if !self.take_buffers(rings)? {
                self.metrics.rx_starved += 1;
                break;
            }
            match self.read_frame(rings)? {
                Ok(()) => frames += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.metrics.rx_errors += 1;
                    break;
                }
            }
        }
        rings.flush(RXQ)
    }

    /// The largest frame that the TAP can give, with its header.
    fn largest_frame(&self) -> usize {
        if self.features & (F_GUEST_TSO4 | F_GUEST_TSO6) != 0 {
            MAX_FRAME
        } else {
            HEADER_SIZE + ETHERNET_HEADER_SIZE + 4 + usize::from(self.config.mtu)
        }
    }

    /// Takes buffers until a frame fits, as far as there are any. `false` if there is none at all.
    fn take_buffers(&mut self, rings: &mut Rings) -> Result<bool, RingError> {
        let wanted = self.largest_frame();
        let mut have: usize = self.rx_ready.iter().map(|chain| chain.writable_len()).sum();
        let mergeable = self.features & F_MRG_RXBUF != 0;
        while self.rx_ready.is_empty() || (mergeable && have < wanted) {
            let Some(chain) = rings.pop(RXQ)? else {
                if rings.enable_notification(RXQ)? {
                    continue;
                }
                break;
            };
            have += chain.writable_len();
            self.rx_ready.push_back(chain);
        }
        Ok(!self.rx_ready.is_empty())
    }

    fn read_frame(&mut self, rings: &mut Rings) -> Result<io::Result<()>, RingError> {
        let segments: Vec<Segment> = self
            .rx_ready
            .iter()
            .flat_map(|chain| &chain.writable)
            .copied()
            .collect();
        let room: usize = self.rx_ready.iter().map(|chain| chain.writable_len()).sum();
        let read = if room >= self.largest_frame() {
            let views = guest_io::slices(rings.memory(), &segments, 0, room, Permissions::Write)?;
            guest_io::readv(self.tap.as_fd(), &views)
        } else {
            self.read_through_bounce(rings, &segments, room)?
        };
        match read {
            Ok(len) if len >= HEADER_SIZE && len <= room => {
                self.give_frame(rings, &segments, len)?;
                Ok(Ok(()))
            }
            Ok(_) => {
                self.metrics.rx_dropped += 1;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    fn read_through_bounce(
        &mut self,
        rings: &Rings,
        segments: &[Segment],
        room: usize,
    ) -> Result<io::Result<usize>, RingError> {
        let fd = self.tap.as_raw_fd();
        // SAFETY: the pointer and length are those of a live, exclusive buffer.
        let got = unsafe { libc::read(fd, self.bounce.as_mut_ptr().cast(), self.bounce.len()) };
        let Ok(len) = usize::try_from(got) else {
            return Ok(Err(io::Error::last_os_error()));
        };
        if len <= room {
            guest_io::copy_in(rings.memory(), segments, 0, &self.bounce[..len])?;
        }
        Ok(Ok(len))
    }

    /// Gives back as many buffers as the frame of `len` bytes takes.
    fn give_frame(
        &mut self,
        rings: &mut Rings,
        segments: &[Segment],
        len: usize,
    ) -> Result<(), RingError> {
        let mut left = len;
        let mut used = Vec::new();
        while left > 0 {
            // Never short: the frame fits the buffers.
            let Some(chain) = self.rx_ready.pop_front() else {
                break;
            };
            let part = left.min(chain.writable_len());
            left -= part;
            used.push((chain.head, part));
        }
        let count = (used.len() as u16).to_le_bytes();
        guest_io::copy_in(rings.memory(), segments, NUM_BUFFERS, &count)?;
        for (head, part) in used {
            rings.push_used(RXQ, head, part)?;
        }
        self.metrics.rx_frames += 1;
        self.metrics.rx_bytes += (len - HEADER_SIZE) as u64;
        Ok(())
    }
}
