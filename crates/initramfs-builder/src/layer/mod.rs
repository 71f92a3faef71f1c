//! Reads one layer of an image: a tar archive, compressed or not.
//!
//! [`Layer::read`] reads a layer once, from start to end. Metadata stays in memory. File contents go to an unlinked
//! temporary file, so that memory does not grow with the image. Layers are independent until
//! [`crate::tree::Tree::apply`]: read them in parallel, each while it is downloaded.

mod blocks;
mod context;
mod decompress;
mod display;
mod entry;
mod error;
mod fields;
mod number;
mod parse;
mod pax;
mod sparse;
mod spool;

use std::fmt;
use std::io::Read;
use std::sync::mpsc;
use std::thread;

pub use context::Context;
pub use decompress::Compression;
use decompress::{CHUNKS, Chunks, decompress};
pub(crate) use decompress::{MAX_WINDOW_LOG, detect};
pub use display::display_path;
pub(crate) use entry::{Content, Entry, EntryKind};
pub use entry::{Device, Warnings};
pub use error::LayerError;
use parse::Parser;

/// A layer that was read.
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
    /// Reads a layer to its end. Decompression runs on another thread.
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

    /// The digest of the uncompressed layer, `sha256:HEX`.
    pub fn diff_id(&self) -> &str {
        &self.diff_id
    }

    /// Compares the digest with the one in the image's configuration.
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
