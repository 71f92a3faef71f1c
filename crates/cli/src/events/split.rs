//! Splits a stream into lines.

/// Bytes of a stream whose lines were not all taken yet.
#[derive(Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// The start of the next line.
    start: usize,
    /// Bytes of the buffer that have no other line end after `start`.
    searched: usize,
}

impl Lines {
    /// Appends the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line without its LF; none until its end has arrived.
    pub fn next_line(&mut self) -> Option<&[u8]> {
        let rest = &self.buffer[self.searched..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.start..self.searched + length;
        self.start = line.end + 1;
        self.searched = self.start;
        Some(&self.buffer[line])
    }
}
