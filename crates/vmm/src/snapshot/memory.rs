//! The memory file of a snapshot: a sealed memfd, or a sparse file in which zero pages are holes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{SealFlags, SeekFrom};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use crate::memory::{self, GuestMemory, PAGE};

/// A memory file that cannot be written, read or mapped.
#[derive(Debug, thiserror::Error)]
pub enum MemoryFileError {
    /// The file was truncated or belongs to another snapshot. Build the snapshot again.
    #[error("the memory file has {have} bytes, its VM state expects {need}")]
    Size {
        /// The file's size in bytes.
        have: u64,
        /// The size of guest memory in the VM state, in bytes.
        need: u64,
    },
    /// The content has changed. Build the snapshot again.
    #[error("the memory file is damaged: its SHA-256 is not that of the VM state")]
    Damaged,
    /// Reading the file or guest memory failed.
    #[error("cannot read the memory file: {0}")]
    Read(#[source] io::Error),
    /// Writing failed: most often the disk is full.
    #[error("cannot write the memory file: {0}")]
    Write(#[source] io::Error),
    /// mmap failed: see RLIMIT_AS and vm.max_map_count.
    #[error("mmap of the memory file failed: {0}")]
    Map(#[source] io::Error),
    /// F_ADD_SEALS failed.
    #[error("cannot seal the memory file: {0}")]
    Seal(#[source] io::Error),
}

/// Copies the memory of a paused VM into a memfd and seals it against writing. Zero pages become holes.
///
/// Guest memory is anonymous rather than a memfd from the start, because a boot in a memfd takes several times as
/// long (docs/decisions/anonymous-memory.md). This copy is made once per template.
pub fn freeze(memory: &GuestMemory) -> Result<File, MemoryFileError> {
    let size = memory::size(memory);
    let file = memory::memfd(size).map_err(|error| MemoryFileError::Write(error.into()))?;
    let mut buffer = vec![0; CHUNK];
    let mut region_at = 0;
    for region in memory.iter() {
        for at in (0..region.len()).step_by(CHUNK) {
            let chunk = &mut buffer[..CHUNK.min((region.len() - at) as usize)];
            region
                .read_slice(chunk, MemoryRegionAddress(at))
                .map_err(|error| MemoryFileError::Read(io::Error::other(error)))?;
            for (offset, run) in runs(chunk) {
                file.write_all_at(run, region_at + at + offset as u64)
                    .map_err(MemoryFileError::Write)?;
            }
        }
        region_at += region.len();
    }
    seal(&file)?;
    Ok(file)
}

/// Maps a snapshot's memory file over each region, private and copy-on-write. The file must have the size of the
/// memory and must not be truncated while it is mapped. Returns the number of system calls.
pub fn map_private(memory: &GuestMemory, file: &File) -> Result<u32, MemoryFileError> {
    let (have, need) = (
        file.metadata().map_err(MemoryFileError::Read)?.len(),
        memory::size(memory),
    );
    if have != need {
        return Err(MemoryFileError::Size { have, need });
    }
    let mut offset = 0;
    let mut calls = 1;
    for region in memory.iter() {
        // SAFETY: the range is exactly that of a mapping that the region owns and unmaps when it is dropped. A
        // pointer into it stays valid: the new mapping has the same size and is readable and writable.
        let mapped = unsafe {
            libc::mmap(
                region.as_ptr().cast(),
                region.size(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(MemoryFileError::Map(io::Error::last_os_error()));
        }
        memory::keep_out_of_core_dumps(region);
        offset += region.size() as libc::off_t;
        calls += 2;
    }
    Ok(calls)
}

fn seal(file: &File) -> Result<(), MemoryFileError> {
    rustix::fs::fcntl_add_seals(file.as_fd(), SealFlags::WRITE | SealFlags::SEAL)
        .map_err(|error| MemoryFileError::Seal(error.into()))
}

/// Writes a memory file to the empty file `to`, with holes for zero pages. Returns the number of bytes written.
pub fn save_sparse(memory: &File, to: &File) -> Result<u64, MemoryFileError> {
    let size = memory.metadata().map_err(MemoryFileError::Read)?.len();
    to.set_len(size).map_err(MemoryFileError::Write)?;
    let mut written = 0;
    for_each_run(memory, |offset, bytes| {
        written += bytes.len() as u64;
        to.write_all_at(bytes, offset)
            .map_err(MemoryFileError::Write)
    })?;
    Ok(written)
}

/// SHA-256 over the size, and over offset and content of each page that is not zero. A memfd and a sparse copy of
/// it have the same digest.
pub fn memory_digest(memory: &File) -> Result<[u8; 32], MemoryFileError> {
    let size = memory.metadata().map_err(MemoryFileError::Read)?.len();
    let mut digest = Sha256::new();
    digest.update(size.to_le_bytes());
    for_each_run(memory, |offset, bytes| {
        // Page by page: the file system's holes decide where runs begin and end.
        for (page, at) in bytes.chunks(PAGE).zip((offset..).step_by(PAGE)) {
            digest.update(at.to_le_bytes());
            digest.update(page);
        }
        Ok(())
    })?;
    Ok(digest.finalize().into())
}

/// Bytes per read.
const CHUNK: usize = 1 << 20;

/// Calls `f` with the offset and bytes of each run of non-zero pages, at most [`CHUNK`] bytes long.
fn for_each_run(
    file: &File,
    mut f: impl FnMut(u64, &[u8]) -> Result<(), MemoryFileError>,
) -> Result<(), MemoryFileError> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((start, end)) = next_data(file, at).map_err(MemoryFileError::Read)? {
        at = start;
        while at < end {
            let len = CHUNK.min((end - at) as usize);
            let chunk = &mut buffer[..len];
            file.read_exact_at(chunk, at)
                .map_err(MemoryFileError::Read)?;
            for (offset, run) in runs(chunk) {
                f(at + offset as u64, run)?;
            }
            at += len as u64;
        }
    }
    Ok(())
}

/// The first data (SEEK_DATA to SEEK_HOLE) at or after `from`, extended to page boundaries.
fn next_data(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let page = PAGE as u64;
    let start = match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(start) => start / page * page,
        // No data from there on.
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let hole = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    let end = hole.next_multiple_of(page).min(file.metadata()?.len());
    Ok(Some((start.max(from), end)))
}

/// The runs of non-zero pages in a chunk, with their offsets.
fn runs(chunk: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let page_at = |at: usize| &chunk[at..chunk.len().min(at + PAGE)];
        while at < chunk.len() && is_zero(page_at(at)) {
            at += PAGE;
        }
        let start = at.min(chunk.len());
        while at < chunk.len() && !is_zero(page_at(at)) {
            at += PAGE;
        }
        let end = at.min(chunk.len());
        (start < end).then(|| (start, &chunk[start..end]))
    })
}

fn is_zero(page: &[u8]) -> bool {
    // 16 bytes at a time, which compiles to vector instructions.
    let mut chunks = page.chunks_exact(16);
    chunks.all(|chunk| chunk == [0; 16])
        && page[page.len() / 16 * 16..].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memfd of 4 MiB with data in pages 1, 2 and 600, and a page of written zeros.
    fn memory() -> File {
        let file = memory::memfd(4 << 20).unwrap();
        file.write_all_at(b"one", 4096).unwrap();
        file.write_all_at(b"two", 2 * 4096 + 4093).unwrap();
        file.write_all_at(&[0; 4096], 30 * 4096).unwrap();
        file.write_all_at(b"far", 600 * 4096).unwrap();
        file
    }

    fn blocks(file: &File) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512
    }

    #[test]
    fn zero_pages_use_no_disk_space() {
        let to = tempfile();
        let written = save_sparse(&memory(), &to).unwrap();
        assert_eq!(written, 3 * 4096);
        assert_eq!(to.metadata().unwrap().len(), 4 << 20);
        assert!(blocks(&to) <= 4 * 4096, "{} bytes", blocks(&to));
    }

    #[test]
    fn a_memfd_and_its_sparse_copy_have_the_same_digest() {
        let (memory, to) = (memory(), tempfile());
        save_sparse(&memory, &to).unwrap();
        let digest = memory_digest(&memory).unwrap();
        assert_eq!(memory_digest(&to).unwrap(), digest);
    }

    #[test]
    fn the_digest_depends_on_content_and_position() {
        let digest = memory_digest(&memory()).unwrap();
        let flipped = memory();
        flipped.write_all_at(b"ond", 4096).unwrap();
        assert_ne!(memory_digest(&flipped).unwrap(), digest);
        let moved = memory();
        moved.write_all_at(&[0; 3], 600 * 4096).unwrap();
        moved.write_all_at(b"far", 601 * 4096).unwrap();
        assert_ne!(memory_digest(&moved).unwrap(), digest);
    }

    #[test]
    fn mapped_memory_is_kept_out_of_core_dumps() {
        let memory = memory::reserve(32).unwrap();
        map_private(&memory, &memory::memfd(32 << 20).unwrap()).unwrap();
        assert!(memory::kept_out_of_dumps(&memory));
    }

    fn tempfile() -> File {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        File::from(fd)
    }
}
