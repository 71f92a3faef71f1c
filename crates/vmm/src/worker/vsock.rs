//! The worker's use of the vsock device: connects, events, and the connection in a snapshot.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::MutexGuard;

use super::error::WorkerError;
use crate::control::{Event, VsockSpec};
use crate::devices::virtio::MmioTransport;
use crate::devices::virtio::vsock::{ConnectionInfo, Vsock, VsockConfig, VsockEvent, VsockHandle};
use crate::sync::lock;
use crate::vm::{Attached, Vm};

/// The vsock device, as the control socket's handler uses it.
#[derive(Clone)]
pub(super) struct VsockLink {
    handle: VsockHandle,
    device: Attached<Vsock>,
}

impl VsockLink {
    /// Starts a connect. Its result is an event of [`VsockLink::take_events`].
    pub fn connect(&self, id: u64, port: u32, stream: OwnedFd) {
        self.handle.connect(id, port, stream);
    }

    /// An eventfd that is readable when there are events.
    pub fn events_fd(&self) -> RawFd {
        self.handle.events_fd()
    }

    /// Takes the device's events since the last call, as messages for the host.
    pub fn take_events(&self) -> impl Iterator<Item = Event> {
        self.handle
            .take_events()
            .into_iter()
            .map(|event| match event {
                VsockEvent::Ready => Event::Ready,
                VsockEvent::Connected(id) => Event::Connected { id },
                VsockEvent::ConnectFailed(id, reason) => Event::ConnectFailed { id, reason },
            })
    }

    fn device(&self) -> MutexGuard<'_, MmioTransport<Vsock>> {
        lock(&self.device)
    }

    fn open_connections(&self) -> Vec<ConnectionInfo> {
        let mut connections = self.device().device().connections();
        connections.retain(|connection| connection.open);
        connections
    }
}

/// Checks that a snapshot can hold the connections: at most one, with no bytes outside guest memory.
pub(super) fn check_before_save(vsock: Option<&VsockLink>) -> Result<(), WorkerError> {
    let Some(vsock) = vsock else {
        return Ok(());
    };
    if let Some(why) = vsock.device().device().busy() {
        return Err(WorkerError::Connection(why.to_owned()));
    }
    match vsock.open_connections().len() {
        0 | 1 => Ok(()),
        count => Err(WorkerError::Connection(format!(
            "{count} connections are open; a snapshot holds at most one"
        ))),
    }
}

/// Attaches the stream of the request to the connection of a restored VM.
pub(super) fn attach_saved(
    vsock: Option<&VsockLink>,
    stream: Option<OwnedFd>,
) -> Result<(), WorkerError> {
    let open = vsock.map_or_else(Vec::new, VsockLink::open_connections);
    match (vsock, open.as_slice(), stream) {
        (_, [], None) => Ok(()),
        (Some(vsock), [connection], Some(stream)) => {
            let port = connection.local_port;
            let attached = vsock.device().device_mut().attach(port, stream);
            attached.map_err(|error| WorkerError::Connection(error.to_string()))
        }
        (_, open, stream) => Err(WorkerError::Connection(format!(
            "the snapshot has {} open connections, and the request has {}",
            open.len(),
            if stream.is_some() {
                "one stream descriptor"
            } else {
                "no stream descriptor"
            },
        ))),
    }
}

pub(super) fn attach_vsock(vm: &mut Vm, spec: &VsockSpec) -> Result<VsockLink, WorkerError> {
    let config = VsockConfig {
        guest_cid: spec.guest_cid,
        ready_port: spec.ready_port,
    };
    let device = Vsock::new(config).map_err(WorkerError::Vsock)?;
    let handle = device.handle();
    let device = vm.attach_virtio(device)?;
    Ok(VsockLink { handle, device })
}
