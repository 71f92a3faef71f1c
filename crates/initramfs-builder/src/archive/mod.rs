//! Writes a tree as an initramfs, and lists an initramfs.

mod compress;
mod list;
mod lz4;
mod memory;
mod write;

use std::io;

use serde::{Deserialize, Serialize};

use crate::layer::Warnings;
pub(crate) use list::read_files;
pub use list::{ListedEntry, list};
pub use memory::FLOOR_BYTES;
pub use write::write_image;

/// Compression of an initramfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// None; boots fastest.
    #[default]
    Plain,
    /// One zstd frame.
    Zstd {
        /// 1 to 19. Higher levels need windows that the kernel refuses.
        level: i32,
    },
    /// LZ4 in the legacy framing, the one that the kernel reads (lib/decompress_unlz4.c).
    Lz4,
}

/// Options of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Its compression.
    pub output: Output,
    /// `SOURCE_DATE_EPOCH`: later modification times are set to it. Entries that are in no layer get it, or 0 if it is
    /// absent.
    pub source_date_epoch: Option<u32>,
}

/// Sizes and counts of an image. Stored with it in `NAME.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Entries in the archive, the trailer not counted.
    pub entries: u64,
    /// Inodes that the kernel creates for them.
    pub inodes: u64,
    /// Bytes of all files, hard links counted once.
    pub file_bytes: u64,
    /// Bytes of the pages that the unpacked files take.
    pub unpacked_bytes: u64,
    /// Bytes of the archive before compression.
    pub cpio_bytes: u64,
    /// Bytes of the archive as written.
    pub archive_bytes: u64,
    /// Attributes that newc cannot hold.
    pub warnings: Warnings,
}

/// An image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output file failed, most often for lack of space.
    #[error("cannot write the initramfs: {0}")]
    Write(#[source] io::Error),
    /// The temporary file with the layers' contents failed.
    #[error("cannot read the temporary file with the layers' contents: {0}")]
    Spool(#[source] io::Error),
    /// A zstd level outside 1 to 19.
    #[error("zstd level {level} is out of range: give 1 to 19")]
    Level {
        /// The level.
        level: i32,
    },
    /// A VM with this memory cannot unpack the image. Give it more memory, or make the image smaller.
    #[error(
        "the image needs {required} MiB of guest memory and the VM has {memory} MiB: {archive} MiB for the archive, \
         and twice the {unpacked} MiB of its files, because a tmpfs root takes half of the free memory at most; \
         raise the memory or make the image smaller"
    )]
    Memory {
        /// MiB needed, rounded up.
        required: u64,
        /// MiB the VM has.
        memory: u64,
        /// MiB of the archive, rounded up.
        archive: u64,
        /// MiB unpacked, rounded up.
        unpacked: u64,
    },
}
