//! The host's side: connects, streams that are ready, and timeouts.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, EpollEvent, EventSet};

use super::connection::{Connection, PendingPacket, Phase};
use super::handle::ConnectRequest;
use super::header::{SHUTDOWN_BOTH, SHUTDOWN_SEND};
use super::{FIRST_PORT, Vsock, VsockEvent};

/// Epoll tokens of the handle's eventfd and the timer. A stream's token is its host port, which has 32 bits.
const REQUESTS: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

impl Vsock {
    pub(super) fn watch_event_and_timer(&self) -> io::Result<()> {
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

    /// Takes the requests of [`super::VsockHandle::connect`].
    pub(super) fn take_requests(&mut self) {
        let requests = self.shared.take();
        self.waiting.extend(requests);
    }

    /// Starts the waiting connects if the guest is ready.
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
            return self.connect_failed(id, &format!("epoll_ctl failed on its stream: {error}"));
        }
        let mut connection = Connection::new(id, local_port, port, Phase::Connecting);
        connection.stream = Some(stream);
        connection.deadline = Some(Instant::now() + self.timeout);
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

    /// Handles every descriptor that is ready, without waiting.
    pub(super) fn poll_streams(&mut self) {
        let mut ready = [EpollEvent::default(); 32];
        loop {
            // After an interrupted or failed epoll_wait the edge stays for the next call.
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
            connection.stop_host_receiving();
        }
        connection.flush();
        self.after_flush(port);
        self.enqueue(port);
    }

    /// Queues a connection for [`Vsock::receive`] if it has a packet for the guest.
    pub(super) fn enqueue(&mut self, port: u32) {
        if let Some(connection) = self.connections.get_mut(&port)
            && !connection.queued
            && connection.pending_packet() != PendingPacket::Nothing
        {
            connection.queued = true;
            self.rx_pending.push_back(port);
        }
    }

    /// Watches for EPOLLOUT while bytes are buffered for the stream; drops a drained connection that has ended.
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
        let writable = !connection.buffer.is_empty();
        if let Some(stream) = &connection.stream
            && writable != connection.watches_writable
        {
            let event = EpollEvent::new(stream_events(writable), u64::from(port));
            // The descriptor is in the epoll set since the connect, so this cannot fail.
            if self
                .epoll
                .ctl(ControlOperation::Modify, stream.as_raw_fd(), event)
                .is_ok()
            {
                connection.watches_writable = writable;
            }
        }
    }

    /// Ends a connection that the guest has forgotten. Its stream closes once the buffered bytes are sent.
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

    /// Ends a connection and queues an RST for the guest.
    pub(super) fn reset_connection(&mut self, port: u32) {
        if let Some(connection) = self.connections.get(&port) {
            self.resets.push_back((port, connection.guest_port));
            self.finish(port);
        }
    }

    /// Closes the stream once the guest has both shutdown flags; only the guest's RST is still awaited.
    pub(super) fn close_if_shut_down(connection: &mut Connection, timeout: Duration) {
        if connection.sent_shutdown == SHUTDOWN_BOTH {
            connection.phase = Phase::Closing;
            connection.stream = None;
            connection.deadline = Some(Instant::now() + timeout);
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
                let reason = format!("the guest did not answer within {:?}", self.timeout);
                self.connect_failed(id, &reason);
            }
            self.reset_connection(port);
        }
    }

    /// Sets the timer to the next deadline, or disarms it.
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
                // A timeout of zero would disarm the timer.
                self.timer.reset(left.max(Duration::from_millis(1)), None)
            }
            None => self.timer.clear(),
        };
        // If timerfd_settime failed, the next event tries again.
        self.timer_set = if done.is_ok() { next } else { None };
    }
}

fn stream_events(writable: bool) -> EventSet {
    let events = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    if writable {
        events | EventSet::OUT
    } else {
        events
    }
}
