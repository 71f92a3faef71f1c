//! Reads a file straight into guest memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{Bytes, GuestAddress, ReadVolatile, VolatileMemoryError, VolatileSlice};

use crate::memory::{self, GuestMemory};

/// A reader that uses pread with its own offset.
///
/// Several workers share one open file description, and so one file position.
pub(super) struct Reader<'a> {
    file: &'a File,
    position: u64,
    len: u64,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self {
            file,
            position: 0,
            len: file.metadata()?.len(),
        })
    }

    /// The file's size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `data` from `offset`.
    pub fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    /// Reads `len` bytes at `offset` of the file to the guest-physical `address`.
    pub fn load(
        &mut self,
        memory: &GuestMemory,
        address: u64,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        self.position = offset;
        memory::populate(memory, GuestAddress(address), len);
        memory
            .read_exact_volatile_from(GuestAddress(address), self, len as usize)
            .map_err(io::Error::other)
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(data, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(delta) => self.len.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ReadVolatile for Reader<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        let guard = buf.ptr_guard_mut();
        let count = loop {
            // SAFETY: the guard's pointer is valid for `buf.len()` bytes while the guard lives; pread writes through
            // it.
            let count = unsafe {
                libc::pread64(
                    self.file.as_raw_fd(),
                    guard.as_ptr().cast(),
                    buf.len(),
                    self.position as i64,
                )
            };
            match usize::try_from(count) {
                Ok(count) => break count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(VolatileMemoryError::IOError(error));
                    }
                }
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}
