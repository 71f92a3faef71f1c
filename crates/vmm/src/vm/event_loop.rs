//! The one thread that serves the devices' descriptors.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

use super::error::VmError;
use crate::exit::ExitSignal;

/// Ready descriptors that one epoll_wait may return. A VM has about twenty descriptors at most.
const READY_CAPACITY: usize = 32;

/// A handler that the event loop calls when one of its descriptors is ready.
pub type Subscriber = Arc<Mutex<dyn MutEventSubscriber + Send>>;

/// Waits (epoll) for the descriptors of a VM's devices and of its owner.
pub struct EventLoop {
    manager: EventManager<Subscriber>,
    exit: ExitSignal,
}

impl EventLoop {
    /// Serves `subscribers` until `exit` is raised.
    pub(super) fn new(subscribers: Vec<Subscriber>, exit: ExitSignal) -> Result<Self, VmError> {
        let mut manager = EventManager::<Subscriber>::new_with_capacity(READY_CAPACITY)
            .map_err(VmError::EventLoop)?;
        manager.add_subscriber(Arc::new(Mutex::new(WakeOnExit(exit.clone()))));
        for subscriber in subscribers {
            manager.add_subscriber(subscriber);
        }
        Ok(Self { manager, exit })
    }

    /// Serves until the VM ends.
    pub(super) fn run(&mut self) -> Result<(), VmError> {
        while !self.exit.is_raised() {
            self.manager.run().map_err(VmError::EventLoop)?;
        }
        Ok(())
    }
}

/// Wakes the loop when the exit signal is raised; the loop's condition then ends it.
struct WakeOnExit(ExitSignal);

impl MutEventSubscriber for WakeOnExit {
    fn init(&mut self, ops: &mut EventOps) {
        watch_or_end(ops, Events::new(&self.0, EventSet::IN), &self.0);
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {}
}

/// Adds a descriptor to the loop, or ends the VM if that fails: the descriptor would never be served.
pub(crate) fn watch_or_end(ops: &mut EventOps, events: Events, exit: &ExitSignal) {
    let fd = events.fd();
    if let Err(error) = ops.add(events) {
        exit.raise(crate::control::ExitReason::Unhandled {
            exit: format!("epoll_ctl failed on descriptor {fd}: {error}"),
        });
    }
}

/// The number of a descriptor, for [`Events`].
pub(crate) fn raw(fd: &impl std::os::fd::AsFd) -> std::os::fd::RawFd {
    fd.as_fd().as_raw_fd()
}
