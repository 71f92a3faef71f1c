//! Writes newc.

use std::io::{self, Write};

use super::{Header, MAGIC, TRAILER, padding};

/// Writes an archive, entry by entry.
pub(crate) struct Writer<W> {
    out: W,
    /// Bytes written.
    position: u64,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Self {
        Writer { out, position: 0 }
    }

    /// Writes a header and its name. Exactly `header.size` bytes of data must follow.
    pub fn header(&mut self, header: &Header, name: &[u8]) -> io::Result<()> {
        // Fields 7 and 8, the device of the inode, are 0: one archive is one file system.
        self.out.write_all(MAGIC)?;
        write!(
            self.out,
            "{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
            header.ino,
            header.mode,
            header.uid,
            header.gid,
            header.nlink,
            header.mtime,
            header.size,
            0,
            0,
            header.rdev_major,
            header.rdev_minor,
            name.len() + 1,
            0,
        )?;
        self.position += super::HEADER_BYTES as u64;
        self.data(name)?;
        self.data(&[0])?;
        self.pad()
    }

    /// Writes a part of an entry's data; [`Writer::pad`] ends it.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Pads to a multiple of 4 bytes.
    pub fn pad(&mut self) -> io::Result<()> {
        let zeros = [0; 3];
        self.data(&zeros[..padding(self.position)])
    }

    /// Ends the archive. Returns the output and the length, a multiple of 4.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.header(
            &Header {
                nlink: 1,
                ..Header::default()
            },
            TRAILER,
        )?;
        Ok((self.out, self.position))
    }
}
