//! Connections that leave HTTP.

use std::any::Any;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A connection as its limits count it. An extension of its requests: who upgrades the connection keeps a clone until it is
/// closed, because the task of the HTTP connection ends with the upgrade.
#[derive(Clone)]
pub struct Held {
    _slots: Arc<dyn Any + Send + Sync>,
    /// The server waits for it when it stops.
    _connection: TaskTrackerToken,
    abort: CancellationToken,
}

impl Held {
    /// `slots` are released with the last clone. `abort` ends the connection.
    pub fn new(
        slots: impl Any + Send + Sync,
        connection: TaskTrackerToken,
        abort: CancellationToken,
    ) -> Self {
        Held {
            _slots: Arc::new(slots),
            _connection: connection,
            abort,
        }
    }

    /// Waits until the connection has to be closed at once.
    pub async fn aborted(&self) {
        self.abort.cancelled().await;
    }
}
