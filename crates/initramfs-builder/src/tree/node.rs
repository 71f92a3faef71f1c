//! An inode of a merged tree.

use crate::layer::{Content, Device};

/// Owner, permissions and time of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The lower 12 bits of `st_mode`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// None for objects that are in no layer; see [`crate::archive::ImageOptions::source_date_epoch`].
    pub mtime: Option<u32>,
}

/// A directory without an entry in a layer.
pub(crate) const IMPLICIT: Meta = Meta {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: None,
};

/// The type of an inode, with its content.
#[derive(Debug)]
pub(crate) enum Object {
    Directory,
    File(Content),
    Symlink(Box<[u8]>),
    Device(Device),
    Fifo,
}
