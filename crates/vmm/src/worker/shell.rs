//! A VM that is made ahead of demand, takes a saved VM's state, waits, and runs.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::WorkerError;
use super::boot::attach_devices;
use super::handed::{ForRestore, ForShell};
use super::serve::Server;
use super::unused::Unused;
use super::vsock::{VsockLink, attach_saved};
use crate::control::{Channel, Event, ExitReason, Origin, Request, RestoreCosts, ShellSpec};
use crate::snapshot::{SnapshotError, Template, WorkingSet};
use crate::vm::{Shape, Shell, Subscriber, Vm, VmError};

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
    // All that serving needs is ready before the request that it would delay.
    let handle = shell.handle();
    let unused =
        Unused::new(shell.vm_mut().exit_signal()).map_err(VmError::host("make a timer"))?;
    let unused = Arc::new(Mutex::new(unused));
    let more: Vec<Subscriber> = vec![unused.clone()];
    let server = Server::new(shell.vm_mut(), handle.clone(), channel, vsock.clone(), more)?;
    channel.send(&Event::ShellReady, &[])?;

    let mut touched_later;
    let (mut vm, template, pages) = match channel.recv::<Request>()? {
        (Request::Restore { origin, copy_ahead }, descriptors) => {
            let faults = minor_faults();
            let since = Instant::now();
            let asked = (&origin, copy_ahead);
            let (vm, mut costs, template, (all, rest)) =
                restore(shell, asked, descriptors, vsock.as_ref())?;
            touched_later = rest;
            costs.elapsed_us = since.elapsed().as_micros() as u64;
            costs.minor_faults = minor_faults() - faults;
            channel.send(&Event::Restored { costs }, &[])?;
            (vm, template, all)
        }
        (request, _) => return Err(WorkerError::order(&request, "to a shell")),
    };
    loop {
        let request = channel.recv::<Request>()?.0;
        if !matches!(request, Request::Prefault | Request::Resume) {
            return Err(WorkerError::order(&request, "before the VM runs"));
        }
        // All at once it takes a fraction of what the guest would lose at each of these pages.
        handle.replay(&std::mem::take(&mut touched_later))?;
        if request == Request::Resume {
            break;
        }
    }
    handle.resume()?;
    unused
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .arm(handle, template, pages)
        .map_err(VmError::host("set a timer"))?;
    channel.send(&Event::Started, &[])?;
    server.serve(&mut vm)
}

fn restore(
    shell: Shell,
    (origin, copy_ahead): (&Origin, Option<u64>),
    descriptors: Vec<OwnedFd>,
    vsock: Option<&VsockLink>,
) -> Result<(Vm, RestoreCosts, Template, (WorkingSet, WorkingSet)), WorkerError> {
    let handed = ForRestore::sort(copy_ahead.is_some(), descriptors)?;
    let handle = shell.handle();
    let template = Template::open(&handed.record, handed.memory)?;
    let (vm, trace) = shell.take(&template, origin)?;
    attach_saved(vsock, handed.stream)?;
    let (all, limit) = match (handed.working_set, copy_ahead) {
        (Some(list), Some(limit)) => (WorkingSet::open(&list).map_err(SnapshotError::from)?, limit),
        _ => Default::default(),
    };
    let (now, later) = all.clone().split(limit);
    handle.replay(&now)?;
    let costs = RestoreCosts {
        copied_pages: now.written_pages(),
        ioctls: trace.ioctls().into(),
        syscalls: trace.syscalls().into(),
        ..Default::default()
    };
    Ok((vm, costs, template, (all, later)))
}

/// Of the whole process, so far.
fn minor_faults() -> u64 {
    // SAFETY: all bytes zero are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `rusage` to where the pointer says.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_minflt as u64
}
