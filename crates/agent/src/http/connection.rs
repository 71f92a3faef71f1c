//! A connected stream socket of any family, with deadlines for reads and writes.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};

use crate::spare::read_spare;

/// A connection, and bytes that were read ahead.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// Bytes read and not yet consumed.
    pub buffer: Vec<u8>,
}

impl Connection {
    /// From a connected socket.
    pub fn new(socket: OwnedFd) -> Self {
        Connection {
            socket,
            buffer: Vec::new(),
        }
    }

    /// One recv(2): appends at most `max` bytes to `into`. 0 is the end of the stream.
    pub fn read(&self, into: &mut Vec<u8>, max: usize, deadline: Instant) -> io::Result<usize> {
        loop {
            let read = read_spare(into, max, |room| {
                let fd = self.socket.as_raw_fd();
                // SAFETY: the kernel writes at most `room.len()` bytes into `room`.
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

    /// Writes all bytes before `deadline`.
    pub fn write_all(&self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_some(bytes)? {
                0 => self.wait(PollFlags::POLLOUT, deadline)?,
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Writes what fits without blocking, possibly nothing.
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

    /// Shuts the sending side down and drains what the client still sends, for 2 s and 128 MiB at most. A socket
    /// that is closed with unread bytes resets the connection, and the client may lose the answer.
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
