//! Reads newc, to list an initramfs.

use std::io::{self, BufRead, BufReader, Read};

use super::{HEADER_BYTES, Header, MAGIC, MAX_NAME_BYTES, TRAILER, file_type, padding};

/// Reads the entries of an archive. Data is skipped, except targets of symlinks.
pub struct Reader<R> {
    input: BufReader<R>,
    position: u64,
}

/// An entry: its header, its name, and its target if it is a symlink.
pub type Entry = (Header, Vec<u8>, Option<Vec<u8>>);

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

impl<R: Read> Reader<R> {
    /// Reads from `input`, which must not be compressed.
    pub fn new(input: R) -> Self {
        Reader {
            input: BufReader::with_capacity(256 << 10, input),
            position: 0,
        }
    }

    /// The next entry, or none at the end of the input. Trailers and zeros between segments are skipped.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        self.next_with(|header, _| header.mode & file_type::MASK == file_type::SYMLINK)
    }

    /// [`Reader::next_entry`] with the data of the entries for which `wanted` is true, in place of a target.
    pub(crate) fn next_with(
        &mut self,
        wanted: impl Fn(&Header, &[u8]) -> bool,
    ) -> io::Result<Option<Entry>> {
        loop {
            if !self.skip_zeros()? {
                return Ok(None);
            }
            let (header, name_size) = self.header()?;
            let mut name = vec![0; name_size];
            self.read(&mut name)?;
            name.pop();
            self.skip(padding(self.position) as u64)?;
            if name == TRAILER {
                continue;
            }
            let is_symlink = header.mode & file_type::MASK == file_type::SYMLINK;
            if is_symlink && header.size as usize > MAX_NAME_BYTES {
                return Err(invalid(format!(
                    "damaged cpio archive: a symlink target of {} bytes",
                    header.size
                )));
            }
            let data = if wanted(&header, &name) {
                Some(self.data(header.size)?)
            } else {
                self.skip(u64::from(header.size))?;
                None
            };
            self.skip(padding(self.position) as u64)?;
            return Ok(Some((header, name, data)));
        }
    }

    /// Reads data. Memory grows with what is there, whatever the header says.
    fn data(&mut self, size: u32) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        let read = (&mut self.input).take(size.into()).read_to_end(&mut data)?;
        if read < size as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += u64::from(size);
        Ok(data)
    }

    fn header(&mut self) -> io::Result<(Header, usize)> {
        let mut bytes = [0; HEADER_BYTES];
        self.read(&mut bytes)?;
        if !bytes.starts_with(MAGIC) {
            return Err(invalid(format!(
                "damaged cpio archive: no newc header at byte {}",
                self.position - HEADER_BYTES as u64
            )));
        }
        let field = |index: usize| {
            let start = MAGIC.len() + index * 8;
            let digits = str::from_utf8(&bytes[start..start + 8]).ok();
            digits
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                .ok_or_else(|| {
                    invalid("damaged cpio archive: a header field is not a hexadecimal number")
                })
        };
        let name_size = field(11)? as usize;
        if !(1..=MAX_NAME_BYTES).contains(&name_size) {
            return Err(invalid(format!(
                "damaged cpio archive: a name of {name_size} bytes"
            )));
        }
        let header = Header {
            ino: field(0)?,
            mode: field(1)?,
            uid: field(2)?,
            gid: field(3)?,
            nlink: field(4)?,
            mtime: field(5)?,
            size: field(6)?,
            rdev_major: field(9)?,
            rdev_minor: field(10)?,
        };
        Ok((header, name_size))
    }

    /// Skips zeros. False at the end of the input.
    fn skip_zeros(&mut self) -> io::Result<bool> {
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let found = zeros < bytes.len();
            self.input.consume(zeros);
            self.position += zeros as u64;
            if found {
                // Alignment counts from the start of each segment.
                self.position = 0;
                return Ok(true);
            }
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(into)?;
        self.position += into.len() as u64;
        Ok(())
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.input).take(count), &mut io::sink())?;
        if copied != count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count;
        Ok(())
    }
}
