//! Merges layers into one tree in memory. The result equals the output of `umoci unpack`, entry by entry.
//!
//! - Paths are cleaned as if the current directory were the root, so that absolute names and `..` stay inside.
//! - Symlinks among the parents of a path are followed within the tree, as after chroot(2). The last component is not
//!   followed.
//! - Missing parents are created with mode 0755 and owner root; below a set-group-ID directory, with its group.
//! - A directory over a directory keeps the children. Every other combination replaces the old object.
//! - A whiteout removes objects of lower layers and keeps those of its own layer, in any order of the entries (OCI
//!   image specification, layer.md, "Whiteouts").
//! - Only the last component of a path can be a whiteout: `.wh..wh.plnk/1.2` of AUFS is a file that hard links name,
//!   and `.wh..wh.plnk` is a whiteout of `.wh.plnk`.
//! - `/.cloude` is reserved: an image with an entry there is refused.

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

/// A layer could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The layer exceeds a limit.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The layer could not be read.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Number of the layer, from 1 at the bottom.
        layer: u32,
        /// The reason.
        source: LayerError,
    },
    /// An entry cannot be placed in the tree.
    #[error("layer {layer}: `{path}`: {problem}")]
    Entry {
        /// Number of the layer, from 1 at the bottom.
        layer: u32,
        /// The entry's path.
        path: String,
        /// The problem.
        problem: String,
    },
}

/// The merged tree of an image.
pub struct Tree {
    nodes: Nodes,
    budget: Budget,
    warnings: Warnings,
    /// Layers merged so far.
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

    /// Attributes dropped so far.
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

    /// Adds an object and its missing parents. False if the path exists, or a parent is not a directory.
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
