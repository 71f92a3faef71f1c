//! Limits on an image, and the errors for an image that exceeds them.
//!
//! An image is untrusted input. Decompression, parsing and merging stop at the moment a limit is exceeded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The largest file that newc can hold: its size field has 8 hexadecimal digits
/// (Documentation/driver-api/early-userspace/buffer-format.rst, `c_filesize`).
pub const NEWC_MAX_FILE_BYTES: u64 = u32::MAX as u64;

/// Limits on one image. Every field can be set; [`Limits::default`] suits any ordinary image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Layers in an image. Default 128.
    pub max_layers: u64,
    /// Entries in all layers together, and in the merged tree with the directories that no entry
    /// names. Default 1,000,000.
    pub max_entries: u64,
    /// Bytes of all compressed layers together. Default 8 GiB.
    pub max_compressed_bytes: u64,
    /// Bytes of all layers together, decompressed, headers and padding included, holes of sparse
    /// files counted as if stored. Default 16 GiB.
    pub max_unpacked_bytes: u64,
    /// Decompressed bytes per compressed byte, checked once a layer has more than [`RATIO_GRACE_BYTES`]. Default 200:
    /// text compresses up to 20 times in practice, zeros 1000 times and more.
    pub max_ratio: u64,
    /// Bytes in one file. Default, and at most, 4 GiB - 1 ([`NEWC_MAX_FILE_BYTES`]).
    pub max_file_bytes: u64,
    /// Bytes in a whole path from the root, without the leading slash. Default, and at most, 4095:
    /// the kernel skips longer ones silently (`PATH_MAX`, init/initramfs.c).
    pub max_path_bytes: u64,
    /// Bytes in one component of a path. Default, and at most, 255 (`NAME_MAX`).
    pub max_name_bytes: u64,
    /// Bytes in a symlink's target. Default, and at most, 4095.
    pub max_symlink_bytes: u64,
    /// Bytes in one extension header (PAX record set, GNU long name). Default 1 MiB.
    pub max_header_bytes: u64,
    /// Bytes of all names and link targets together, which stay in memory. Default 256 MiB, some 4
    /// times what a million ordinary entries need.
    pub max_metadata_bytes: u64,
    /// Segments in one sparse file. Default 65,536.
    pub max_sparse_segments: u64,
    /// Directory lookups while merging. Default 100,000,000, some 20 times the need of a million ordinary entries. It
    /// stops chains of symlinks and whiteouts that are made to be slow.
    pub max_lookups: u64,
}

/// Decompressed bytes of a layer below which [`Limits::max_ratio`] is not checked: 64 MiB. A small layer may hold a
/// file of zeros.
pub const RATIO_GRACE_BYTES: u64 = 64 << 20;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_layers: 128,
            max_entries: 1_000_000,
            max_compressed_bytes: 8 << 30,
            max_unpacked_bytes: 16 << 30,
            max_ratio: 200,
            max_file_bytes: NEWC_MAX_FILE_BYTES,
            max_path_bytes: 4095,
            max_name_bytes: 255,
            max_symlink_bytes: 4095,
            max_header_bytes: 1 << 20,
            max_metadata_bytes: 256 << 20,
            max_sparse_segments: 65_536,
            max_lookups: 100_000_000,
        }
    }
}

/// An image exceeds a limit. Each message names the field of [`Limits`], which is also the command line's option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitExceeded {
    /// Too many layers. Squash the image, or raise `max_layers`.
    #[error("the image has {count} layers and the limit is {limit}; raise max_layers to allow it")]
    Layers {
        /// Layers so far.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many entries. Raise `max_entries` if the image is trusted.
    #[error(
        "the image has more than {limit} entries (files, directories, links); raise max_entries to allow it"
    )]
    Entries {
        /// The limit.
        limit: u64,
    },
    /// Too many compressed bytes.
    #[error(
        "the image's layers are larger than {limit} bytes compressed; raise max_compressed_bytes to allow it"
    )]
    CompressedBytes {
        /// The limit.
        limit: u64,
    },
    /// Too many bytes once decompressed.
    #[error(
        "the image's layers are larger than {limit} bytes unpacked; raise max_unpacked_bytes to allow it"
    )]
    UnpackedBytes {
        /// The limit.
        limit: u64,
    },
    /// A decompression bomb, or a file with little but zeros in it.
    #[error(
        "a layer unpacked to {unpacked} bytes from {compressed}, more than {limit} times as many; \
         raise max_ratio to allow it"
    )]
    Ratio {
        /// Compressed bytes so far.
        compressed: u64,
        /// Decompressed bytes so far.
        unpacked: u64,
        /// The limit.
        limit: u64,
    },
    /// A file that is too large. newc has 32 bits for the size: split files of 4 GiB and more.
    #[error(
        "`{path}` has {size} bytes and the limit is {limit}; {}",
        if *limit >= NEWC_MAX_FILE_BYTES { "no initramfs can hold a larger file (newc has 32 bits for the size)" }
        else { "raise max_file_bytes to allow it" }
    )]
    FileBytes {
        /// The file.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A path, name or symlink target that is too long.
    #[error("{what} has {length} bytes and the limit is {limit} ({field}): `{start}...`")]
    NameBytes {
        /// `a path`, `a file name` or `a symlink's target`.
        what: &'static str,
        /// Its length.
        length: u64,
        /// The limit.
        limit: u64,
        /// The field of [`Limits`] that holds the limit.
        field: &'static str,
        /// Its first 64 bytes.
        start: String,
    },
    /// An extension header that is too large.
    #[error(
        "a tar extension header has {size} bytes and the limit is {limit}; raise max_header_bytes to allow it"
    )]
    HeaderBytes {
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many bytes of names and link targets.
    #[error(
        "the image's names and link targets are larger than {limit} bytes; raise max_metadata_bytes to allow it"
    )]
    MetadataBytes {
        /// The limit.
        limit: u64,
    },
    /// A sparse file in too many pieces.
    #[error(
        "the sparse file `{path}` has more than {limit} segments; raise max_sparse_segments to allow it"
    )]
    SparseSegments {
        /// The file.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// Too many directory lookups while merging.
    #[error(
        "merging the layers takes more than {limit} directory lookups; raise max_lookups to allow it"
    )]
    Lookups {
        /// The limit.
        limit: u64,
    },
}

/// Counters of one image against its limits. Clones share the counters, so that layers can be read in parallel.
#[derive(Clone, Debug)]
pub struct Budget {
    limits: Arc<Limits>,
    used: Arc<Used>,
}

#[derive(Debug, Default)]
struct Used {
    layers: AtomicU64,
    entries: AtomicU64,
    compressed: AtomicU64,
    unpacked: AtomicU64,
    metadata: AtomicU64,
}

impl Budget {
    /// With all counters at 0.
    pub fn new(limits: Limits) -> Self {
        Budget {
            limits: Arc::new(limits),
            used: Arc::default(),
        }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts one layer.
    pub fn take_layer(&self) -> Result<(), LimitExceeded> {
        let limit = self.limits.max_layers;
        let count = take(&self.used.layers, 1);
        if count > limit {
            Err(LimitExceeded::Layers { count, limit })
        } else {
            Ok(())
        }
    }

    /// Counts one tar header.
    pub fn take_entry(&self) -> Result<(), LimitExceeded> {
        let limit = self.limits.max_entries;
        if take(&self.used.entries, 1) > limit {
            return Err(LimitExceeded::Entries { limit });
        }
        Ok(())
    }

    /// Counts bytes that a decompressor has read.
    pub fn take_compressed(&self, bytes: u64) -> Result<(), LimitExceeded> {
        let limit = self.limits.max_compressed_bytes;
        if take(&self.used.compressed, bytes) > limit {
            return Err(LimitExceeded::CompressedBytes { limit });
        }
        Ok(())
    }

    /// Counts decompressed bytes, and bytes of holes in sparse files.
    pub fn take_unpacked(&self, bytes: u64) -> Result<(), LimitExceeded> {
        let limit = self.limits.max_unpacked_bytes;
        if take(&self.used.unpacked, bytes) > limit {
            return Err(LimitExceeded::UnpackedBytes { limit });
        }
        Ok(())
    }

    /// Counts bytes of a name or a link's target.
    pub fn take_metadata(&self, bytes: u64) -> Result<(), LimitExceeded> {
        let limit = self.limits.max_metadata_bytes;
        if take(&self.used.metadata, bytes) > limit {
            return Err(LimitExceeded::MetadataBytes { limit });
        }
        Ok(())
    }

    /// Checks the compression ratio of one layer so far.
    pub fn check_ratio(&self, compressed: u64, unpacked: u64) -> Result<(), LimitExceeded> {
        let limit = self.limits.max_ratio;
        if unpacked > RATIO_GRACE_BYTES && unpacked > compressed.saturating_mul(limit) {
            return Err(LimitExceeded::Ratio {
                compressed,
                unpacked,
                limit,
            });
        }
        Ok(())
    }
}

/// Adds, saturating, and returns the sum.
fn take(counter: &AtomicU64, amount: u64) -> u64 {
    counter
        .fetch_update(Relaxed, Relaxed, |used| Some(used.saturating_add(amount)))
        .unwrap_or(u64::MAX)
        .saturating_add(amount)
}
