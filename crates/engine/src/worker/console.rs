//! A guest's serial console: its last lines for error messages, and a copy in the log where configured.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Bytes of the console's end that are stored.
const TAIL: usize = 4096;
/// Longer lines are logged in pieces of this many bytes.
const LINE: usize = 1024;

/// The end of a guest's console output. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Console {
    tail: Arc<Mutex<VecDeque<u8>>>,
}

impl Console {
    /// A console and the write end of its pipe, for the worker. The reading task ends when that is closed.
    pub fn open(id: &str, log: bool) -> io::Result<(Self, OwnedFd)> {
        // Non-blocking: the worker drops output that does not fit, and never waits for the reader.
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let console = Console::default();
        let receiver = Receiver::from_owned_fd(read)?;
        tokio::spawn(console.clone().follow(receiver, id.to_owned(), log));
        Ok((console, write))
    }

    async fn follow(self, mut receiver: Receiver, id: String, log: bool) {
        let mut buffer = [0; 4096];
        let mut line = Vec::new();
        while let Ok(count @ 1..) = receiver.read(&mut buffer).await {
            let bytes = &buffer[..count];
            self.store(bytes);
            for &byte in bytes {
                if byte == b'\n' || line.len() >= LINE {
                    print(&id, &line, log);
                    line.clear();
                }
                if byte != b'\n' {
                    line.push(byte);
                }
            }
        }
        if !line.is_empty() {
            print(&id, &line, log);
        }
    }

    fn store(&self, bytes: &[u8]) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }

    /// The last `count` lines that are not blank, without control characters.
    pub fn last_lines(&self, count: usize) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.iter().copied().collect();
        let text = printable(&bytes);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

fn print(id: &str, line: &[u8], log: bool) {
    if log {
        tracing::info!(target: "guest", id, "{}", printable(line));
    } else {
        tracing::debug!(target: "guest", id, "{}", printable(line));
    }
}

/// Removes control characters: a guest must not move the cursor of a terminal that shows the log.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control() || *c == '\n' || *c == '\t')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_have_no_control_characters() {
        let console = Console::default();
        console.store(&[b'x'; 10_000]);
        console.store(b"\nfirst\r\n\n\x1b[31mlast\n");
        assert_eq!(console.last_lines(2), "first\n[31mlast");
    }
}
