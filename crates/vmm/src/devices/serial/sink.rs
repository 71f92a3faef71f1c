//! The sink of the guest's console output.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Writes console bytes to a descriptor without blocking. Bytes that the descriptor does not accept at once are dropped
/// and counted, because a vCPU must not wait for another process.
#[derive(Debug)]
pub struct ConsoleSink {
    out: Option<OwnedFd>,
    dropped: u64,
    panic: PanicWatch,
}

impl ConsoleSink {
    /// A sink that writes to `out`, which becomes non-blocking. Without `out` all bytes are dropped and not counted.
    pub fn new(out: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(fd) = &out {
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            out,
            dropped: 0,
            panic: PanicWatch::default(),
        })
    }

    /// Number of dropped bytes.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped
    }

    /// True if Linux's panic message was written.
    pub fn saw_panic(&self) -> bool {
        self.panic.seen
    }

    /// Takes the sink out and leaves one without a descriptor.
    pub(super) fn take(&mut self) -> Self {
        let nowhere = Self {
            out: None,
            dropped: 0,
            panic: PanicWatch::default(),
        };
        std::mem::replace(self, nowhere)
    }

    fn put(&mut self, bytes: &[u8]) {
        let Some(fd) = &self.out else { return };
        let taken = loop {
            match rustix::io::write(fd, bytes) {
                Err(Errno::INTR) => {}
                Ok(count) => break count,
                Err(Errno::AGAIN) => break 0,
                // EPIPE: the reader has closed the pipe.
                Err(_) => {
                    self.out = None;
                    break 0;
                }
            }
        };
        self.dropped += (bytes.len() - taken) as u64;
    }
}

impl Write for ConsoleSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().for_each(|byte| self.panic.step(*byte));
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Detects the message of a Linux panic, for kernels without a pvpanic driver.
#[derive(Debug, Default)]
struct PanicWatch {
    matched: usize,
    seen: bool,
}

const PANIC: &[u8] = b"Kernel panic - not syncing";

impl PanicWatch {
    fn step(&mut self, byte: u8) {
        if byte == PANIC[self.matched] {
            self.matched += 1;
        } else {
            // The first letter occurs only once in the message, so a mismatch can only restart at it.
            self.matched = usize::from(byte == PANIC[0]);
        }
        if self.matched == PANIC.len() {
            self.seen = true;
            self.matched = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_reach_the_descriptor() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut sink = ConsoleSink::new(Some(write)).unwrap();
        sink.write_all(b"hello").unwrap();
        let mut data = [0; 8];
        assert_eq!(rustix::io::read(&read, &mut data).unwrap(), 5);
        assert_eq!(&data[..5], b"hello");
        assert_eq!(sink.dropped_bytes(), 0);
    }

    #[test]
    fn a_full_pipe_drops_bytes_and_does_not_block() {
        let (_read, write) = rustix::pipe::pipe().unwrap();
        let mut sink = ConsoleSink::new(Some(write)).unwrap();
        let total = 4 << 20;
        for _ in 0..total / 4096 {
            sink.write_all(&[b'x'; 4096]).unwrap();
        }
        assert!(sink.dropped_bytes() > 0);
        assert!(sink.dropped_bytes() < total);
    }

    #[test]
    fn bytes_for_a_closed_pipe_are_counted_once() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        let mut sink = ConsoleSink::new(Some(write)).unwrap();
        sink.write_all(b"hello").unwrap();
        sink.write_all(b"hello").unwrap();
        assert_eq!(sink.dropped_bytes(), 5);
    }

    #[test]
    fn a_panic_message_is_detected_across_writes() {
        let mut sink = ConsoleSink::new(None).unwrap();
        sink.write_all(b"KKernel pan").unwrap();
        assert!(!sink.saw_panic());
        sink.write_all(b"ic - not syncing: oops").unwrap();
        assert!(sink.saw_panic());
    }

    #[test]
    fn a_similar_message_is_no_panic() {
        let mut sink = ConsoleSink::new(None).unwrap();
        sink.write_all(b"Kernel panic - syncing").unwrap();
        assert!(!sink.saw_panic());
    }
}
