//! The space that a file takes.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// stat(2) counts blocks of this many bytes, independent of the file system's block size.
const STAT_BLOCK: u64 = 512;

/// The allocated bytes of a file; holes take none.
pub fn allocated_bytes(metadata: &Metadata) -> u64 {
    metadata.blocks() * STAT_BLOCK
}
