//! Merging layers into one tree.
//!
//! The result is what `umoci unpack` leaves on a disk, entry by entry, but nothing here touches one:
//! names, links and whiteouts act on the tree in memory and on nothing else.
//!
//! - A path is cleaned as if it stood in the root, so absolute names and `..` stay inside.
//! - Symlinks among a path's parents are followed within the tree, as the kernel would after a
//!   chroot; the last component is not.
//! - Parents that no entry names are made, mode 0755, owned by root, or by the group of a directory
//!   above with the set-group-ID bit.
//! - A directory over a directory keeps what is in it. Anything else over anything replaces it.
//! - A whiteout removes what lower layers put there and leaves what its own layer did, wherever in
//!   the layer it stands (OCI image specification, layer.md, "Whiteouts").
//! - Only the last component of a path is a whiteout: AUFS's `.wh..wh.plnk/1.2` is a file, to which
//!   hard links lead, and `.wh..wh.plnk` itself is a whiteout of `.wh.plnk`.
//! - `/.cloude` is ours: an image with an entry there is refused.

mod merge;
mod store;
mod walk;

use std::fmt;
use std::io::Read;

use crate::layer::{Compression, Content, Context, Device, Layer, LayerError, Warnings};
use crate::limits::{Budget, LimitExceeded};
pub(crate) use store::NodeId;
use store::Nodes;
pub(crate) use walk::Visit;

/// Why a layer could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It is larger than a limit allows.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// It could not be read.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Which layer, counted from 1 at the bottom.
        layer: u32,
        /// Why.
        source: LayerError,
    },
    /// An entry cannot be where it says.
    #[error("layer {layer}: `{path}`: {problem}")]
    Entry {
        /// Which layer, counted from 1 at the bottom.
        layer: u32,
        /// The entry's path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Owner, permissions and time of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The lower 12 bits of `st_mode`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// None for what no layer has: it gets the time of the build, see
    /// [`crate::archive::ImageOptions::source_date_epoch`].
    pub mtime: Option<u32>,
}

/// A directory that no entry names.
pub(crate) const IMPLICIT: Meta = Meta {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: None,
};

/// What an inode is, for whoever writes it.
#[derive(Debug)]
pub(crate) enum Object {
    Directory,
    File(Content),
    Symlink(Box<[u8]>),
    Device(Device),
    Fifo,
}

/// The merged tree of an image.
pub struct Tree {
    nodes: Nodes,
    budget: Budget,
    warnings: Warnings,
    /// Layers applied.
    layers: u32,
    /// Directory lookups so far.
    lookups: u64,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("layers", &self.layers)
            .field("inodes", &self.nodes.count())
            .finish_non_exhaustive()
    }
}

impl Tree {
    /// An empty tree: the root, mode 0755.
    pub fn new(context: &Context) -> Self {
        Tree {
            nodes: Nodes::new(),
            budget: context.budget().clone(),
            warnings: Warnings::default(),
            layers: 0,
            lookups: 0,
        }
    }

    /// Reads a layer and merges it. To read layers in parallel, use [`Layer::read`] on threads and
    /// [`Tree::apply`] in order.
    pub fn apply_layer(
        &mut self,
        reader: impl Read + Send,
        compression: Compression,
        context: &Context,
    ) -> Result<(), TreeError> {
        let layer =
            Layer::read(reader, compression, context).map_err(|source| TreeError::Layer {
                layer: self.layers + 1,
                source,
            })?;
        self.apply(layer)
    }

    /// What was left out so far.
    pub fn warnings(&self) -> Warnings {
        self.warnings
    }

    /// Adds what no layer has, unless something is there. Directories on the way are made; false if
    /// something other than a directory stands in the way, or at the path itself.
    pub(crate) fn add(&mut self, path: &[&[u8]], meta: Meta, object: Object) -> bool {
        let Some((name, parents)) = path.split_last() else {
            return false;
        };
        let mut directory = NodeId::ROOT;
        for parent in parents {
            directory = match self.nodes.child(directory, parent) {
                Some(node) if self.nodes.is_directory(node) => node,
                Some(_) => return false,
                None => self
                    .nodes
                    .insert(directory, parent, IMPLICIT, Object::Directory, 0),
            };
        }
        if self.nodes.child(directory, name).is_some() {
            return false;
        }
        self.nodes.insert(directory, name, meta, object, 0);
        true
    }
}
