//! A panic in any thread ends the process.
//!
//! A VM must not continue after a device panicked halfway through its work. `panic = "abort"` would do this, but it
//! belongs to a Cargo profile that all binaries share, and `clouded` must survive the panic of one request. A panic
//! hook that exits the process has the same effect: nothing unwinds, and no lock is poisoned.

use std::panic::{set_hook, take_hook};

use crate::control::{Channel, Event, ExitReason, ExitReport};

/// The exit code of a process that panicked (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_CODE: u8 = 70;

/// Installs a panic hook that prints the panic and exits the process with [`EXIT_CODE`]. Call it first in `main`.
pub fn end_process() {
    let print = take_hook();
    set_hook(Box::new(move |panic| {
        print(panic);
        // SAFETY: _exit does not return and runs no destructors or exit handlers.
        unsafe { libc::_exit(EXIT_CODE.into()) }
    }));
}

/// Installs a panic hook that calls `f` with the panic's message, and then the previous hook.
pub fn before(f: impl Fn(&str) + Send + Sync + 'static) {
    let next = take_hook();
    set_hook(Box::new(move |panic| {
        f(&panic.to_string());
        next(panic);
    }));
}

/// Installs a panic hook that sends the panic on `channel` as the last event.
pub fn report_to(channel: Channel) {
    before(move |message| {
        let report = ExitReport {
            reason: ExitReason::WorkerPanic {
                message: message.to_owned(),
            },
            console_dropped_bytes: 0,
        };
        // Non-blocking: a host that does not read must not keep the VM alive.
        let _ = channel.try_send(&Event::Exited(report), &[]);
    });
}
