//! A VM that boots a kernel.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::descriptors::BootFds;
use super::error::WorkerError;
use super::limits;
use super::serve::Server;
use super::vsock::{VsockLink, attach_vsock};
use crate::control::{BootSpec, Channel, Event, ExitReason, TapSpec, VsockSpec};
use crate::devices::virtio::net::{Net, NetConfig, NetError};
use crate::devices::virtio::rng::Rng;
use crate::jail;
use crate::vm::{Attached, MachineShape, Vm, VmError};

/// Boots a VM and serves it until it ends.
pub(super) fn serve(
    channel: &Arc<Channel>,
    spec: &BootSpec,
    descriptors: Vec<OwnedFd>,
    pagemap: Option<File>,
) -> Result<ExitReason, WorkerError> {
    limits::of_vm(spec.memory_mib)?;
    let fds = BootFds::sort(spec, descriptors)?;
    let shape = MachineShape {
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        cpu_baseline: spec.cpu_baseline,
    };
    let mut vm = Vm::new(&fds.kvm, shape, fds.console)?;
    let net = spec.tap.as_ref().zip(fds.tap);
    let links = attach_devices(&mut vm, net, spec.vsock.as_ref())?;
    vm.load(&fds.kernel, &fds.initramfs, &spec.cmdline)?;
    drop((fds.kernel, fds.initramfs, fds.kvm));
    vm.start()?;
    channel.send(&Event::Started, &[])?;
    let handle = vm.handle().ok_or(VmError::Started)?;
    let server = Server::new(&mut vm, handle, channel, links, pagemap)?;
    jail::narrow_event_loop().map_err(WorkerError::Jail)?;
    server.serve(&mut vm)
}

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
