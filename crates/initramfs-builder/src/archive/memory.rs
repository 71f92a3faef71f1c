//! The guest memory that an image needs.

use super::{Summary, WriteError};

/// Memory of the kernel at the start of PID 1, and of a small program: 48 MiB.
pub const FLOOR_BYTES: u64 = 48 << 20;

const PAGE: u64 = 4096;

/// Slab memory of a tmpfs inode and its dentry (`shmem_inode_info` and `dentry`, rounded up).
const INODE_BYTES: u64 = 1024;

/// A tmpfs takes at most half of the memory (mm/shmem.c, `shmem_default_max_blocks`), and as many
/// inodes as half of the memory has pages (`shmem_default_max_inodes`).
const TMPFS_SHARE: u64 = 2;

/// Bytes of the pages of a file.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE)
}

/// Bytes of the pages of a symlink: below `SHORT_SYMLINK_LEN` (mm/shmem.c) the target is in the inode.
pub(super) fn symlink_pages(bytes: u64) -> u64 {
    if bytes < 128 { 0 } else { pages(bytes) }
}

impl Summary {
    /// The guest memory, in bytes, that a VM needs to boot the image.
    ///
    /// The kernel reserves the archive's memory, limits the root file system to half of the rest, and unpacks. The
    /// archive and the unpacked files are in memory at once.
    pub fn required_memory(&self) -> u64 {
        let files = self.unpacked_bytes * TMPFS_SHARE;
        let inodes = self.inodes * PAGE * TMPFS_SHARE;
        let slab = self.unpacked_bytes + self.inodes * INODE_BYTES;
        self.archive_bytes + files.max(inodes).max(slab) + FLOOR_BYTES
    }

    /// Fails if a VM with `memory_bytes` cannot boot the image.
    pub fn check_memory(&self, memory_bytes: u64) -> Result<(), WriteError> {
        let required = self.required_memory();
        if memory_bytes >= required {
            return Ok(());
        }
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        Err(WriteError::Memory {
            required: mebibytes(required),
            memory: memory_bytes >> 20,
            archive: mebibytes(self.archive_bytes),
            unpacked: mebibytes(self.unpacked_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_error_names_the_sizes() {
        let summary = Summary {
            inodes: 1000,
            unpacked_bytes: 100 << 20,
            archive_bytes: 101 << 20,
            ..Summary::default()
        };
        assert_eq!(summary.required_memory(), (101 + 200 + 48) << 20);
        assert!(summary.check_memory(349 << 20).is_ok());
        let message = summary.check_memory(256 << 20).unwrap_err().to_string();
        for number in ["349 MiB", "256 MiB", "101 MiB", "100 MiB"] {
            assert!(message.contains(number), "{message}");
        }
    }

    #[test]
    fn many_small_files_need_memory_for_inodes() {
        let summary = Summary {
            inodes: 1 << 20,
            ..Summary::default()
        };
        assert!(summary.required_memory() >= 8 << 30);
    }
}
