//! A VM that is made ahead of demand, takes a saved VM's state, waits, and runs.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::WorkerError;
use super::boot::attach_devices;
use super::handed::{ForRestore, ForShell};
use super::serve::Server;
use super::vsock::{VsockLink, attach_saved};
use crate::control::{Channel, Event, ExitReason, Origin, Request, RestoreCosts, ShellSpec};
use crate::snapshot::{SnapshotError, Template, WorkingSet};
use crate::vm::{Shape, Shell, Vm};

/// From the shell request to the VM's end.
///
/// Before it runs there is nothing to serve but the control socket, and one thing to wait for on it.
pub(super) fn serve(
    channel: &Arc<Channel>,
    spec: &ShellSpec,
    descriptors: Vec<OwnedFd>,
) -> Result<ExitReason, WorkerError> {
    let handed = ForShell::sort(spec, descriptors)?;
    let shape = Shape {
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        cpu_baseline: spec.cpu_baseline,
    };
    let mut vm = Vm::reserved(&handed.kvm, shape, handed.console)?;
    let net = spec.tap.as_ref().zip(handed.tap);
    let vsock = attach_devices(&mut vm, net, spec.vsock.as_ref())?;
    drop(handed.kvm);
    let mut shell = Shell::new(vm)?;
    // Everything that serving needs is made before the request that it would delay.
    let handle = shell.handle();
    let server = Server::new(shell.vm_mut(), handle.clone(), channel, vsock.clone())?;
    channel.send(&Event::ShellReady, &[])?;

    let (mut vm, working_set) = match channel.recv::<Request>()? {
        (
            Request::Restore {
                origin,
                working_set,
            },
            descriptors,
        ) => {
            let faults = minor_faults();
            let since = Instant::now();
            let handed = ForRestore::sort(working_set, descriptors)?;
            let (vm, mut costs, working_set) = restore(shell, &origin, handed, vsock.as_ref())?;
            costs.elapsed_us = since.elapsed().as_micros() as u64;
            costs.minor_faults = minor_faults() - faults;
            channel.send(&Event::Restored { costs }, &[])?;
            (vm, working_set)
        }
        (request, _) => return Err(WorkerError::order(&request, "to a shell")),
    };
    match channel.recv::<Request>()?.0 {
        Request::Resume => {}
        request => return Err(WorkerError::order(&request, "before the VM runs")),
    }
    handle.copy_written(&working_set)?;
    handle.resume()?;
    // A handle keeps the vCPUs alive: the server has its own, which goes when the VM ends.
    drop(handle);
    channel.send(&Event::Started, &[])?;
    server.serve(&mut vm)
}

fn restore(
    shell: Shell,
    origin: &Origin,
    handed: ForRestore,
    vsock: Option<&VsockLink>,
) -> Result<(Vm, RestoreCosts, WorkingSet), WorkerError> {
    let handle = shell.handle();
    let template = Template::open(&handed.record, handed.memory)?;
    let (vm, trace) = shell.take(&template, origin)?;
    attach_saved(vsock, handed.stream)?;
    let working_set = match handed.working_set {
        Some(list) => WorkingSet::open(&list).map_err(SnapshotError::from)?,
        None => WorkingSet::default(),
    };
    handle.map_read(&working_set)?;
    let costs = RestoreCosts {
        ioctls: trace.ioctls().into(),
        syscalls: trace.syscalls().into(),
        ..Default::default()
    };
    Ok((vm, costs, working_set))
}

/// Of the whole process, so far.
fn minor_faults() -> u64 {
    // SAFETY: all bytes zero are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `rusage` to where the pointer says.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_minflt as u64
}
