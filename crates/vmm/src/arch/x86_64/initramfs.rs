//! Loads the initramfs: all segments in order, at the highest possible address below the MMIO gap.

use std::fs::File;
use std::io;

use super::layout;
use super::reader::Reader;
use crate::memory::{self, GuestMemory, PAGE};

/// The location of the initramfs in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initramfs {
    /// Guest-physical address, page-aligned.
    pub address: u64,
    /// Size in bytes, with the padding between segments.
    pub size: u64,
}

/// An initramfs that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// Use more guest memory or a smaller image.
    #[error(
        "the initramfs of {size_mib} MiB does not fit: the kernel occupies {kernel_mib} of the \
         guest's {memory_mib} MiB; give it at least {need_mib} MiB"
    )]
    DoesNotFit {
        /// Size of the initramfs in MiB, rounded up.
        size_mib: u64,
        /// End of the kernel in MiB, rounded up.
        kernel_mib: u64,
        /// Guest memory in MiB.
        memory_mib: u64,
        /// Kernel and initramfs in MiB, without memory for anything else.
        need_mib: u64,
    },
    /// Reading a segment failed.
    #[error("cannot read initramfs segment {index}: {source}")]
    Read {
        /// The segment's index, from 0.
        index: usize,
        /// The error of the read.
        source: io::Error,
    },
}

/// Alignment of each cpio archive in bytes (Linux, init/initramfs.c).
const SEGMENT_ALIGN: u64 = 4;

/// Loads `segments` between `kernel_end` and `limit`; `None` if there are no segments.
pub fn load(
    memory: &GuestMemory,
    segments: &[File],
    kernel_end: u64,
    limit: u64,
) -> Result<Option<Initramfs>, InitramfsError> {
    if segments.is_empty() {
        return Ok(None);
    }
    let mut readers = Vec::with_capacity(segments.len());
    for (index, file) in segments.iter().enumerate() {
        let reader = Reader::new(file).map_err(|source| InitramfsError::Read { index, source })?;
        readers.push(reader);
    }
    let size = readers
        .iter()
        .map(|reader| reader.len().next_multiple_of(SEGMENT_ALIGN))
        .sum();
    let mut address = place(memory::size(memory), size, kernel_end, limit)?;
    let initramfs = Initramfs { address, size };
    for (index, reader) in readers.iter_mut().enumerate() {
        let len = reader.len();
        reader
            .load(memory, address, 0, len)
            .map_err(|source| InitramfsError::Read { index, source })?;
        address += len.next_multiple_of(SEGMENT_ALIGN);
    }
    Ok(Some(initramfs))
}

fn place(memory_size: u64, size: u64, kernel_end: u64, limit: u64) -> Result<u64, InitramfsError> {
    let top = memory_size.min(layout::GAP_START).min(limit);
    top.checked_sub(size)
        .map(|address| address & !(PAGE as u64 - 1))
        .filter(|address| *address >= kernel_end)
        .ok_or(InitramfsError::DoesNotFit {
            size_mib: size.div_ceil(1 << 20),
            kernel_mib: kernel_end.div_ceil(1 << 20),
            memory_mib: memory_size >> 20,
            need_mib: (size + kernel_end + PAGE as u64).div_ceil(1 << 20),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::{Bytes, GuestAddress};

    fn segment(bytes: &[u8]) -> File {
        let fd = rustix::fs::memfd_create("segment", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn segments_are_consecutive_and_padded_to_four_bytes() {
        let memory = memory::allocate(32).unwrap();
        let segments = [segment(b"first"), segment(b"second")];
        let initramfs = load(&memory, &segments, 1 << 20, u64::MAX)
            .unwrap()
            .unwrap();
        assert_eq!(initramfs.address, (32 << 20) - 4096);
        assert_eq!(initramfs.size, 16);
        let mut bytes = [0xee; 16];
        memory
            .read_slice(&mut bytes, GuestAddress(initramfs.address))
            .unwrap();
        assert_eq!(&bytes, b"first\0\0\0second\0\0");
    }

    #[test]
    fn the_file_position_does_not_matter() {
        let memory = memory::allocate(32).unwrap();
        // The write has left the file position at the end.
        let initramfs = load(&memory, &[segment(b"abcd")], 0, u64::MAX)
            .unwrap()
            .unwrap();
        let mut bytes = [0; 4];
        memory
            .read_slice(&mut bytes, GuestAddress(initramfs.address))
            .unwrap();
        assert_eq!(&bytes, b"abcd");
    }

    #[test]
    fn without_segments_there_is_no_initramfs() {
        let memory = memory::allocate(32).unwrap();
        assert_eq!(load(&memory, &[], 0, u64::MAX).unwrap(), None);
    }

    #[test]
    fn the_initramfs_ends_below_the_limit() {
        assert_eq!(place(1 << 30, 4096, 0, 1 << 28).unwrap(), (1 << 28) - 4096);
    }

    #[test]
    fn an_initramfs_that_does_not_fit_is_refused_with_sizes() {
        let error = place(64 << 20, 50 << 20, 20 << 20, u64::MAX).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the initramfs of 50 MiB does not fit: the kernel occupies 20 of the guest's 64 MiB; \
             give it at least 71 MiB"
        );
    }

    #[test]
    fn an_initramfs_larger_than_memory_is_refused() {
        assert!(place(64 << 20, 65 << 20, 0, u64::MAX).is_err());
    }
}
