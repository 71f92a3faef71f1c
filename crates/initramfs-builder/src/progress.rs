//! Telling what a build does, and stopping it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// What a build is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Something that the user should know.
    Notice {
        /// One line.
        message: String,
    },
    /// The next step.
    Step {
        /// A few words.
        message: String,
    },
    /// The layers are known.
    Layers {
        /// Their sizes in bytes, the bottom one first.
        sizes: Vec<u64>,
    },
    /// A layer was read this far.
    LayerBytes {
        /// Which layer, from 0.
        layer: usize,
        /// Bytes so far.
        bytes: u64,
    },
    /// A layer has been read and checked.
    LayerDone {
        /// Which layer, from 0.
        layer: usize,
    },
}

/// Hears what a build does. Called from several threads.
pub trait Progress: Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn event(&self, _: &Event) {}
}

/// The build was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub(crate) struct Cancelled;

/// Stops a build. Clones stop the same one.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    parent: Option<Arc<AtomicBool>>,
}

impl Cancel {
    /// Not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled by a flag that is set elsewhere, such as by a signal's handler.
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Cancel { flag, parent: None }
    }

    /// Cancels.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
            || self
                .parent
                .as_ref()
                .is_some_and(|parent| parent.load(Ordering::Relaxed))
    }

    /// One that is cancelled with this one, or alone.
    pub(crate) fn child(&self) -> Cancel {
        Cancel {
            flag: Arc::default(),
            parent: Some(self.flag.clone()),
        }
    }

    /// Fails once this was cancelled.
    pub(crate) fn check(&self) -> Result<(), Cancelled> {
        if self.is_set() {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }
}
