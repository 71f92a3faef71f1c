//! A VM that boots.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::WorkerError;
use super::handed::ForBoot;
use super::serve::Server;
use super::vsock::{VsockLink, attach_vsock};
use crate::control::{BootSpec, Channel, Event, ExitReason, TapSpec, VsockSpec};
use crate::devices::virtio::net::{Net, NetConfig};
use crate::devices::virtio::rng::Rng;
use crate::vm::{Shape, Vm, VmError};

pub(super) fn boot_and_serve(
    channel: &Arc<Channel>,
    spec: &BootSpec,
    descriptors: Vec<OwnedFd>,
) -> Result<ExitReason, WorkerError> {
    let handed = ForBoot::sort(spec, descriptors)?;
    let shape = Shape {
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        cpu_baseline: spec.cpu_baseline,
    };
    let mut vm = Vm::new(&handed.kvm, shape, handed.console)?;
    let net = spec.tap.as_ref().zip(handed.tap);
    let vsock = attach_devices(&mut vm, net, spec.vsock.as_ref())?;
    vm.load(&handed.kernel, &handed.initramfs, &spec.cmdline)?;
    drop((handed.kernel, handed.initramfs, handed.kvm));
    vm.start()?;
    channel.send(&Event::Started, &[])?;
    let handle = vm.handle().ok_or(VmError::Started)?;
    let server = Server::new(&mut vm, handle, channel, vsock)?;
    server.serve(&mut vm)
}

/// The devices of every VM, in the one order that a snapshot's key knows them by.
pub(super) fn attach_devices(
    vm: &mut Vm,
    net: Option<(&TapSpec, OwnedFd)>,
    vsock: Option<&VsockSpec>,
) -> Result<Option<VsockLink>, WorkerError> {
    vm.attach_virtio(Rng)?;
    if let Some((tap, fd)) = net {
        let config = NetConfig {
            mac: tap.mac,
            mtu: tap.mtu,
        };
        vm.attach_virtio(Net::new(fd, config)?)?;
    }
    vsock.map(|spec| attach_vsock(vm, spec)).transpose()
}
