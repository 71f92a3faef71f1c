//! One connection: its stream, its credit, and the shutdown flags of both sides.
//!
//! Counters have the names of the spec (5.10.6.3): `fwd_cnt` and `tx_cnt` are the device's, `peer_fwd_cnt` and
//! `peer_buf_alloc` the guest's.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::num::Wrapping;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use vm_memory::VolatileSlice;

use super::BUFFER_SIZE;
use super::header::{SHUTDOWN_RCV, SHUTDOWN_SEND};
use crate::devices::virtio::io as guest_io;

/// Bytes taken from the guest after which a CREDIT_UPDATE is sent if no other packet carried `fwd_cnt`.
const CREDIT_STEP: u32 = BUFFER_SIZE / 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// REQUEST is queued or sent.
    Connecting,
    /// RESPONSE was received.
    Established,
    /// The stream is closed and SHUTDOWN was sent; the guest's RST is awaited.
    Closing,
}

/// A connection, from the device's view.
pub struct Connection {
    pub id: u64,
    pub local_port: u32,
    pub guest_port: u32,
    pub phase: Phase,
    pub deadline: Option<Instant>,
    pub stream: Option<OwnedFd>,
    /// Bytes from the guest that the stream has not accepted yet.
    pub buffer: VecDeque<u8>,
    /// Bytes from the guest that the stream has accepted.
    pub fwd_cnt: Wrapping<u32>,
    /// The `fwd_cnt` of the last packet to the guest.
    pub last_fwd_cnt: Wrapping<u32>,
    /// Bytes sent to the guest.
    pub tx_cnt: Wrapping<u32>,
    /// `buf_alloc` of the guest's last packet.
    pub peer_buf_alloc: u32,
    /// `fwd_cnt` of the guest's last packet.
    pub peer_fwd_cnt: Wrapping<u32>,
    /// The guest's shutdown flags so far.
    pub guest_shutdown: u32,
    /// Shutdown flags that follow from the state of the stream.
    pub host_shutdown: u32,
    /// The host's shutdown flags that were sent to the guest.
    pub sent_shutdown: u32,
    /// REQUEST has not been sent yet.
    pub wants_request: bool,
    /// CREDIT_UPDATE is due.
    pub wants_credit_update: bool,
    /// CREDIT_REQUEST was sent and not answered.
    pub credit_requested: bool,
    /// The stream may have bytes or be at its end.
    pub readable: bool,
    /// The port is in [`super::Vsock`]'s `rx_pending`.
    pub queued: bool,
    /// The stream is watched for EPOLLOUT.
    pub watches_writable: bool,
}

/// The next packet from a connection to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingPacket {
    Request,
    CreditUpdate,
    CreditRequest,
    /// RW with at most this many bytes of the stream.
    Data(usize),
    Shutdown(u32),
    Nothing,
}

impl Connection {
    pub fn new(id: u64, local_port: u32, guest_port: u32, phase: Phase) -> Self {
        Self {
            id,
            local_port,
            guest_port,
            phase,
            deadline: None,
            stream: None,
            buffer: VecDeque::new(),
            fwd_cnt: Wrapping(0),
            last_fwd_cnt: Wrapping(0),
            tx_cnt: Wrapping(0),
            peer_buf_alloc: 0,
            peer_fwd_cnt: Wrapping(0),
            guest_shutdown: 0,
            host_shutdown: 0,
            sent_shutdown: 0,
            wants_request: phase == Phase::Connecting,
            wants_credit_update: false,
            credit_requested: false,
            readable: false,
            queued: false,
            watches_writable: false,
        }
    }

    /// Bytes that the guest can accept now (spec section 5.10.6.3).
    pub fn credit(&self) -> u32 {
        let in_flight = (self.tx_cnt - self.peer_fwd_cnt).0;
        self.peer_buf_alloc.saturating_sub(in_flight)
    }

    /// Takes the credit fields that every packet of the guest carries.
    pub fn update_peer_credit(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_buf_alloc = buf_alloc;
        self.peer_fwd_cnt = Wrapping(fwd_cnt);
        if self.credit() > 0 {
            self.credit_requested = false;
        }
    }

    /// The packet to send next.
    pub fn pending_packet(&self) -> PendingPacket {
        if self.wants_request {
            return PendingPacket::Request;
        }
        if self.phase != Phase::Established {
            return PendingPacket::Nothing;
        }
        if self.wants_credit_update {
            return PendingPacket::CreditUpdate;
        }
        if self.may_read() {
            return match self.credit() {
                0 if self.credit_requested => self.next_shutdown(),
                0 => PendingPacket::CreditRequest,
                credit => PendingPacket::Data(credit as usize),
            };
        }
        self.next_shutdown()
    }

    fn may_read(&self) -> bool {
        self.readable
            && self.stream.is_some()
            && self.host_shutdown & SHUTDOWN_SEND == 0
            && self.guest_shutdown & SHUTDOWN_RCV == 0
    }

    fn next_shutdown(&self) -> PendingPacket {
        if self.host_shutdown != self.sent_shutdown {
            PendingPacket::Shutdown(self.host_shutdown)
        } else {
            PendingPacket::Nothing
        }
    }

    /// Writes bytes from the guest to the stream and returns how many it accepted. The caller gives the rest to
    /// [`Connection::buffer_bytes`].
    pub fn deliver(&mut self, views: &[VolatileSlice]) -> usize {
        let len = views.iter().map(VolatileSlice::len).sum();
        if self.host_shutdown & SHUTDOWN_RCV != 0 {
            return self.forward(len);
        }
        let (Some(stream), true) = (&self.stream, self.buffer.is_empty()) else {
            return 0;
        };
        match guest_io::send(stream.as_fd(), views) {
            Ok(taken) => self.forward(taken),
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.stop_host_receiving();
                self.forward(len)
            }
        }
    }

    /// True if `len` more bytes are within the credit that the guest has.
    pub fn fits_credit(&self, len: usize) -> bool {
        self.buffer.len() + len <= BUFFER_SIZE as usize
    }

    /// Buffers bytes that the stream did not accept.
    pub fn buffer_bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    fn forward(&mut self, len: usize) -> usize {
        // A packet is at most 4 GiB by its header, and far less by the credit.
        self.fwd_cnt += Wrapping(len as u32);
        if (self.fwd_cnt - self.last_fwd_cnt).0 >= CREDIT_STEP {
            self.wants_credit_update = true;
        }
        len
    }

    /// Writes buffered bytes to the stream as far as it accepts them. After the last byte it shuts the stream's
    /// write side down if the guest sends no more.
    pub fn flush(&mut self) {
        while let Some(stream) = &self.stream {
            let bytes = self.buffer.as_slices().0;
            if bytes.is_empty() {
                break;
            }
            match guest_io::send_bytes(stream.as_fd(), bytes) {
                Ok(taken) => {
                    self.buffer.drain(..taken);
                    self.forward(taken);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.stop_host_receiving(),
            }
        }
        if self.buffer.is_empty() {
            // An idle connection holds no buffer memory.
            self.buffer = VecDeque::new();
            if self.guest_shutdown & SHUTDOWN_SEND != 0 {
                self.shut(libc::SHUT_WR);
            }
        }
    }

    /// Drops the buffered bytes: the stream accepts no more.
    pub fn stop_host_receiving(&mut self) {
        self.host_shutdown |= SHUTDOWN_RCV;
        let lost = self.buffer.len();
        self.buffer = VecDeque::new();
        self.forward(lost);
    }

    /// Applies the flags of the guest's SHUTDOWN.
    pub fn guest_shut_down(&mut self, flags: u32) {
        self.guest_shutdown |= flags & (SHUTDOWN_RCV | SHUTDOWN_SEND);
        if self.guest_shutdown & SHUTDOWN_RCV != 0 {
            self.shut(libc::SHUT_RD);
        }
        self.flush();
    }

    /// True if the stream has bytes for the guest (FIONREAD).
    pub fn stream_has_bytes(&self) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        // FIONREAD fails only on a broken stream, which has none.
        rustix::io::ioctl_fionread(stream).is_ok_and(|count| count > 0)
    }

    fn shut(&self, how: libc::c_int) {
        if let Some(stream) = &self.stream {
            // SAFETY: shutdown takes integers only. Its error (the stream is not connected) changes nothing.
            unsafe { libc::shutdown(stream.as_raw_fd(), how) };
        }
    }

    /// Reads from the stream into the guest's buffers. `Ok(None)` if there are no bytes now or the stream has
    /// ended, which sets SHUTDOWN_SEND.
    pub fn receive(&mut self, views: &[VolatileSlice]) -> io::Result<Option<usize>> {
        let Some(stream) = &self.stream else {
            return Ok(None);
        };
        match guest_io::receive(stream.as_fd(), views) {
            Ok(0) => {
                self.readable = false;
                self.host_shutdown |= SHUTDOWN_SEND;
                Ok(None)
            }
            Ok(len) => {
                self.tx_cnt += Wrapping(len as u32);
                Ok(Some(len))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
