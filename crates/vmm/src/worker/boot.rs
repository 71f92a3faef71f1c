//! A VM that boots a kernel.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::descriptors::BootFds;
use super::devices::attach_devices;
use super::error::WorkerError;
use super::limits;
use super::serve::Server;
use crate::control::{BootSpec, Channel, Event, ExitReason};
use crate::jail;
use crate::vm::{MachineShape, Vm, VmError};

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
