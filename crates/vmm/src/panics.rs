//! A panic in any thread ends the process.
//!
//! Whatever a guest provoked, its VM must not go on with half a device. `panic = "abort"` says that, but it is
//! a setting of a Cargo profile, which all binaries of the workspace share, and `clouded` has to survive a
//! panic of one request. A hook that does not return has the same effect: nothing is unwound, no lock is
//! poisoned, and no other thread runs on.

use std::panic::{set_hook, take_hook};

use crate::control::{Channel, Event, ExitReason, ExitReport};

/// The exit code of a process that panicked (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_CODE: u8 = 70;

/// Makes a panic of any thread end the process with [`EXIT_CODE`], once it is printed. Call it first in `main`.
pub fn end_process() {
    let print = take_hook();
    set_hook(Box::new(move |panic| {
        print(panic);
        // SAFETY: ends the process; no code of it runs afterwards.
        unsafe { libc::_exit(EXIT_CODE.into()) }
    }));
}

/// Calls `f` with a panic's message before what was set earlier happens.
pub fn before(f: impl Fn(&str) + Send + Sync + 'static) {
    let next = take_hook();
    set_hook(Box::new(move |panic| {
        f(&panic.to_string());
        next(panic);
    }));
}

/// Makes a panic the last event on `channel`.
pub fn report_to(channel: Channel) {
    before(move |message| {
        let report = ExitReport {
            reason: ExitReason::WorkerPanic {
                message: message.to_owned(),
            },
            console_dropped_bytes: 0,
        };
        // Without waiting: a host that does not read must not keep the VM alive.
        let _ = channel.try_send(&Event::Exited(report), &[]);
    });
}
