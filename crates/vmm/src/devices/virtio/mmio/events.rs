//! The transport's eventfds and the device's descriptors on the event loop.

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::{MmioTransport, VirtioDevice};

/// The first token of the device's watches; the tokens of the queues' eventfds start at 0.
const WATCH_TOKEN: u32 = 0x100;

impl<D: VirtioDevice> MutEventSubscriber for MmioTransport<D> {
    fn init(&mut self, ops: &mut EventOps) {
        let queues = self.rings.notify_eventfds().iter().zip(0..);
        let queues: Vec<_> = queues
            .map(|(event, token)| Events::with_data(event, token, EventSet::IN))
            .collect();
        let watches = self
            .device
            .watches()
            .into_iter()
            .zip(WATCH_TOKEN..)
            .map(|(watch, token)| {
                Events::with_data_raw(watch.fd, token, watch.events | EventSet::EDGE_TRIGGERED)
            });
        for events in queues.into_iter().chain(watches) {
            if let Err(error) = ops.add(events) {
                self.needs_reset(format_args!("epoll_ctl failed: {error}"));
            }
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        match events.data().checked_sub(WATCH_TOKEN) {
            None => self.queue_event(events.data() as usize),
            Some(watch) => self.watch_event(watch as usize, events.event_set()),
        }
    }
}

impl<D: VirtioDevice> MmioTransport<D> {
    fn queue_event(&mut self, queue: usize) {
        let Some(event) = self.rings.notify_eventfds().get(queue) else {
            return;
        };
        // The counter may already be empty after a reset: the queue is processed anyway.
        let _ = event.read();
        if self.active() && !self.paused {
            let result = self.device.queue_ready(&mut self.rings, queue);
            self.handle_result(result);
        }
    }

    fn watch_event(&mut self, watch: usize, events: EventSet) {
        if self.paused {
            return;
        }
        let rings = self.active().then_some(());
        let result = self
            .device
            .fd_ready(rings.map(|()| &mut self.rings), watch, events);
        self.handle_result(result);
    }
}
