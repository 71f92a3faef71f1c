//! A connected stream socket of any family, read and written with deadlines.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};

use crate::spare::read_spare;

/// A connection, and what was read of it beyond what was asked for.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// Read and not yet consumed.
    pub buffer: Vec<u8>,
}

impl Connection {
    /// Take over a connected socket.
    pub fn new(socket: OwnedFd) -> Self {
        Connection {
            socket,
            buffer: Vec::new(),
        }
    }

    /// Read once, at most `max` bytes, to the end of `into`; 0 at the end of the stream.
    pub fn read(&self, into: &mut Vec<u8>, max: usize, deadline: Instant) -> io::Result<usize> {
        loop {
            let read = read_spare(into, max, |room| {
                let fd = self.socket.as_raw_fd();
                // SAFETY: the kernel writes into this room, and at most its length.
                unsafe { libc::recv(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) }
            });
            match read {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, deadline)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Write everything before `deadline`.
    pub fn write_all(&self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_some(bytes)? {
                0 => self.wait(PollFlags::POLLOUT, deadline)?,
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Write what is taken at once, possibly nothing.
    pub fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(
                self.socket.as_raw_fd(),
                bytes,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ) {
                Ok(written) => return Ok(written),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Say that nothing more comes, and take in what the client still sends, for a while and up to a
    /// bound: a socket closed with unread bytes resets the connection, and the answer may be lost.
    pub fn close(mut self) {
        const DRAIN_BYTES: usize = 128 << 20;
        let deadline = Instant::now() + Duration::from_secs(2);
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        let mut drained = 0;
        while drained < DRAIN_BYTES {
            let mut scratch = std::mem::take(&mut self.buffer);
            scratch.clear();
            match self.read(&mut scratch, 64 * 1024, deadline) {
                Ok(0) | Err(_) => return,
                Ok(length) => drained += length,
            }
            self.buffer = scratch;
        }
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let ms = left.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
            let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), flags)], timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
