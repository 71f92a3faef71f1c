//! The virtio devices of a worker's VM.

use std::os::fd::OwnedFd;

use super::error::WorkerError;
use super::vsock::{VsockLink, attach_vsock};
use crate::control::{TapSpec, VsockSpec};
use crate::devices::virtio::net::{Net, NetConfig, NetError};
use crate::devices::virtio::rng::Rng;
use crate::vm::{Attached, Vm};

/// The devices that requests of the host concern.
#[derive(Clone)]
pub(super) struct DeviceLinks {
    pub vsock: Option<VsockLink>,
    pub net: Option<Attached<Net>>,
}

/// Attaches the virtio devices. Booted and blank VMs need the same order: it decides MMIO windows and GSIs, and is
/// part of a snapshot's key.
pub(super) fn attach_devices(
    vm: &mut Vm,
    net: Option<(&TapSpec, OwnedFd)>,
    vsock: Option<&VsockSpec>,
) -> Result<DeviceLinks, WorkerError> {
    vm.attach_virtio(Rng)?;
    let net = match net {
        Some((tap, fd)) => Some(vm.attach_virtio(net_device(tap, fd)?)?),
        None => None,
    };
    let vsock = vsock.map(|spec| attach_vsock(vm, spec)).transpose()?;
    Ok(DeviceLinks { vsock, net })
}

fn net_device(tap: &TapSpec, fd: OwnedFd) -> Result<Net, NetError> {
    let config = NetConfig {
        mac: tap.mac,
        mtu: tap.mtu,
    };
    Net::new(fd, config)?
        .with_egress(tap.egress.clone())
        .with_limits(&tap.limits)
}
