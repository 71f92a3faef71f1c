//! Shared state of the layers of one image while they are read.

use std::path::{Path, PathBuf};

use crate::limits::{Budget, Limits};

/// Limits and temporary files, shared by all layers of one image.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) budget: Budget,
    pub(crate) spool_dir: PathBuf,
}

impl Context {
    /// `spool_dir` is the directory of the unlinked temporary files. It needs space for the unpacked image, and should
    /// not be a tmpfs.
    pub fn new(limits: Limits, spool_dir: impl Into<PathBuf>) -> Self {
        Context {
            budget: Budget::new(limits),
            spool_dir: spool_dir.into(),
        }
    }

    /// The counters against the limits.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The directory of the temporary files.
    pub fn spool_dir(&self) -> &Path {
        &self.spool_dir
    }
}
