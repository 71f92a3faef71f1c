//! Signals that end this process.

use tokio::signal::unix::{SignalKind, signal};

use super::{Leaving, cancel};
use crate::client::Backend;
use crate::error::Ending;
use crate::exit;
use crate::raw_mode;
use crate::terminal;

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
