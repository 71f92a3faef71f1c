//! The control socket on the event loop, while a VM runs or was saved.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::WorkerError;
use super::vsock::{VsockLink, check_before_save};
use crate::control::{Channel, ChannelError, Event, ExitReason, Origin, Request};
use crate::devices::serial::Serial;
use crate::exit::ExitSignal;
use crate::memory;
use crate::snapshot::SnapshotError;
use crate::vm::{EventLoop, Subscriber, Vm, VmError, VmHandle};

/// What serves a VM to its end.
pub(super) struct Server {
    event_loop: EventLoop,
    channel: Arc<Channel>,
    failure: Failure,
}

/// Why the worker gave up a VM that had not ended.
type Failure = Arc<Mutex<Option<WorkerError>>>;

impl Server {
    /// Of a VM that has its devices and its vCPU threads. `more` is served beside them.
    pub fn new(
        vm: &mut Vm,
        handle: VmHandle,
        channel: &Arc<Channel>,
        vsock: Option<VsockLink>,
        more: Vec<Subscriber>,
    ) -> Result<Self, VmError> {
        let failure = Failure::default();
        let control = Control {
            channel: channel.clone(),
            vm: handle,
            serial: vm.serial(),
            vsock,
            exit: vm.exit_signal(),
            failure: failure.clone(),
        };
        let control: Vec<Subscriber> = vec![Arc::new(Mutex::new(control))];
        Ok(Self {
            event_loop: vm.event_loop([control, more].concat())?,
            channel: channel.clone(),
            failure,
        })
    }

    /// Serves until the VM ends, and tells the host how.
    pub fn serve(self, vm: &mut Vm) -> Result<ExitReason, WorkerError> {
        let report = vm.serve_on(self.event_loop)?;
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure.take() {
            return Err(error);
        }
        let reason = report.reason.clone();
        match self.channel.send(&Event::Exited(report), &[]) {
            Ok(()) | Err(ChannelError::Closed) => Ok(reason),
            Err(error) => Err(error.into()),
        }
    }
}

struct Control {
    channel: Arc<Channel>,
    vm: VmHandle,
    serial: Arc<Mutex<Serial>>,
    vsock: Option<VsockLink>,
    exit: ExitSignal,
    failure: Failure,
}

impl Control {
    fn request(
        &mut self,
        request: Request,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(), WorkerError> {
        match request {
            Request::Connect { id, port } => match (&self.vsock, descriptors.pop()) {
                (Some(vsock), Some(stream)) => vsock.connect(id, port, stream),
                (None, _) => self.refuse(id, "the VM has no vsock device")?,
                (_, None) => self.refuse(id, "the request came without a stream")?,
            },
            Request::ConsoleInput { bytes } => {
                let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
                // What does not fit into the bounded queue is lost, as on a line without flow control.
                serial.input(&bytes);
            }
            Request::Save { origin } if self.vm.is_running() => self.save(&origin)?,
            Request::Resume if !self.vm.is_running() => {
                self.vm.resume()?;
                self.channel.send(&Event::Started, &[])?;
            }
            Request::WorkingSet if self.vm.is_running() => {
                let have = descriptors.len();
                let Some(pagemap) = descriptors.pop() else {
                    return Err(WorkerError::Descriptors { need: 1, have });
                };
                self.working_set(&pagemap.into())?;
            }
            Request::WorkingSet => return Err(WorkerError::order(&request, "once it was saved")),
            Request::Save { .. } => return Err(WorkerError::order(&request, "once it was saved")),
            Request::Resume
            | Request::Prefault
            | Request::Boot(_)
            | Request::Shell(_)
            | Request::Restore { .. } => {
                return Err(WorkerError::order(&request, "while the VM runs"));
            }
        }
        Ok(())
    }

    fn save(&self, origin: &Origin) -> Result<(), WorkerError> {
        self.vm.pause();
        if self.exit.is_raised() {
            // It ended meanwhile, and that is what the host is told.
            return Ok(());
        }
        check_before_save(self.vsock.as_ref())?;
        let saved = self.vm.save(origin)?;
        let bytes = saved.record.encode().map_err(SnapshotError::from)?;
        let record = memory::sealed(&bytes).map_err(SnapshotError::host("keep the record"))?;
        let descriptors: [&File; 2] = [&saved.memory, &record];
        self.channel
            .send(&Event::Saved, &descriptors.map(AsFd::as_fd))?;
        Ok(())
    }

    fn working_set(&self, pagemap: &File) -> Result<(), WorkerError> {
        let set = self.vm.working_set(pagemap)?;
        let bytes = set.encode().map_err(SnapshotError::from)?;
        let list = memory::sealed(&bytes).map_err(SnapshotError::host("keep the list of pages"))?;
        let written_pages = set.written_pages();
        self.channel
            .send(&Event::WorkingSet { written_pages }, &[list.as_fd()])?;
        Ok(())
    }

    fn refuse(&self, id: u64, reason: &str) -> Result<(), ChannelError> {
        let reason = reason.to_owned();
        self.channel.send(&Event::ConnectFailed { id, reason }, &[])
    }

    fn receive_all(&mut self) -> Result<(), WorkerError> {
        while let Some((request, descriptors)) = self.channel.try_recv()? {
            self.request(request, descriptors)?;
        }
        Ok(())
    }
}

impl MutEventSubscriber for Control {
    fn init(&mut self, ops: &mut EventOps) {
        let events = Events::new_raw(crate::vm::raw(&*self.channel), EventSet::IN);
        crate::vm::watch_or_end(ops, events, &self.exit);
    }

    fn process(&mut self, _: Events, _: &mut EventOps) {
        let Err(error) = self.receive_all() else {
            return;
        };
        // Closed, or not to be understood: nobody guides this VM any more. All else is to be told.
        if !matches!(error, WorkerError::Channel(_)) {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        self.exit.raise(ExitReason::Stopped);
    }
}
