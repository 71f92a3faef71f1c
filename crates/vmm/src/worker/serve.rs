//! Serves the control socket on the event loop, while the VM runs or is paused after a save.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::devices::DeviceLinks;
use super::error::WorkerError;
use super::outbox::Outbox;
use super::vsock::{VsockLink, check_before_save};
use crate::control::{
    Channel, ChannelError, Event, ExitReason, MAX_CONSOLE_INPUT, Origin, Request,
};
use crate::devices::serial::Serial;
use crate::devices::virtio::net::Net;
use crate::exit::ExitSignal;
use crate::memory;
use crate::snapshot::SnapshotError;
use crate::sync::lock;
use crate::vm::{Attached, EventLoop, Subscriber, Vm, VmError, VmHandle};

/// The event loop of a VM, with its control socket.
pub(super) struct Server {
    event_loop: EventLoop,
    control: Arc<Mutex<Control>>,
}

impl Server {
    /// Makes the event loop. The VM must have its devices and vCPU threads.
    pub fn new(
        vm: &mut Vm,
        handle: VmHandle,
        channel: &Arc<Channel>,
        links: DeviceLinks,
        pagemap: Option<File>,
    ) -> Result<Self, VmError> {
        let control = Arc::new(Mutex::new(Control {
            channel: channel.clone(),
            outbox: Outbox::new(channel.clone()),
            blocked: false,
            vm: handle,
            serial: vm.serial(),
            vsock: links.vsock,
            net: links.net,
            pagemap,
            exit: vm.exit_signal(),
            failure: None,
        }));
        let first: Vec<Subscriber> = vec![control.clone()];
        Ok(Self {
            event_loop: vm.event_loop(first)?,
            control,
        })
    }

    /// Serves until the VM ends, then sends [`Event::Exited`].
    pub fn serve(self, vm: &mut Vm) -> Result<ExitReason, WorkerError> {
        let report = vm.serve_on(self.event_loop)?;
        let mut control = lock(&self.control);
        control.collect_events();
        if let Some(error) = control.failure.take() {
            // Events from before the error go first; the caller reports the error.
            let _ = control.outbox.flush_and_wait();
            return Err(error);
        }
        let reason = report.reason.clone();
        control.outbox.push(Event::Exited(report), Vec::new());
        match control.outbox.flush_and_wait() {
            Ok(()) | Err(ChannelError::Closed) => Ok(reason),
            Err(error) => Err(error.into()),
        }
    }
}

struct Control {
    channel: Arc<Channel>,
    outbox: Outbox,
    /// The socket is full: it is watched for EPOLLOUT, and no request is read until the outbox is empty.
    blocked: bool,
    vm: VmHandle,
    serial: Arc<Mutex<Serial>>,
    vsock: Option<VsockLink>,
    net: Option<Attached<Net>>,
    /// `/proc/self/pagemap`, which was opened before the jail was closed.
    pagemap: Option<File>,
    exit: ExitSignal,
    /// The error for which the worker ends a VM.
    failure: Option<WorkerError>,
}

/// Epoll tokens.
const SOCKET: u32 = 0;
const VSOCK: u32 = 1;

impl Control {
    fn request(
        &mut self,
        request: Request,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(), WorkerError> {
        match request {
            Request::Connect { id, port } => match (&self.vsock, descriptors.pop()) {
                (Some(vsock), Some(stream)) => vsock.connect(id, port, stream),
                (None, _) => self.refuse(id, "the VM has no vsock device"),
                (_, None) => self.refuse(id, "the request has no stream descriptor"),
            },
            Request::ConsoleInput { bytes } if bytes.len() > MAX_CONSOLE_INPUT => {
                let bytes = bytes.len();
                return Err(WorkerError::ConsoleInput { bytes });
            }
            Request::ConsoleInput { bytes } => {
                // Input beyond the queue is dropped, as on a serial line without flow control.
                lock(&self.serial).input(&bytes);
            }
            Request::Save { origin } if self.vm.is_running() => self.save(&origin)?,
            Request::Resume if !self.vm.is_running() => {
                self.vm.resume()?;
                self.outbox.push(Event::Started, Vec::new());
            }
            Request::WorkingSet if self.vm.is_running() => self.working_set()?,
            Request::Denied => {
                let denied = self.net.as_ref().map(|net| lock(net).device().denied());
                let event = Event::Denied(denied.unwrap_or_default());
                self.outbox.push(event, Vec::new());
            }
            Request::WorkingSet => return Err(WorkerError::order(&request, "after a save")),
            Request::Save { .. } => return Err(WorkerError::order(&request, "after a save")),
            Request::Resume | Request::Boot(_) | Request::Blank(_) | Request::Restore { .. } => {
                return Err(WorkerError::order(&request, "while the VM runs"));
            }
        }
        Ok(())
    }

    fn save(&mut self, origin: &Origin) -> Result<(), WorkerError> {
        self.vm.pause();
        if self.exit.is_raised() {
            // The VM ended before it was paused: the host gets `Exited` instead of `Saved`.
            return Ok(());
        }
        check_before_save(self.vsock.as_ref())?;
        let saved = self.vm.save(origin)?;
        let bytes = saved.vm_state.encode().map_err(SnapshotError::from)?;
        let state =
            memory::sealed(&bytes).map_err(SnapshotError::host("write the VM state to a memfd"))?;
        self.outbox.push(Event::Saved, vec![saved.memory, state]);
        Ok(())
    }

    fn working_set(&mut self) -> Result<(), WorkerError> {
        let pagemap = self.pagemap.as_ref().ok_or(WorkerError::NoPagemap)?;
        let set = self.vm.working_set(pagemap)?;
        let bytes = set.encode().map_err(SnapshotError::from)?;
        let list = memory::sealed(&bytes)
            .map_err(SnapshotError::host("write the working set to a memfd"))?;
        let event = Event::WorkingSet {
            written_pages: set.written_pages(),
            read_pages: set.read_pages(),
        };
        self.outbox.push(event, vec![list]);
        Ok(())
    }

    fn refuse(&mut self, id: u64, reason: &str) {
        let reason = reason.to_owned();
        self.outbox
            .push(Event::ConnectFailed { id, reason }, Vec::new());
    }

    /// Moves the events of the devices to the outbox.
    fn collect_events(&mut self) {
        if let Some(vsock) = &self.vsock {
            for event in vsock.take_events() {
                self.outbox.push(event, Vec::new());
            }
        }
    }

    /// Sends events and serves requests until the socket is full or has no request. If the host does not read its
    /// events, its own requests wait; the devices do not.
    fn exchange(&mut self) -> Result<(), WorkerError> {
        loop {
            self.collect_events();
            self.blocked = !self.outbox.flush()?;
            if self.blocked {
                return Ok(());
            }
            match self.channel.try_recv()? {
                Some((request, descriptors)) => self.request(request, descriptors)?,
                None => return Ok(()),
            }
        }
    }

    fn socket_events(&self) -> Events {
        let events = if self.blocked {
            EventSet::OUT
        } else {
            EventSet::IN
        };
        Events::with_data_raw(crate::vm::raw(&*self.channel), SOCKET, events)
    }

    /// [`Control::exchange`], and then watches the socket for EPOLLIN or EPOLLOUT.
    fn serve_socket(&mut self, ops: &mut EventOps) -> Result<(), WorkerError> {
        let was_blocked = self.blocked;
        self.exchange()?;
        if self.blocked != was_blocked {
            ops.modify(self.socket_events())
                .map_err(VmError::EventLoop)?;
        }
        Ok(())
    }
}

impl MutEventSubscriber for Control {
    fn init(&mut self, ops: &mut EventOps) {
        crate::vm::watch_or_end(ops, self.socket_events(), &self.exit);
        if let Some(vsock) = &self.vsock {
            let events = Events::with_data_raw(vsock.events_fd(), VSOCK, EventSet::IN);
            crate::vm::watch_or_end(ops, events, &self.exit);
        }
    }

    fn process(&mut self, _: Events, ops: &mut EventOps) {
        let Err(error) = self.serve_socket(ops) else {
            return;
        };
        // A closed or malformed control channel ends the VM without a report, which no host could read.
        if !matches!(error, WorkerError::Channel(_)) {
            self.failure = Some(error);
        }
        self.exit.raise(ExitReason::Stopped);
    }
}
