//! `cloude-vmm worker`: a VM for whoever holds the other end of the control socket.

use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use kvm_ioctls::Kvm;

use crate::control::{BootSpec, Channel, ChannelError, Event, ExitReason, Request};
use crate::devices::serial::Serial;
use crate::devices::virtio::net::{Net, NetConfig, NetError};
use crate::devices::virtio::rng::Rng;
use crate::exit::ExitSignal;
use crate::vm::{Shape, Vm, VmError};

mod vsock;

use vsock::{VsockLink, attach_vsock};

/// A worker that cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The VM cannot be made or run.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The TAP that was handed over cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The host has no descriptors left for the vsock device.
    #[error("the vsock device cannot be made: {0}")]
    Vsock(std::io::Error),
    /// The control socket failed or spoke nonsense.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The first message has to be [`Request::Boot`].
    #[error("the first request was not to boot")]
    NotBoot,
    /// The boot request names other descriptors than came with it.
    #[error("the boot request needs {need} descriptors and came with {have}")]
    Descriptors {
        /// What it names.
        need: usize,
        /// What came.
        have: usize,
    },
}

/// Serves one VM over `channel` to its end. Gives an error only after it was reported there too.
///
/// The caller ends the process afterwards: the VM's memory goes with it.
pub fn run(channel: Channel) -> Result<ExitReason, WorkerError> {
    let channel = Arc::new(channel);
    match boot_and_serve(&channel) {
        Ok(reason) => Ok(reason),
        Err(WorkerError::Channel(ChannelError::Closed)) => Ok(ExitReason::Stopped),
        Err(error) => {
            let message = error.to_string();
            // The other end may be gone; there is nobody else to tell.
            let _ = channel.send(&Event::Failed { message }, &[]);
            Err(error)
        }
    }
}

fn boot_and_serve(channel: &Arc<Channel>) -> Result<ExitReason, WorkerError> {
    let (request, descriptors) = channel.recv::<Request>()?;
    let Request::Boot(spec) = request else {
        return Err(WorkerError::NotBoot);
    };
    let handed = Handed::sort(&spec, descriptors)?;
    let mut vm = Vm::new(&handed.kvm, Shape::from(&spec), handed.console)?;
    vm.attach_virtio(Rng::new())?;
    if let (Some(tap), Some(fd)) = (&spec.tap, handed.tap) {
        let config = NetConfig {
            mac: tap.mac,
            mtu: tap.mtu,
        };
        vm.attach_virtio(Net::new(fd, config)?)?;
    }
    let vsock = match &spec.vsock {
        Some(spec) => Some(attach_vsock(&mut vm, spec, channel)?),
        None => None,
    };
    vm.load(&handed.kernel, &handed.initramfs, &spec.cmdline)?;
    drop((handed.kernel, handed.initramfs, handed.kvm));
    vm.start()?;
    channel.send(&Event::Started, &[])?;
    let control = Control {
        channel: channel.clone(),
        serial: vm.serial(),
        vsock,
        exit: vm.exit_signal(),
    };
    let report = vm.serve(vec![Arc::new(Mutex::new(control))])?;
    let reason = report.reason.clone();
    match channel.send(&Event::Exited(report), &[]) {
        Ok(()) | Err(ChannelError::Closed) => Ok(reason),
        Err(error) => Err(error.into()),
    }
}

impl From<&BootSpec> for Shape {
    fn from(spec: &BootSpec) -> Self {
        Self {
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
        }
    }
}

/// The descriptors of a boot request, by what they are.
struct Handed {
    kvm: Kvm,
    kernel: File,
    initramfs: Vec<File>,
    tap: Option<OwnedFd>,
    console: Option<OwnedFd>,
}

impl Handed {
    fn sort(spec: &BootSpec, descriptors: Vec<OwnedFd>) -> Result<Self, WorkerError> {
        let have = descriptors.len();
        let optional = usize::from(spec.tap.is_some()) + usize::from(spec.console);
        let need = spec.initramfs_segments.saturating_add(2 + optional);
        if have != need {
            return Err(WorkerError::Descriptors { need, have });
        }
        let mut rest = descriptors.into_iter();
        let missing = || WorkerError::Descriptors { need, have };
        let kvm = rest.next().ok_or_else(missing)?;
        Ok(Self {
            // SAFETY: the descriptor is owned and given away. One that is not /dev/kvm answers its
            // first request with an error.
            kvm: unsafe { Kvm::from_raw_fd(kvm.into_raw_fd()) },
            kernel: rest.next().ok_or_else(missing)?.into(),
            initramfs: rest
                .by_ref()
                .take(spec.initramfs_segments)
                .map(File::from)
                .collect(),
            tap: spec.tap.as_ref().and_then(|_| rest.next()),
            console: rest.next(),
        })
    }
}

/// The control socket on the event loop.
struct Control {
    channel: Arc<Channel>,
    serial: Arc<Mutex<Serial>>,
    vsock: Option<VsockLink>,
    exit: ExitSignal,
}

impl Control {
    fn request(
        &mut self,
        request: Request,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        match request {
            Request::Boot(_)
            | Request::Shell(_)
            | Request::Save { .. }
            | Request::Restore { .. }
            | Request::Resume => {
                let message = "the VM was booted already".to_owned();
                self.channel.send(&Event::Failed { message }, &[])
            }
            Request::Connect { id, port } => match (&self.vsock, descriptors.pop()) {
                (Some(vsock), Some(stream)) => vsock.connect(id, port, stream),
                (None, _) => self.refuse(id, "the VM has no vsock device"),
                (_, None) => self.refuse(id, "the request came without a stream"),
            },
            Request::ConsoleInput { bytes } => {
                let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
                // What does not fit into the bounded queue is lost, as on a line without flow control.
                serial.input(&bytes);
                Ok(())
            }
        }
    }

    fn refuse(&self, id: u64, reason: &str) -> Result<(), ChannelError> {
        let reason = reason.to_owned();
        self.channel.send(&Event::ConnectFailed { id, reason }, &[])
    }

    fn receive_all(&mut self) -> Result<(), ChannelError> {
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
        // Closed, or not to be understood: either way nobody guides this VM any more.
        if self.receive_all().is_err() {
            self.exit.raise(ExitReason::Stopped);
        }
    }
}
