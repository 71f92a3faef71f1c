//! The HTTP/1.1 server: one thread a connection, blocking, everything bounded.
//!
//! - [`connection`]: bytes with deadlines.
//! - [`request`]: one request's head and body.
//! - [`response`]: answers, and the chunked stream of events.
//! - [`api`]: what is answered.

pub mod api;
pub mod connection;
pub mod request;
pub mod response;

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockFlag, accept4};

use self::api::Api;
use self::connection::Connection;

/// Connections served at once; more are closed as they come.
const MAX_CONNECTIONS: usize = 32;

/// Address space for a connection's thread. Only what is touched is memory.
const STACK_BYTES: usize = 512 * 1024;

/// A program that closes its standard input must not end the agent. Without Rust's own `main`
/// nothing has seen to that.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is no handler, so that nothing runs in signal context.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Accept on `listeners`, for ever.
pub fn serve(listeners: &[OwnedFd], api: &Arc<Api>) -> ! {
    let active = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds: Vec<_> = listeners
            .iter()
            .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
            .collect();
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        for (listener, polled) in listeners.iter().zip(&fds) {
            if polled.any() == Some(true) {
                accept(listener, api, &active);
            }
        }
    }
}

fn accept(listener: &OwnedFd, api: &Arc<Api>, active: &Arc<AtomicUsize>) {
    let socket = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
        // SAFETY: the kernel made this descriptor for us just now.
        Ok(socket) => unsafe { OwnedFd::from_raw_fd(socket) },
        Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => {
            // Until a connection ends there is nothing to be had; do not spin.
            std::thread::sleep(std::time::Duration::from_millis(10));
            return;
        }
        Err(_) => return, // It was closed before it was accepted.
    };
    let place = Place::take(active);
    let Some(place) = place else { return };
    let api = Arc::clone(api);
    let serve = move || {
        let _place = place;
        api.serve(Connection::new(socket));
    };
    // A thread that cannot be made closes the connection, as too many of them do.
    let _ = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(serve);
}

/// One of [`MAX_CONNECTIONS`], given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(active: &Arc<AtomicUsize>) -> Option<Place> {
        let place = Place(Arc::clone(active));
        (active.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
