//! Where the console's bytes go.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Takes console bytes without ever waiting: what its descriptor does not take at once is dropped
/// and counted, because a vCPU waits for nobody.
#[derive(Debug)]
pub struct ConsoleSink {
    out: Option<OwnedFd>,
    dropped: u64,
    panic: PanicWatch,
}

impl ConsoleSink {
    /// A sink that writes to `out`, which becomes non-blocking, or drops all where there is none.
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

    /// How many bytes nobody took. Without a descriptor none are wanted, and none are counted.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped
    }

    /// Whether a line that a panicking Linux prints went by.
    pub fn saw_panic(&self) -> bool {
        self.panic.seen
    }

    /// Leaves a sink that goes nowhere in its place.
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
                // Nobody reads any more, and nobody will.
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

/// Looks for the words of a Linux panic. A kernel without a pvpanic driver has no other way to tell.
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
            // The first letter occurs nowhere else in the words, so that nothing shorter can match.
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
    fn a_reader_that_does_not_read_costs_bytes_and_no_time() {
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
    fn a_reader_that_went_away_is_forgotten() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(read);
        let mut sink = ConsoleSink::new(Some(write)).unwrap();
        sink.write_all(b"hello").unwrap();
        sink.write_all(b"hello").unwrap();
        assert_eq!(sink.dropped_bytes(), 5);
    }

    #[test]
    fn a_panic_is_seen_however_it_is_cut() {
        let mut sink = ConsoleSink::new(None).unwrap();
        sink.write_all(b"KKernel pan").unwrap();
        assert!(!sink.saw_panic());
        sink.write_all(b"ic - not syncing: oops").unwrap();
        assert!(sink.saw_panic());
    }

    #[test]
    fn similar_words_are_no_panic() {
        let mut sink = ConsoleSink::new(None).unwrap();
        sink.write_all(b"Kernel panic - syncing").unwrap();
        assert!(!sink.saw_panic());
    }
}
