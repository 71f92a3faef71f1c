//! Progress of a build, and its cancellation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// An event of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Information for the user, such as a fallback.
    Notice {
        /// One line.
        message: String,
    },
    /// A step begins.
    Step {
        /// A few words.
        message: String,
    },
    /// The layers are known.
    Layers {
        /// Their sizes in bytes, the bottom one first.
        sizes: Vec<u64>,
    },
    /// A part of a layer was read.
    LayerBytes {
        /// Index of the layer, from 0 at the bottom.
        layer: usize,
        /// Bytes so far.
        bytes: u64,
    },
    /// A layer was read and verified.
    LayerDone {
        /// Index of the layer, from 0 at the bottom.
        layer: usize,
    },
}

/// Receives the events of a build, on several threads.
pub trait Progress: Sync {
    /// Called for each event.
    fn event(&self, event: &Event);
}

/// Ignores all events.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn event(&self, _: &Event) {}
}

/// The build was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub(crate) struct Cancelled;

/// A flag that stops a build. Clones share it.
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

    /// With a flag that other code sets, such as a signal handler.
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Cancel { flag, parent: None }
    }

    /// Cancels.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// True once cancelled.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
            || self
                .parent
                .as_ref()
                .is_some_and(|parent| parent.load(Ordering::Relaxed))
    }

    /// A flag that is set together with this one, or alone.
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
