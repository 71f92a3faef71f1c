//! The newc cpio format, as the kernel reads it
//! (Documentation/driver-api/early-userspace/buffer-format.rst, init/initramfs.c).
//!
//! Each entry is a header of 110 ASCII bytes, the name with a NUL, and the data. Name and data are padded with zeros
//! to multiples of 4 bytes.

mod read;
mod write;

pub use read::Reader;
pub(crate) use write::Writer;

/// Bytes of a header: 6 of magic and 13 fields of 8 hexadecimal digits.
pub(crate) const HEADER_BYTES: usize = 110;
/// The magic of newc without checksums.
pub(crate) const MAGIC: &[u8; 6] = b"070701";
/// The name of the entry that ends an archive.
pub(crate) const TRAILER: &[u8] = b"TRAILER!!!";
/// Longest name with its NUL; the kernel skips longer ones (`PATH_MAX`).
pub(crate) const MAX_NAME_BYTES: usize = 4096;

/// `S_IFMT` of stat(2) and its values (inode(7)).
pub(crate) mod file_type {
    pub const MASK: u32 = 0o170_000;
    pub const DIRECTORY: u32 = 0o040_000;
    pub const REGULAR: u32 = 0o100_000;
    pub const SYMLINK: u32 = 0o120_000;
    pub const CHARACTER: u32 = 0o020_000;
    pub const BLOCK: u32 = 0o060_000;
    pub const FIFO: u32 = 0o010_000;
}

/// The fields of an entry's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Inode number in the archive, the same for hard links.
    pub ino: u32,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of the inode.
    pub nlink: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Bytes of data.
    pub size: u32,
    /// Major number of a device node.
    pub rdev_major: u32,
    /// Minor number of a device node.
    pub rdev_minor: u32,
}

/// Bytes from `position` to the next multiple of 4.
pub(crate) fn padding(position: u64) -> usize {
    (position.wrapping_neg() % 4) as usize
}
