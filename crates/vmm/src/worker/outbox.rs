//! Events that wait for space in the control socket.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::control::{Channel, ChannelError, Event};

/// Events that are not sent yet, in order.
pub(super) struct Outbox {
    channel: Arc<Channel>,
    events: VecDeque<(Event, Vec<File>)>,
}

impl Outbox {
    /// An empty outbox for `channel`.
    pub fn new(channel: Arc<Channel>) -> Self {
        Self {
            channel,
            events: VecDeque::new(),
        }
    }

    /// Adds an event and the files to send with it.
    pub fn push(&mut self, event: Event, files: Vec<File>) {
        self.events.push_back((event, files));
    }

    /// Sends events until the socket is full. Returns false if events are left.
    pub fn flush(&mut self) -> Result<bool, ChannelError> {
        while let Some((event, files)) = self.events.front() {
            let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            match self.channel.try_send(event, &descriptors) {
                Err(ChannelError::Full) => return Ok(false),
                sent => sent?,
            }
            self.events.pop_front();
        }
        Ok(true)
    }

    /// Sends every event, blocking while the socket is full.
    pub fn flush_and_wait(&mut self) -> Result<(), ChannelError> {
        for (event, files) in self.events.drain(..) {
            let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            self.channel.send(&event, &descriptors)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An outbox with more events than its socket holds, and their number.
    fn overfull() -> (Outbox, Channel, u64) {
        let (host, worker) = Channel::pair().unwrap();
        let mut outbox = Outbox::new(Arc::new(worker));
        let mut count = 0;
        loop {
            outbox.push(Event::Connected { id: count }, Vec::new());
            count += 1;
            if !outbox.flush().unwrap() {
                return (outbox, host, count);
            }
        }
    }

    #[test]
    fn a_full_socket_neither_blocks_nor_loses_an_event() {
        let (mut outbox, host, count) = overfull();
        for id in 0..count {
            let (event, _) = host.recv::<Event>().unwrap();
            assert_eq!(event, Event::Connected { id });
            outbox.flush().unwrap();
        }
        assert!(outbox.flush().unwrap());
        assert!(host.try_recv::<Event>().unwrap().is_none());
    }

    #[test]
    fn files_arrive_with_their_event() {
        let (host, worker) = Channel::pair().unwrap();
        let mut outbox = Outbox::new(Arc::new(worker));
        let null = || File::open("/dev/null").unwrap();
        outbox.push(Event::Started, Vec::new());
        outbox.push(Event::Saved, vec![null(), null()]);

        outbox.flush_and_wait().unwrap();

        assert_eq!(host.recv::<Event>().unwrap().1.len(), 0);
        assert_eq!(host.recv::<Event>().unwrap().1.len(), 2);
    }

    #[test]
    fn a_closed_socket_is_an_error() {
        let (mut outbox, host, _) = overfull();
        drop(host);
        assert!(matches!(outbox.flush(), Err(ChannelError::Closed)));
    }
}
