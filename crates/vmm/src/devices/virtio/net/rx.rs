//! TAP to guest.
//!
//! A read from a TAP consumes one whole frame and truncates it if it does not fit. So a frame is read directly into the
//! guest's buffers only if they can hold the largest possible frame. Otherwise it is read into a bounce buffer, and
//! dropped if it does not fit.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use vm_memory::Permissions;

use super::device::{F_GUEST_TSO4, F_GUEST_TSO6, F_MRG_RXBUF};
use super::{ETHERNET_HEADER_SIZE, HEADER_SIZE, MAX_FRAME, Net, RXQ};
use crate::devices::virtio::{Chain, RingError, Rings, Segment, io as guest_io};

/// The most frames per call, so that other devices get their turn on the event loop.
const CALL_LIMIT: usize = 256;
/// The most frames to drop at a resume: twice the queue of a TAP (`TUN_READQ_SIZE`, drivers/net/tun.c), so that a flood
/// of frames cannot delay the VM.
const WAITING_LIMIT: usize = 1000;
/// Offset of `num_buffers` in the virtio header (spec section 5.1.6).
const NUM_BUFFERS: usize = 10;
/// The minimum size of a receive buffer with `GUEST_TSO` and without `MRG_RXBUF` (spec section 5.1.6.3.1).
const MIN_TSO_BUFFER: usize = HEADER_SIZE + ETHERNET_HEADER_SIZE + (1 << 16);

impl Net {
    /// Drops the frames that arrived while the VM was paused: they are for an earlier user of the TAP, or stale.
    pub(super) fn drop_waiting(&mut self) {
        let mut start = [0_u8; HEADER_SIZE];
        for _ in 0..WAITING_LIMIT {
            // SAFETY: the pointer and length are those of a live, exclusive buffer. The rest of the frame is discarded.
            let got =
                unsafe { libc::read(self.tap.as_raw_fd(), start.as_mut_ptr().cast(), start.len()) };
            if got <= 0 {
                break;
            }
        }
    }

    pub(super) fn receive(&mut self, rings: &mut Rings) -> Result<(), RingError> {
        for _ in 0..CALL_LIMIT {
            if !self.take_buffers(rings)? {
                return rings.flush(RXQ);
            }
            if self
                .limiter
                .as_mut()
                .is_some_and(|limiter| !limiter.may_receive())
            {
                // Frames wait in the TAP, which drops those beyond its queue. The timer goes on.
                return rings.flush(RXQ);
            }
            match self.read_frame(rings)? {
                Ok(len) if (HEADER_SIZE..=self.rx_capacity).contains(&len) => {
                    self.count_received(len - HEADER_SIZE);
                    self.give_frame(rings, len)?;
                }
                // Not a frame, or one that does not fit: it is dropped.
                Ok(_) => {}
                // Usually EAGAIN. After any other error the next event tries again.
                Err(_) => return rings.flush(RXQ),
            }
        }
        // The TAP is watched edge-triggered: no event follows for frames that are already queued.
        rings.kick(RXQ);
        rings.flush(RXQ)
    }

    fn count_received(&mut self, bytes: usize) {
        if let Some(limiter) = &mut self.limiter {
            // A frame that the host has merged (GRO) counts as the packets that it came in, about.
            let packets = bytes.div_ceil(usize::from(self.config.mtu) + ETHERNET_HEADER_SIZE);
            limiter.rx.take(packets as u64, bytes);
        }
    }

    fn mergeable(&self) -> bool {
        self.features & F_MRG_RXBUF != 0
    }

    fn segmented(&self) -> bool {
        self.features & (F_GUEST_TSO4 | F_GUEST_TSO6) != 0
    }

    /// The largest frame from the TAP in bytes, with its virtio header.
    fn largest_frame(&self) -> usize {
        if self.segmented() {
            MAX_FRAME
        } else {
            HEADER_SIZE + ETHERNET_HEADER_SIZE + 4 + usize::from(self.config.mtu)
        }
    }

    /// The minimum size of a receive buffer (spec section 5.1.6.3.1): a header, or a whole frame without MRG_RXBUF.
    fn min_buffer(&self) -> usize {
        if self.mergeable() {
            HEADER_SIZE
        } else if self.segmented() {
            MIN_TSO_BUFFER
        } else {
            HEADER_SIZE + ETHERNET_HEADER_SIZE + usize::from(self.config.mtu)
        }
    }

    /// Pops buffers until the largest frame fits or none is left. Returns false if there is no buffer at all.
    fn take_buffers(&mut self, rings: &mut Rings) -> Result<bool, RingError> {
        let wanted = self.largest_frame();
        while self.rx_ready.is_empty() || (self.mergeable() && self.rx_capacity < wanted) {
            let Some(chain) = rings.pop(RXQ)? else {
                if rings.enable_notification(RXQ)? {
                    continue;
                }
                break;
            };
            self.check_buffer(&chain)?;
            self.rx_capacity += chain.writable_len();
            self.rx_ready.push_back(chain);
        }
        Ok(!self.rx_ready.is_empty())
    }

    fn check_buffer(&self, chain: &Chain) -> Result<(), RingError> {
        let (queue, head) = (RXQ, chain.head);
        if !chain.readable.is_empty() {
            return Err(RingError::Readable { queue, head });
        }
        if chain.writable_len() < self.min_buffer() {
            return Err(RingError::Short { queue, head });
        }
        Ok(())
    }

    fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.rx_ready
            .iter()
            .flat_map(|chain| chain.writable.iter().copied())
    }

    /// Reads one frame into the buffers and returns its length, which may exceed their capacity.
    fn read_frame(&mut self, rings: &Rings) -> Result<io::Result<usize>, RingError> {
        if self.rx_capacity < self.largest_frame() {
            return self.read_through_bounce(rings);
        }
        let views = guest_io::slices(
            rings.memory(),
            self.segments(),
            0,
            self.rx_capacity,
            Permissions::Write,
        )?;
        Ok(guest_io::readv(self.tap.as_fd(), &views))
    }

    fn read_through_bounce(&mut self, rings: &Rings) -> Result<io::Result<usize>, RingError> {
        let fd = self.tap.as_raw_fd();
        // SAFETY: the pointer and length are those of a live, exclusive buffer.
        let got = unsafe { libc::read(fd, self.bounce.as_mut_ptr().cast(), self.bounce.len()) };
        let Ok(len) = usize::try_from(got) else {
            return Ok(Err(io::Error::last_os_error()));
        };
        if len <= self.rx_capacity {
            guest_io::copy_in(rings.memory(), self.segments(), 0, &self.bounce[..len])?;
        }
        Ok(Ok(len))
    }

    /// Returns the buffers that a frame of `len` bytes uses.
    fn give_frame(&mut self, rings: &mut Rings, len: usize) -> Result<(), RingError> {
        let mut count: u16 = 0;
        let mut held = 0;
        for chain in &self.rx_ready {
            if held >= len {
                break;
            }
            held += chain.writable_len();
            count += 1;
        }
        // Before the first buffer is returned: the guest may then read the header.
        guest_io::copy_in(
            rings.memory(),
            self.segments(),
            NUM_BUFFERS,
            &count.to_le_bytes(),
        )?;
        let mut left = len;
        for chain in self.rx_ready.drain(..usize::from(count)) {
            let size = chain.writable_len();
            self.rx_capacity -= size;
            rings.push_used(RXQ, chain.head, left.min(size))?;
            left -= left.min(size);
        }
        Ok(())
    }
}
