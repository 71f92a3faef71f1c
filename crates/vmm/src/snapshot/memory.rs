//! The memory of a snapshot: a sealed memfd, or a file in which zero pages are holes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{SealFlags, SeekFrom};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use crate::memory::{self, GuestMemory, PAGE};

/// Memory of a snapshot that cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum MemoryFileError {
    /// It was cut, or is the memory of another snapshot. Build the snapshot anew.
    #[error("the memory has {have} bytes, and the record is of {need}")]
    Size {
        /// Its size in bytes.
        have: u64,
        /// What the record says.
        need: u64,
    },
    /// Bits of it have changed. Build the snapshot anew.
    #[error("the memory is damaged: its digest does not match the record's")]
    Damaged,
    /// It cannot be read.
    #[error("the memory cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It cannot be written: most often the disk is full.
    #[error("the memory cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The host does not map it; its address space limits say why.
    #[error("the memory cannot be mapped: {0}")]
    Map(#[source] io::Error),
    /// The host's kernel refused.
    #[error("the memory cannot be sealed: {0}")]
    Seal(#[source] io::Error),
}

/// Copies the memory of a paused VM into a memfd that nobody can change any more. Zero pages become holes.
///
/// The guest's own memory is anonymous, since a boot in a memfd takes several times as long: many times what
/// this copy takes, once for each template (docs/decisions.md).
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

fn seal(file: &File) -> Result<(), MemoryFileError> {
    rustix::fs::fcntl_add_seals(file.as_fd(), SealFlags::WRITE | SealFlags::SEAL)
        .map_err(|error| MemoryFileError::Seal(error.into()))
}

/// Writes memory to an empty file. Zero pages become holes: they take no room and no time to load.
/// Gives the number of bytes that take room.
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

/// SHA-256 of the memory's size and of each page that is not zero, with its place: the same for a memfd
/// and for the sparse file that was made of it.
pub fn memory_digest(memory: &File) -> Result<[u8; 32], MemoryFileError> {
    let size = memory.metadata().map_err(MemoryFileError::Read)?.len();
    let mut digest = Sha256::new();
    digest.update(size.to_le_bytes());
    for_each_run(memory, |offset, bytes| {
        // Page by page, for where runs are cut depends on the file system's holes.
        for (page, at) in bytes.chunks(PAGE).zip((offset..).step_by(PAGE)) {
            digest.update(at.to_le_bytes());
            digest.update(page);
        }
        Ok(())
    })?;
    Ok(digest.finalize().into())
}

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// Calls `f` with each run of pages that are not zero, at most [`CHUNK`] bytes long.
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

/// The first stretch of data at or after `from`, by page bounds.
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

/// The runs of pages of a chunk that are not zero, with their offsets.
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
    // By 16 bytes: the compiler makes vector instructions of it.
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
    fn zero_pages_take_no_room_in_the_file() {
        let to = tempfile();
        let written = save_sparse(&memory(), &to).unwrap();
        assert_eq!(written, 3 * 4096);
        assert_eq!(to.metadata().unwrap().len(), 4 << 20);
        assert!(blocks(&to) <= 4 * 4096, "{} bytes", blocks(&to));
    }

    #[test]
    fn a_file_and_the_memory_that_it_was_made_of_have_one_digest() {
        let (memory, to) = (memory(), tempfile());
        save_sparse(&memory, &to).unwrap();
        let digest = memory_digest(&memory).unwrap();
        assert_eq!(memory_digest(&to).unwrap(), digest);
    }

    #[test]
    fn a_bit_or_a_place_that_changes_changes_the_digest() {
        let digest = memory_digest(&memory()).unwrap();
        let flipped = memory();
        flipped.write_all_at(b"ond", 4096).unwrap();
        assert_ne!(memory_digest(&flipped).unwrap(), digest);
        let moved = memory();
        moved.write_all_at(&[0; 3], 600 * 4096).unwrap();
        moved.write_all_at(b"far", 601 * 4096).unwrap();
        assert_ne!(memory_digest(&moved).unwrap(), digest);
    }

    fn tempfile() -> File {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        File::from(fd)
    }
}
