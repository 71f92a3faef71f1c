//! The HTTP/1.1 server: blocking, one thread per connection, everything bounded.
//!
//! - [`connection`]: bytes with deadlines.
//! - [`request`]: head and body of one request.
//! - [`body`]: its bounds.
//! - [`response`]: JSON answers, and the chunked stream of events.
//! - [`api`]: the endpoints.

pub mod api;
pub mod body;
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

/// Connections at once. Further ones are closed when they arrive.
const MAX_CONNECTIONS: usize = 32;

/// Stack of a connection's thread, in bytes of address space.
const STACK_BYTES: usize = 512 * 1024;

/// Ignores SIGPIPE, which a program that closes its standard input would cause. Rust's `main` does this, and the
/// agent has a C `main`.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN runs no code in signal context.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Accepts connections of all listeners, for ever.
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
            // accept4 fails until a connection ends: do not spin.
            std::thread::sleep(std::time::Duration::from_millis(10));
            return;
        }
        Err(_) => return, // Closed before it was accepted.
    };
    let Some(slot) = ConnectionSlot::take(active) else {
        return;
    };
    let api = Arc::clone(api);
    let serve = move || {
        let _slot = slot;
        api.serve(Connection::new(socket));
    };
    // If the thread cannot be made, the closure is dropped and the connection closes.
    let _ = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(serve);
}

/// One of [`MAX_CONNECTIONS`], returned when dropped.
struct ConnectionSlot(Arc<AtomicUsize>);

impl ConnectionSlot {
    fn take(active: &Arc<AtomicUsize>) -> Option<ConnectionSlot> {
        let slot = ConnectionSlot(Arc::clone(active));
        (active.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS).then_some(slot)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
