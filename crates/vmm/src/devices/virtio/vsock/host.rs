//! The host's side: connects, streams that are ready, and time limits.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, EpollEvent, EventSet};

use super::connection::{Connection, Next, Phase};
use super::handle::ConnectRequest;
use super::header::{SHUTDOWN_BOTH, SHUTDOWN_SEND};
use super::{Vsock, VsockEvent};

/// Host ports start here, away from the well-known ones.
pub const FIRST_PORT: u32 = 1 << 30;
/// How long the guest may take to answer a connect, or the end of a connection.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Tokens of the device's own descriptors; a stream's token is its host port, of 32 bits.
const REQUESTS: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

impl Vsock {
    pub(super) fn watch_own_descriptors(&self) -> io::Result<()> {
        let add = |fd: RawFd, token| {
            let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
            self.epoll
                .ctl(ControlOperation::Add, fd, EpollEvent::new(events, token))
        };
        add(self.shared.event.as_raw_fd(), REQUESTS)?;
        add(self.timer.as_raw_fd(), TIMER)
    }

    pub(super) fn watch_stream(&self, port: u32, stream: &OwnedFd) -> io::Result<()> {
        let event = EpollEvent::new(stream_events(false), u64::from(port));
        self.epoll
            .ctl(ControlOperation::Add, stream.as_raw_fd(), event)
    }

    /// Takes what [`super::VsockHandle::connect`] was asked for.
    pub(super) fn take_requests(&mut self) {
        let requests = self.shared.take();
        self.waiting.extend(requests);
    }

    /// Starts the connects that waited, once the guest is ready.
    pub(super) fn start_waiting(&mut self) {
        while self.ready {
            let Some(request) = self.waiting.pop_front() else {
                break;
            };
            self.start_connect(request);
        }
    }

    fn start_connect(&mut self, request: ConnectRequest) {
        let ConnectRequest { id, port, stream } = request;
        let local_port = self.free_port();
        if let Err(error) = self.watch_stream(local_port, &stream) {
            return self.connect_failed(id, &format!("its stream cannot be watched: {error}"));
        }
        let mut connection = Connection::new(id, local_port, port, Phase::Connecting);
        connection.stream = Some(stream);
        connection.deadline = Some(Instant::now() + self.patience);
        self.connections.insert(local_port, connection);
        self.enqueue(local_port);
    }

    fn free_port(&mut self) -> u32 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.connections.contains_key(&port) && !self.draining.contains_key(&port) {
                return port;
            }
        }
    }

    pub(super) fn connect_failed(&mut self, id: u64, reason: &str) {
        self.shared
            .report(VsockEvent::ConnectFailed(id, reason.to_owned()));
    }

    /// Looks at every descriptor that became ready, without waiting.
    pub(super) fn poll_streams(&mut self) {
        let mut ready = [EpollEvent::default(); 32];
        loop {
            // An interrupted or failed wait found nothing: the edge stays for the next.
            let count = self.epoll.wait(0, &mut ready).unwrap_or(0);
            for event in &ready[..count] {
                match event.data() {
                    REQUESTS => self.take_requests(),
                    TIMER => self.expire(),
                    port => self.stream_ready(port as u32, event.event_set()),
                }
            }
            if count < ready.len() {
                break;
            }
        }
    }

    fn stream_ready(&mut self, port: u32, events: EventSet) {
        let gone = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        let Some(connection) = self
            .connections
            .get_mut(&port)
            .or_else(|| self.draining.get_mut(&port))
        else {
            return;
        };
        if events.intersects(EventSet::IN | EventSet::READ_HANG_UP) || gone {
            connection.readable = true;
        }
        if gone {
            connection.host_stopped_receiving();
        }
        connection.flush();
        self.after_flush(port);
        self.enqueue(port);
    }

    /// Puts a connection in line if it has something for the guest.
    pub(super) fn enqueue(&mut self, port: u32) {
        if let Some(connection) = self.connections.get_mut(&port)
            && !connection.queued
            && connection.next() != Next::Nothing
        {
            connection.queued = true;
            self.line.push_back(port);
        }
    }

    /// Watches for room while there is something to give to the stream; ends what only drained.
    pub(super) fn after_flush(&mut self, port: u32) {
        if self
            .draining
            .get(&port)
            .is_some_and(|connection| connection.buffer.is_empty())
        {
            self.draining.remove(&port);
        }
        let connection = self
            .connections
            .get_mut(&port)
            .or_else(|| self.draining.get_mut(&port));
        let Some(connection) = connection else {
            return;
        };
        let wanted = !connection.buffer.is_empty();
        if let Some(stream) = &connection.stream
            && wanted != connection.watches_room
        {
            let event = EpollEvent::new(stream_events(wanted), u64::from(port));
            // The descriptor is in the set since the connect, so a change cannot fail.
            if self
                .epoll
                .ctl(ControlOperation::Modify, stream.as_raw_fd(), event)
                .is_ok()
            {
                connection.watches_room = wanted;
            }
        }
    }

    /// The connection is over for the guest. Its stream closes, after what is kept for it.
    pub(super) fn finish(&mut self, port: u32) {
        let Some(mut connection) = self.connections.remove(&port) else {
            return;
        };
        if connection.buffer.is_empty() || connection.stream.is_none() {
            return;
        }
        connection.guest_shutdown |= SHUTDOWN_SEND;
        self.draining.insert(port, connection);
        self.after_flush(port);
    }

    /// The connection is over, and the guest is to be told.
    pub(super) fn reset_connection(&mut self, port: u32) {
        if let Some(connection) = self.connections.get(&port) {
            self.resets.push_back((port, connection.guest_port));
            self.finish(port);
        }
    }

    /// The guest knows that the host does nothing more: only its answer is awaited.
    pub(super) fn close_if_both_ends_told(connection: &mut Connection, patience: Duration) {
        if connection.told_shutdown == SHUTDOWN_BOTH {
            connection.phase = Phase::Closing;
            connection.stream = None;
            connection.deadline = Some(Instant::now() + patience);
        }
    }

    fn expire(&mut self) {
        self.timer_set = None;
        let now = Instant::now();
        let late: Vec<_> = self
            .connections
            .values()
            .filter(|connection| connection.deadline.is_some_and(|deadline| deadline <= now))
            .map(|connection| (connection.local_port, connection.id, connection.phase))
            .collect();
        for (port, id, phase) in late {
            if phase == Phase::Connecting {
                let reason = format!("the guest did not answer in {:?}", self.patience);
                self.connect_failed(id, &reason);
            }
            self.reset_connection(port);
        }
    }

    /// Sets the timer to the next deadline, or off.
    pub(super) fn arm_timer(&mut self) {
        let next = self
            .connections
            .values()
            .filter_map(|connection| connection.deadline)
            .min();
        if next == self.timer_set {
            return;
        }
        let done = match next {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Zero would mean "off".
                self.timer.reset(left.max(Duration::from_millis(1)), None)
            }
            None => self.timer.clear(),
        };
        // A timer that could not be set is tried again with the next event.
        self.timer_set = if done.is_ok() { next } else { None };
    }
}

fn stream_events(room: bool) -> EventSet {
    let events = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    if room { events | EventSet::OUT } else { events }
}
