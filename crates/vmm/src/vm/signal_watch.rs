//! SIGINT, SIGTERM, SIGHUP and SIGQUIT end the VM.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::event_loop::{Subscriber, raw, watch_or_end};
use crate::control::ExitReason;
use crate::exit::ExitSignal;

/// A signalfd for SIGINT, SIGTERM, SIGHUP and SIGQUIT.
pub struct SignalWatch(OwnedFd);

impl SignalWatch {
    /// Blocks the signals in the calling thread and in threads that it starts later. Call it before any other
    /// thread exists.
    pub fn block() -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before use, and all calls read or write it alone.
        let fd = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
                libc::sigaddset(&mut set, signal);
            }
            if libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned the descriptor just now, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// A subscriber that raises `exit` with [`ExitReason::Stopped`] on the first signal.
    pub fn into_subscriber(self, exit: ExitSignal) -> Subscriber {
        Arc::new(Mutex::new(Watch { fd: self.0, exit }))
    }
}

struct Watch {
    fd: OwnedFd,
    exit: ExitSignal,
}

impl MutEventSubscriber for Watch {
    fn init(&mut self, ops: &mut EventOps) {
        watch_or_end(
            ops,
            Events::new_raw(raw(&self.fd), EventSet::IN),
            &self.exit,
        );
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        self.exit.raise(ExitReason::Stopped);
    }
}
