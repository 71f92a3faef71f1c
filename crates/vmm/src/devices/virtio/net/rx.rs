//! From the TAP to the guest.
//!
//! A read of a TAP takes one whole frame and cuts what does not fit. So a frame is read straight into
//! the guest's buffers only when they hold the largest frame that can come; otherwise it goes through
//! a buffer of ours, and is dropped if it turns out not to fit.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use vm_memory::Permissions;

use super::device::{F_GUEST_TSO4, F_GUEST_TSO6, F_MRG_RXBUF};
use super::{ETHERNET_HEADER_SIZE, HEADER_SIZE, MAX_FRAME, Net, RXQ};
use crate::devices::virtio::{Chain, RingError, Rings, Segment, io as guest_io};

/// Frames in one turn of the event loop.
const TURN_LIMIT: usize = 256;
/// Frames that are dropped before a VM runs, at most: twice what a TAP holds (`TUN_READQ_SIZE` of the
/// kernel's drivers/net/tun.c), so that a flood does not keep it from running.
const WAITING_LIMIT: usize = 1000;
/// Offset of `num_buffers` in the virtio header (spec section 5.1.6).
const NUM_BUFFERS: usize = 10;
/// The least size of a receive buffer with `GUEST_TSO` and without `MRG_RXBUF` (spec section 5.1.6.3.1).
const MIN_TSO_BUFFER: usize = HEADER_SIZE + ETHERNET_HEADER_SIZE + (1 << 16);

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
        }
    }

    pub(super) fn receive(&mut self, rings: &mut Rings) -> Result<(), RingError> {
        for _ in 0..TURN_LIMIT {
            if !self.take_buffers(rings)? {
                return rings.flush(RXQ);
            }
            match self.read_frame(rings)? {
                Ok(len) if (HEADER_SIZE..=self.rx_room).contains(&len) => {
                    self.give_frame(rings, len)?;
                }
                // No frame, or one that does not fit: it is lost.
                Ok(_) => {}
                // Most often there is no more. After any other error the next event tries again.
                Err(_) => return rings.flush(RXQ),
            }
        }
        // The TAP is watched by edge: nobody else would come back to it.
        rings.kick(RXQ);
        rings.flush(RXQ)
    }

    fn mergeable(&self) -> bool {
        self.features & F_MRG_RXBUF != 0
    }

    fn segmented(&self) -> bool {
        self.features & (F_GUEST_TSO4 | F_GUEST_TSO6) != 0
    }

    /// The largest frame that the TAP can give, with its header.
    fn largest_frame(&self) -> usize {
        if self.segmented() {
            MAX_FRAME
        } else {
            HEADER_SIZE + ETHERNET_HEADER_SIZE + 4 + usize::from(self.config.mtu)
        }
    }

    /// The least size of one receive buffer (spec section 5.1.6.3.1): each has to hold a header, and a frame
    /// where frames cannot be spread.
    fn min_buffer(&self) -> usize {
        if self.mergeable() {
            HEADER_SIZE
        } else if self.segmented() {
            MIN_TSO_BUFFER
        } else {
            HEADER_SIZE + ETHERNET_HEADER_SIZE + usize::from(self.config.mtu)
        }
    }

    /// Takes buffers until a frame fits, as far as there are any. `false` if there is none at all.
    fn take_buffers(&mut self, rings: &mut Rings) -> Result<bool, RingError> {
        let wanted = self.largest_frame();
        while self.rx_ready.is_empty() || (self.mergeable() && self.rx_room < wanted) {
            let Some(chain) = rings.pop(RXQ)? else {
                if rings.enable_notification(RXQ)? {
                    continue;
                }
                break;
            };
            self.check_buffer(&chain)?;
            self.rx_room += chain.writable_len();
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

    /// Reads one frame to the start of the buffers; gives its length, which may be more than they hold.
    fn read_frame(&mut self, rings: &Rings) -> Result<io::Result<usize>, RingError> {
        if self.rx_room < self.largest_frame() {
            return self.read_through_bounce(rings);
        }
        let views = guest_io::slices(
            rings.memory(),
            self.segments(),
            0,
            self.rx_room,
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
        if len <= self.rx_room {
            guest_io::copy_in(rings.memory(), self.segments(), 0, &self.bounce[..len])?;
        }
        Ok(Ok(len))
    }

    /// Returns as many buffers as the frame of `len` bytes takes.
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
        // Before the first buffer is returned: from then on the guest reads the header.
        guest_io::copy_in(
            rings.memory(),
            self.segments(),
            NUM_BUFFERS,
            &count.to_le_bytes(),
        )?;
        let mut left = len;
        for chain in self.rx_ready.drain(..usize::from(count)) {
            let size = chain.writable_len();
            self.rx_room -= size;
            rings.push_used(RXQ, chain.head, left.min(size))?;
            left -= left.min(size);
        }
        Ok(())
    }
}
