//! Reading one layer of an image: a tar archive, compressed or not.
//!
//! [`Layer::read`] reads a layer once, front to back, wherever it comes from. Metadata stays in
//! memory; the contents of files go to an unlinked temporary file, so that memory does not grow with
//! the image. Layers do not depend on each other until [`crate::tree::Tree::apply`]: read them in
//! parallel, each while it is still being downloaded.

mod decompress;
mod display;
mod fields;
mod number;
mod parse;
mod pax;
mod sparse;
mod spool;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use decompress::{CHUNKS, Chunks, decompress};
pub(crate) use decompress::{MAX_WINDOW_LOG, detect};
pub use display::display_path;
use parse::Parser;

use crate::limits::{Budget, LimitExceeded, Limits};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Look at the first bytes.
    Detect,
    /// Not at all.
    Plain,
    /// gzip, of one member or several.
    Gzip,
    /// zstd, of one frame or several, with a window of at most 128 MiB.
    Zstd,
}

/// What reading a layer needs, shared by all layers of one image.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) budget: Budget,
    pub(crate) spool_dir: PathBuf,
}

impl Context {
    /// `spool_dir` is where unlinked temporary files with the contents are made; it needs room for
    /// the image unpacked, and should not be a tmpfs.
    pub fn new(limits: Limits, spool_dir: impl Into<PathBuf>) -> Self {
        Context {
            budget: Budget::new(limits),
            spool_dir: spool_dir.into(),
        }
    }

    /// What has been used of the limits.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Where contents are spooled.
    pub fn spool_dir(&self) -> &Path {
        &self.spool_dir
    }
}

/// Why a layer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It is larger than a limit allows.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// It is not a well-formed tar archive, or has something in it that no initramfs can hold.
    #[error("entry {entry} of the layer, `{path}`: {problem}")]
    Entry {
        /// Which entry, counted from 1.
        entry: u64,
        /// Its path as far as it is known.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Its bytes could not be read or decompressed. The message says which.
    #[error("reading the layer: {0}")]
    Read(#[source] io::Error),
    /// Its contents could not be kept. Make room, or choose another directory.
    #[error("keeping the layer's contents in `{dir}`: {source}")]
    Spool {
        /// Where the temporary file is.
        dir: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not the layer that the image's configuration names (`rootfs.diff_ids`).
    #[error("the layer unpacks to {actual} and the image says {expected}; pull it again")]
    DiffId {
        /// From the image's configuration.
        expected: String,
        /// What it is.
        actual: String,
    },
}

/// What was left out or changed because an initramfs cannot hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Warnings {
    /// `security.capability` attributes left out: a program that relied on one needs root.
    pub capabilities_dropped: u64,
    /// Other extended attributes left out.
    pub xattrs_dropped: u64,
    /// Modification times before 1970 or after 2106, moved to the nearer end.
    pub mtimes_clamped: u64,
}

impl Warnings {
    pub(crate) fn add(&mut self, other: &Warnings) {
        self.capabilities_dropped += other.capabilities_dropped;
        self.xattrs_dropped += other.xattrs_dropped;
        self.mtimes_clamped += other.mtimes_clamped;
    }
}

/// One layer, read.
pub struct Layer {
    pub(crate) entries: Vec<Entry>,
    pub(crate) warnings: Warnings,
    diff_id: String,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer")
            .field("diff_id", &self.diff_id)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Layer {
    /// Reads a layer to its end. Decompression runs on a thread of its own.
    pub fn read(
        reader: impl Read + Send,
        compression: Compression,
        context: &Context,
    ) -> Result<Layer, LayerError> {
        context.budget.take_layer()?;
        let (full_sender, full) = mpsc::sync_channel(CHUNKS);
        let (empty_sender, empty) = mpsc::channel();
        let (entries, warnings, diff_id) = thread::scope(|scope| {
            scope.spawn(move || {
                decompress(reader, compression, &context.budget, &full_sender, &empty);
            });
            Parser::new(Chunks::new(full, empty_sender), context)?.run()
        })?;
        Ok(Layer {
            entries,
            warnings,
            diff_id,
        })
    }

    /// The digest of the uncompressed layer: `sha256:` and 64 hexadecimal digits.
    pub fn diff_id(&self) -> &str {
        &self.diff_id
    }

    /// Fails unless the layer is the one that the image's configuration names.
    pub fn verify_diff_id(&self, expected: &str) -> Result<(), LayerError> {
        if self.diff_id == expected {
            return Ok(());
        }
        Err(LayerError::DiffId {
            expected: expected.to_owned(),
            actual: self.diff_id.clone(),
        })
    }
}

/// One entry of a layer, as the tar has it: its path is not yet cleaned or resolved.
#[derive(Debug)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// The lower 12 bits only.
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
    /// A block device, or else a character device.
    pub block: bool,
    /// 0 to 4095, as the kernel has 12 bits for it (include/linux/kdev_t.h).
    pub major: u32,
    /// 0 to 1,048,575 (20 bits).
    pub minor: u32,
}

/// Where the bytes of a file are.
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
}
