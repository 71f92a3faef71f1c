//! Signals that ask the process to end, as the end of its VM.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::Subscriber;
use super::event_loop::{raw, watch_or_end};
use crate::control::ExitReason;
use crate::exit::ExitSignal;

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT, to be read from a descriptor.
pub struct SignalWatch(OwnedFd);

impl SignalWatch {
    /// Keeps the signals from the calling thread and those that it starts: call it before any other
    /// thread runs.
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
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// For the event loop: a signal raises `exit`.
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
