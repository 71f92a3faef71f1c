//! Writing a tree as an initramfs, and reading one back.

mod compress;
mod list;
mod lz4;
mod memory;
mod write;

use std::io;

use serde::{Deserialize, Serialize};

use crate::layer::Warnings;
pub use list::{ListedEntry, list};
pub use memory::FLOOR_BYTES;
pub use write::write_image;

/// How an initramfs is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Not at all; boots fastest.
    #[default]
    Plain,
    /// One zstd frame.
    Zstd {
        /// 1 to 19. Beyond, windows grow larger than what they save is worth to a kernel that
        /// unpacks in memory.
        level: i32,
    },
    /// LZ4 in the legacy framing, the one that the kernel reads (lib/decompress_unlz4.c).
    Lz4,
}

/// How to write an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Its compression.
    pub output: Output,
    /// `SOURCE_DATE_EPOCH`: later modification times become this one, and what is not in any layer
    /// has it. Without it, times are kept and what is not in any layer has 0.
    pub source_date_epoch: Option<u32>,
}

/// What an image holds and what it needs. Kept beside the image, in `NAME.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// What was left out.
    pub warnings: Warnings,
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output failed.
    #[error("writing the initramfs: {0}")]
    Write(#[source] io::Error),
    /// The contents that reading the layers kept could not be read back.
    #[error("reading the layers' contents back: {0}")]
    Spool(#[source] io::Error),
    /// A zstd level outside 1 to 19.
    #[error("zstd level {level} is outside 1 to 19")]
    Level {
        /// The level.
        level: i32,
    },
    /// The image and the VM do not fit. Give the VM more memory, or make the image smaller.
    #[error(
        "the image needs {required} MiB of guest memory and the VM has {memory} MiB: {archive} MiB for the \
         archive, and {unpacked} MiB unpacked, of which the kernel gives its root file system half of the rest \
         at most"
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
