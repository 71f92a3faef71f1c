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
mod node;
mod store;
mod walk;

use std::fmt;

use crate::layer::{Context, LayerError, Warnings};
use crate::limits::{Budget, LimitExceeded};
pub(crate) use node::{IMPLICIT, Meta, Object};
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

    /// What was left out so far.
    pub fn warnings(&self) -> Warnings {
        self.warnings
    }

    /// The content of the regular file at a path without symbolic links, if it has at most `max` bytes.
    pub(crate) fn read_file(&self, path: &str, max: u64) -> Option<Vec<u8>> {
        let mut node = NodeId::ROOT;
        for name in path.split('/') {
            node = self.nodes.child(node, name.as_bytes())?;
        }
        match self.nodes.object(node) {
            Object::File(content) if content.len() <= max => content.read().ok(),
            _ => None,
        }
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
