//! The raw mode of the terminal on standard input, and its end on every way out of the process.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, Once, PoisonError};

use cloude_protocol::agent::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::LocalError;

/// The mode before, while the terminal is raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// The size of a terminal that does not know its own.
const USUAL: TerminalSize = TerminalSize {
    columns: 80,
    rows: 24,
};
/// The largest size that the backend accepts, in columns and in rows.
const LARGEST: u16 = 1000;

/// True if standard input is a terminal.
pub fn has_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The size of the terminal on standard input.
pub fn size() -> TerminalSize {
    match tcgetwinsize(io::stdin()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => TerminalSize {
            columns: size.ws_col.min(LARGEST),
            rows: size.ws_row.min(LARGEST),
        },
        _ => USUAL,
    }
}

/// Ends the raw mode when it is dropped.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Every key reaches the program as it is: no echo, no lines, no signals. A panic ends the mode, too.
    pub fn enter() -> Result<Self, LocalError> {
        HOOK.call_once(|| {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                hook(info);
            }));
        });
        let failed = |error: rustix::io::Errno| LocalError::Terminal {
            error: error.into(),
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let mode = RawMode(());
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(mode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// True while the terminal is raw: a line of a message then needs a CR.
pub fn is_active() -> bool {
    BEFORE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_some()
}

/// Sets the mode that was before. Call it before the process exits without a return from `main`.
pub fn restore() {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = before.take() {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}
