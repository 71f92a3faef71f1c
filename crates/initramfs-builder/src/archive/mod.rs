//! Writing a tree as an initramfs, and reading one back.

use std::io::{self, Read, Write};

use cloude_protocol::boot::ImageConfig;
use serde::{Deserialize, Serialize};

use crate::layer::Warnings;
use crate::tree::Tree;

/// How an initramfs is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Not at all; boots fastest.
    Plain,
    /// One zstd frame.
    Zstd {
        /// 1 to 19.
        level: i32,
    },
    /// LZ4 in the legacy framing, the one that the kernel reads (lib/decompress_unlz4.c).
    Lz4,
}

/// How to write an image.
#[derive(Clone, Copy, Debug)]
pub struct ImageOptions {
    /// Its compression.
    pub output: Output,
    /// `SOURCE_DATE_EPOCH`: later modification times become this one, and what is not in any layer
    /// has it. Without it, times are kept and what is not in any layer has 0.
    pub source_date_epoch: Option<u32>,
}

/// What an image holds and what it needs. Kept beside the image, in `NAME.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Entries in the archive, the trailer not counted.
    pub entries: u64,
    /// Inodes that the kernel makes of them.
    pub inodes: u64,
    /// Bytes of all files, hard links counted once.
    pub file_bytes: u64,
    /// Bytes of the pages that the unpacked files take.
    pub unpacked_bytes: u64,
    /// Bytes of the archive before compression.
    pub cpio_bytes: u64,
    /// Bytes of the archive as written.
    pub archive_bytes: u64,
    /// `sha256:` and the digest of the archive as written.
    pub digest: String,
    /// What was left out.
    pub warnings: Warnings,
}

impl Summary {
    /// The least guest memory, in bytes, that a VM needs to boot the image with.
    pub fn required_memory(&self) -> u64 {
        unimplemented!("in the next commit")
    }

    /// Fails, with the numbers, when a VM of this much memory cannot boot the image.
    pub fn check_memory(&self, memory_bytes: u64) -> Result<(), WriteError> {
        let required = self.required_memory();
        if memory_bytes >= required {
            return Ok(());
        }
        Err(WriteError::Memory { required, memory: memory_bytes, archive: self.archive_bytes, unpacked: self.unpacked_bytes })
    }
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output failed.
    #[error("writing the initramfs: {0}")]
    Write(#[source] io::Error),
    /// The image and the VM do not fit.
    #[error("needs {required} bytes of guest memory ({archive} for the archive, {unpacked} unpacked) and the VM has {memory}")]
    Memory {
        /// Bytes needed.
        required: u64,
        /// Bytes the VM has.
        memory: u64,
        /// Bytes of the archive.
        archive: u64,
        /// Bytes unpacked.
        unpacked: u64,
    },
}

/// Writes the tree, with `/.cloude/image.json` and `/dev/console`, as one segment whose length is a
/// multiple of 4 bytes.
pub fn write_image(
    tree: Tree,
    config: &ImageConfig,
    options: &ImageOptions,
    out: impl Write,
) -> Result<Summary, WriteError> {
    let _ = (tree, config, options, out);
    unimplemented!("in the next commit")
}

/// One entry of an initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    /// Without a leading slash; the root is `.`.
    pub path: Vec<u8>,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u32,
    /// The archive's number for the inode, shared by hard links.
    pub ino: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Bytes. Of hard links only the first has any.
    pub size: u32,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// Of a symlink.
    pub target: Option<Vec<u8>>,
}

/// Lists an initramfs: plain, gzip, zstd or LZ4, told by its first bytes.
pub fn list<R: Read>(
    reader: R,
) -> io::Result<impl Iterator<Item = io::Result<ListedEntry>> + use<R>> {
    let _ = reader;
    Ok(std::iter::empty())
}
