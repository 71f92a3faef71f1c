//! Leaving an execution before its end, by a signal or after an error.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::client::Backend;
use crate::error::Ending;
use crate::exit;
use crate::raw_mode;
use crate::terminal;

/// Maximum time for the request that cancels an execution.
const CANCEL_TIME: Duration = Duration::from_secs(5);

/// The execution when this process leaves before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It is cancelled, because this process started it.
    Cancels,
    /// It goes on.
    Leaves,
}

/// Waits for a signal, then leaves the execution and exits with 128 and the signal's number.
pub async fn leave(id: String, leaving: Leaving, backend: Backend) {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up), Ok(mut quit)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
        signal(SignalKind::quit()),
    ) else {
        return;
    };
    let kind = tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hang_up.recv() => SignalKind::hangup(),
        _ = quit.recv() => SignalKind::quit(),
    };
    raw_mode::restore();
    terminal::clear_spinner();
    if leaving == Leaving::Cancels {
        tokio::select! {
            () = cancel(&id, &backend) => {}
            // The second Ctrl-C does not wait.
            _ = interrupt.recv() => {}
        }
        terminal::note(&Ending::Cancelled.to_string());
    }
    std::process::exit(kind.as_raw_value() + i32::from(exit::SIGNAL_BASE));
}

/// Cancels the execution. A failure is ignored: its limits end it.
pub async fn cancel(id: &str, backend: &Backend) {
    let path = format!("v1/executions/{id}");
    let backend = backend.clone().without_retries();
    let cancelled = backend.delete_json::<serde_json::Value>(&path);
    let _ = tokio::time::timeout(CANCEL_TIME, cancelled).await;
}
