//! What the worker does with the vsock device: passes connects on, and its answers back.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::WorkerError;
use crate::control::{Channel, ChannelError, Event, VsockSpec};
use crate::devices::virtio::vsock::{Vsock, VsockConfig, VsockEvent, VsockHandle};
use crate::vm::Vm;

/// The device, as the control socket's side sees it.
pub(super) struct VsockLink(VsockHandle);

impl VsockLink {
    /// The answer comes through the channel.
    pub fn connect(&self, id: u64, port: u32, stream: OwnedFd) -> Result<(), ChannelError> {
        self.0.connect(id, port, stream);
        Ok(())
    }
}

pub(super) fn attach_vsock(
    vm: &mut Vm,
    spec: &VsockSpec,
    channel: &Arc<Channel>,
) -> Result<VsockLink, WorkerError> {
    let config = VsockConfig {
        guest_cid: spec.guest_cid,
        ready_port: spec.ready_port,
    };
    let (channel, exit) = (channel.clone(), vm.exit_signal());
    let tell = move |event: VsockEvent| {
        let event = match event {
            VsockEvent::Ready => Event::Ready,
            VsockEvent::Connected(id) => Event::Connected { id },
            VsockEvent::ConnectFailed(id, reason) => Event::ConnectFailed { id, reason },
        };
        if channel.send(&event, &[]).is_err() {
            exit.raise(crate::control::ExitReason::Stopped);
        }
    };
    let device = Vsock::new(config, tell).map_err(WorkerError::Vsock)?;
    let handle = device.handle();
    vm.attach_virtio(device)?;
    Ok(VsockLink(handle))
}
