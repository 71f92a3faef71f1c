//! How the owner speaks to a device that the event loop works on, and hears from it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::sync::lock;

/// What the owner is told, by [`VsockHandle::take_events`].
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
    /// For the owner. One `Ready`, and at most one for each connect that the owner asked for.
    events: Mutex<VecDeque<VsockEvent>>,
    reported: EventFd,
}

impl Shared {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            requests: Mutex::new(VecDeque::new()),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            events: Mutex::new(VecDeque::new()),
            reported: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    pub fn report(&self, event: VsockEvent) {
        lock(&self.events).push_back(event);
        // A full counter means that the owner is due to come already.
        let _ = self.reported.write(1);
    }

    pub fn kick(&self) {
        // A full counter means that the event loop is due to come already.
        let _ = self.event.write(1);
    }

    pub fn take(&self) -> VecDeque<ConnectRequest> {
        let _ = self.event.read();
        std::mem::take(&mut *lock(&self.requests))
    }

    /// Whether a connect was asked for that the device has not taken up.
    pub fn has_requests(&self) -> bool {
        !lock(&self.requests).is_empty()
    }

    fn push(&self, request: ConnectRequest) {
        lock(&self.requests).push_back(request);
        self.kick();
    }
}

/// Asks a [`super::Vsock`] for connections, and takes its events, from any thread and without its lock.
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

    /// Readable when there are events to take.
    pub fn events_fd(&self) -> RawFd {
        self.shared.reported.as_raw_fd()
    }

    /// What the device has reported since the last call, in order.
    pub fn take_events(&self) -> VecDeque<VsockEvent> {
        // Emptied first: an event that comes now makes it readable again.
        let _ = self.shared.reported.read();
        std::mem::take(&mut *lock(&self.shared.events))
    }
}
