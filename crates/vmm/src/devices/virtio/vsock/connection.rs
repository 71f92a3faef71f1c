//! One connection: its stream, its credit, and how far each side has closed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::num::Wrapping;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use vm_memory::VolatileSlice;

use super::BUFFER_SIZE;
use super::header::{SHUTDOWN_RCV, SHUTDOWN_SEND};
use crate::devices::virtio::io as guest_io;

/// After this many bytes taken from the guest it is told, unless a packet told it anyway.
const CREDIT_STEP: u32 = BUFFER_SIZE / 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The request is on its way.
    Connecting,
    /// Bytes may flow.
    Established,
    /// The host's end is gone and the guest was told; its reset is awaited.
    Closing,
}

/// A connection. "Received" and "sent" are the host's view.
pub struct Connection {
    pub id: u64,
    pub local_port: u32,
    pub guest_port: u32,
    pub phase: Phase,
    pub deadline: Option<Instant>,
    pub stream: Option<OwnedFd>,
    /// Bytes from the guest that the stream has not taken yet.
    pub buffer: VecDeque<u8>,
    /// Bytes taken from the guest and passed on: `fwd_cnt`.
    pub forwarded: Wrapping<u32>,
    /// The `fwd_cnt` that the guest knows of.
    pub forwarded_told: Wrapping<u32>,
    /// Bytes sent to the guest: `tx_cnt`.
    pub sent: Wrapping<u32>,
    /// The guest's last `buf_alloc`.
    pub peer_buf_alloc: u32,
    /// The guest's last `fwd_cnt`.
    pub peer_forwarded: Wrapping<u32>,
    /// The guest's shutdown flags so far.
    pub guest_shutdown: u32,
    /// Shutdown flags that the host's end stands for.
    pub host_shutdown: u32,
    /// The part of them that the guest was told.
    pub told_shutdown: u32,
    /// The request has not been put on the queue yet.
    pub wants_request: bool,
    /// The guest is to be told our credit.
    pub wants_credit_update: bool,
    /// The guest was asked for its credit and has not answered.
    pub asked_for_credit: bool,
    /// The stream may have bytes, or its end.
    pub readable: bool,
    /// It is in the device's line of those with something for the guest.
    pub queued: bool,
    /// The stream is watched for room.
    pub watches_room: bool,
}

/// What a connection has for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Request,
    CreditUpdate,
    CreditRequest,
    /// At most this many bytes of the stream.
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
            forwarded: Wrapping(0),
            forwarded_told: Wrapping(0),
            sent: Wrapping(0),
            peer_buf_alloc: 0,
            peer_forwarded: Wrapping(0),
            guest_shutdown: 0,
            host_shutdown: 0,
            told_shutdown: 0,
            wants_request: phase == Phase::Connecting,
            wants_credit_update: false,
            asked_for_credit: false,
            readable: false,
            queued: false,
            watches_room: false,
        }
    }

    /// Bytes that the guest takes now (spec section 5.10.6.3).
    pub fn credit(&self) -> u32 {
        let under_way = (self.sent - self.peer_forwarded).0;
        self.peer_buf_alloc.saturating_sub(under_way)
    }

    /// Each packet of the guest says its credit.
    pub fn note_peer_credit(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_buf_alloc = buf_alloc;
        self.peer_forwarded = Wrapping(fwd_cnt);
        if self.credit() > 0 {
            self.asked_for_credit = false;
        }
    }

    /// What to tell the guest next.
    pub fn next(&self) -> Next {
        if self.wants_request {
            return Next::Request;
        }
        if self.phase != Phase::Established {
            return Next::Nothing;
        }
        if self.wants_credit_update {
            return Next::CreditUpdate;
        }
        if self.may_read() {
            return match self.credit() {
                0 if self.asked_for_credit => self.next_shutdown(),
                0 => Next::CreditRequest,
                credit => Next::Data(credit as usize),
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

    fn next_shutdown(&self) -> Next {
        if self.host_shutdown != self.told_shutdown {
            Next::Shutdown(self.host_shutdown)
        } else {
            Next::Nothing
        }
    }

    /// Bytes from the guest. `false` if it sent more than it had credit for.
    ///
    /// What the stream does not take at once is for [`Connection::keep`]: the number of bytes taken.
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
                self.host_stopped_receiving();
                self.forward(len)
            }
        }
    }

    /// Whether `len` more bytes are within the credit that the guest has.
    pub fn has_room_for(&self, len: usize) -> bool {
        self.buffer.len() + len <= BUFFER_SIZE as usize
    }

    /// Keeps bytes that the stream did not take.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    fn forward(&mut self, len: usize) -> usize {
        // A packet is at most 4 GiB by its header, and far less by the credit.
        self.forwarded += Wrapping(len as u32);
        if (self.forwarded - self.forwarded_told).0 >= CREDIT_STEP {
            self.wants_credit_update = true;
        }
        len
    }

    /// Gives kept bytes to the stream, as far as it takes them, and closes its writing side behind
    /// the last if the guest sends no more.
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
                Err(_) => self.host_stopped_receiving(),
            }
        }
        if self.buffer.is_empty() {
            // A burst is over: an idle connection holds no memory.
            self.buffer = VecDeque::new();
            if self.guest_shutdown & SHUTDOWN_SEND != 0 {
                self.shut(libc::SHUT_WR);
            }
        }
    }

    /// The stream takes no more: what is kept has nowhere to go.
    pub fn host_stopped_receiving(&mut self) {
        self.host_shutdown |= SHUTDOWN_RCV;
        let lost = self.buffer.len();
        self.buffer = VecDeque::new();
        self.forward(lost);
    }

    /// The guest will do less from now on.
    pub fn guest_shut_down(&mut self, flags: u32) {
        self.guest_shutdown |= flags & (SHUTDOWN_RCV | SHUTDOWN_SEND);
        if self.guest_shutdown & SHUTDOWN_RCV != 0 {
            self.shut(libc::SHUT_RD);
        }
        self.flush();
    }

    /// Whether the stream has bytes for the guest.
    pub fn stream_has_bytes(&self) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        // One that does not say so is broken, and has none.
        rustix::io::ioctl_fionread(stream).is_ok_and(|count| count > 0)
    }

    fn shut(&self, how: libc::c_int) {
        if let Some(stream) = &self.stream {
            // SAFETY: shutdown takes integers alone; a stream that is no longer connected answers
            // with an error, which says nothing new.
            unsafe { libc::shutdown(stream.as_raw_fd(), how) };
        }
    }

    /// Bytes of the stream into the guest's buffers. `Ok(None)` if there are none now; at the end of
    /// the stream too, which is noted.
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
                self.sent += Wrapping(len as u32);
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
