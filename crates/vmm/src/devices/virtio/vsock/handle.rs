//! Connect requests to the device, and events from it, without the device's lock.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::sync::lock;

/// An event from the device ([`VsockHandle::take_events`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VsockEvent {
    /// The guest connected to the ready port. Reported once in the device's life.
    Ready,
    /// The guest accepted the connect with this id; its stream is open.
    Connected(u64),
    /// The guest refused the connect with this id, or did not answer; its stream is closed. The text is the
    /// reason.
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
    /// For the owner: one `Ready`, and at most one event per connect that the owner requested.
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
        // A full counter means that the owner has a wake-up pending.
        let _ = self.reported.write(1);
    }

    pub fn kick(&self) {
        // A full counter means that the event loop has a wake-up pending.
        let _ = self.event.write(1);
    }

    pub fn take(&self) -> VecDeque<ConnectRequest> {
        let _ = self.event.read();
        std::mem::take(&mut *lock(&self.requests))
    }

    /// True if the device has not yet taken a requested connect.
    pub fn has_requests(&self) -> bool {
        !lock(&self.requests).is_empty()
    }

    fn push(&self, request: ConnectRequest) {
        lock(&self.requests).push_back(request);
        self.kick();
    }
}

/// Requests connects from a [`super::Vsock`] and takes its events, on any thread and without its lock.
#[derive(Clone)]
pub struct VsockHandle {
    pub(super) shared: Arc<Shared>,
}

impl VsockHandle {
    /// Connects `stream`, a connected stream socket, to `port` of the guest. The connect starts when the guest
    /// has reported ready and fails after 5 seconds. The answer is a [`VsockEvent`] with this `id`.
    pub fn connect(&self, id: u64, port: u32, stream: OwnedFd) {
        self.shared.push(ConnectRequest { id, port, stream });
    }

    /// An eventfd that is readable when there are events.
    pub fn events_fd(&self) -> RawFd {
        self.shared.reported.as_raw_fd()
    }

    /// Takes the events since the last call, in order.
    pub fn take_events(&self) -> VecDeque<VsockEvent> {
        // The eventfd is read first: an event from now on makes it readable again.
        let _ = self.shared.reported.read();
        std::mem::take(&mut *lock(&self.shared.events))
    }
}
