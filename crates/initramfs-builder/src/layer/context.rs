//! What all layers of one image share while they are read.

use std::path::{Path, PathBuf};

use crate::limits::{Budget, Limits};

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
