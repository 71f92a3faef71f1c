//! `poll(2)` over the descriptors of one stage.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// The descriptors to wait for. An absent one is skipped.
#[derive(Debug)]
pub struct Interest<'a> {
    /// Readable when init reports or ends.
    pub report: Option<BorrowedFd<'a>>,
    /// Standard output and standard error of the program; readable.
    pub outputs: [Option<BorrowedFd<'a>>; 2],
    /// Standard input of the program; writable.
    pub stdin: Option<BorrowedFd<'a>>,
    /// The client's connection; always watched for its end.
    pub client: Option<BorrowedFd<'a>>,
    /// Bytes are pending for the client.
    pub client_write: bool,
    /// Return after this time; none waits for ever.
    pub timeout: Option<Duration>,
}

/// The descriptors that can be used without blocking.
#[derive(Debug, Default)]
pub struct Ready {
    /// Read init's report.
    pub report: bool,
    /// Read standard output and standard error.
    pub outputs: [bool; 2],
    /// Write standard input.
    pub stdin: bool,
    /// Write to the client.
    pub client_writable: bool,
    /// The client closed its end, or the connection broke.
    pub client_closed: bool,
}

impl Interest<'_> {
    /// Waits for the first event or the timeout. Nothing is ready after an interruption by a signal.
    pub fn wait(&self) -> Ready {
        let client_events = if self.client_write { libc::POLLOUT } else { 0 };
        let mut fds = [
            entry(self.report, libc::POLLIN),
            entry(self.outputs[0], libc::POLLIN),
            entry(self.outputs[1], libc::POLLIN),
            entry(self.stdin, libc::POLLOUT),
            entry(self.client, client_events | libc::POLLRDHUP),
        ];
        // SAFETY: the array outlives the call, and its length is passed with it.
        let count = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as _, self.timeout_ms()) };
        if count < 0 {
            return Ready::default();
        }
        let [report, stdout, stderr, stdin, client] = fds.map(|fd| fd.revents);
        Ready {
            report: report != 0,
            outputs: [stdout != 0, stderr != 0],
            stdin: stdin != 0,
            client_writable: client & libc::POLLOUT != 0,
            client_closed: client & !libc::POLLOUT != 0,
        }
    }

    /// Milliseconds, rounded up, so that the timeout has passed when nothing else happens; -1 is no timeout.
    fn timeout_ms(&self) -> i32 {
        match self.timeout {
            None => -1,
            Some(left) => left.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32,
        }
    }
}

/// `poll` skips negative descriptors.
fn entry(fd: Option<BorrowedFd<'_>>, events: i16) -> libc::pollfd {
    libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events,
        revents: 0,
    }
}
