//! How the owner speaks to a device that the event loop works on, and hears from it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What the owner is told, through the callback given to [`super::Vsock::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VsockEvent {
    /// The guest connected to the ready port. Said once in the device's life.
    Ready,
    /// The guest accepted this connect; its stream is live.
    Connected(u64),
    /// The guest refused this connect, or did not answer; its stream is closed. The reason, for people.
    ConnectFailed(u64, String),
}

pub(super) struct ConnectRequest {
    pub id: u64,
    pub port: u32,
    pub stream: OwnedFd,
}

pub(super) struct Shared {
    requests: Mutex<VecDeque<ConnectRequest>>,
    pub event: EventFd,
}

impl Shared {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            requests: Mutex::new(VecDeque::new()),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    pub fn kick(&self) {
        // A full counter means that the event loop is due to come already.
        let _ = self.event.write(1);
    }

    pub fn take(&self) -> VecDeque<ConnectRequest> {
        let _ = self.event.read();
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a connect was asked for that the device has not taken up.
    pub fn has_requests(&self) -> bool {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        !requests.is_empty()
    }

    fn push(&self, request: ConnectRequest) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push_back(request);
        drop(requests);
        self.kick();
    }
}

/// Asks a [`super::Vsock`] for connections, from any thread, without its lock.
#[derive(Clone)]
pub struct VsockHandle {
    pub(super) shared: Arc<Shared>,
}

impl VsockHandle {
    /// Connects `stream`, a connected stream socket, to `port` of the guest: once the guest has
    /// reported ready, and then within 5 seconds. The answer is a [`VsockEvent`] with this `id`.
    pub fn connect(&self, id: u64, port: u32, stream: OwnedFd) {
        self.shared.push(ConnectRequest { id, port, stream });
    }
}
