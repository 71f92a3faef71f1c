//! Merging layers into one tree.
use crate::layer::{Context, Layer, Warnings};
use crate::limits::LimitExceeded;

/// Why a layer could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It is larger than a limit allows.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
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
#[derive(Debug)]
pub struct Tree {
    warnings: Warnings,
}

impl Tree {
    /// An empty tree.
    pub fn new(context: &Context) -> Self {
        let _ = context;
        Tree { warnings: Warnings::default() }
    }

    /// Merges a layer, the bottom one first.
    pub fn apply(&mut self, layer: Layer) -> Result<(), TreeError> {
        let _ = layer;
        unimplemented!("in the next commit")
    }

    /// What was left out so far.
    pub fn warnings(&self) -> Warnings {
        self.warnings
    }
}
