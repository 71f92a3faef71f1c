//! An entry of a layer, and what newc cannot hold of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// One entry of a layer. The path is clean, but symlinks in it are not resolved.
#[derive(Debug)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// The lower 12 bits of `st_mode`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u32,
}

#[derive(Debug)]
pub(crate) enum EntryKind {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    Device(Device),
    Fifo,
}

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// True for a block device, false for a character device.
    pub block: bool,
    /// 0 to 4095, as the kernel has 12 bits for it (include/linux/kdev_t.h).
    pub major: u32,
    /// 0 to 1,048,575 (20 bits).
    pub minor: u32,
}

/// The bytes of a file.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Spooled {
        file: Arc<File>,
        offset: u64,
        len: u64,
    },
    Bytes(Arc<[u8]>),
}

impl Content {
    pub fn len(&self) -> u64 {
        match self {
            Content::Spooled { len, .. } => *len,
            Content::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// All bytes.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Content::Bytes(bytes) => Ok(bytes.to_vec()),
            Content::Spooled { file, offset, len } => {
                let mut bytes = vec![0; usize::try_from(*len).map_err(io::Error::other)?];
                file.read_exact_at(&mut bytes, *offset)?;
                Ok(bytes)
            }
        }
    }
}

/// Counts of attributes that were dropped or changed because newc cannot hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Warnings {
    /// `security.capability` attributes dropped: a program that relies on one needs root.
    pub capabilities_dropped: u64,
    /// Other extended attributes dropped.
    pub xattrs_dropped: u64,
    /// Modification times before 1970 or after 2106, set to the nearest that fits.
    pub mtimes_clamped: u64,
}

impl Warnings {
    pub(crate) fn add(&mut self, other: &Warnings) {
        self.capabilities_dropped += other.capabilities_dropped;
        self.xattrs_dropped += other.xattrs_dropped;
        self.mtimes_clamped += other.mtimes_clamped;
    }
}
