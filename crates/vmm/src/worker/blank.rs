//! A VM created ahead of demand: blank, then restored and paused, then running.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::descriptors::{BlankVmFds, RestoreFds};
use super::devices::{DeviceLinks, attach_devices};
use super::error::WorkerError;
use super::limits;
use super::serve::Server;
use super::vsock::{VsockLink, attach_saved};
use crate::control::{BlankVmSpec, Channel, Event, ExitReason, Origin, Request, RestoreCosts};
use crate::jail;
use crate::snapshot::{SnapshotError, Template, WorkingSet};
use crate::vm::{BlankVm, MachineShape, Vm, VmHandle};

/// Creates a blank VM, restores a snapshot into it and serves it until it ends.
///
/// Until the VM runs the control socket is the only descriptor to serve, so this reads it with blocking calls.
pub(super) fn serve(
    channel: &Arc<Channel>,
    spec: &BlankVmSpec,
    descriptors: Vec<OwnedFd>,
    pagemap: Option<File>,
) -> Result<ExitReason, WorkerError> {
    limits::of_vm(spec.memory_mib)?;
    let (mut blank, links) = create(spec, descriptors)?;
    // The event loop is made now, so that it costs no time after a request.
    let handle = blank.handle();
    let server = Server::new(
        blank.vm_mut(),
        handle.clone(),
        channel,
        links.clone(),
        pagemap,
    )?;
    channel.send(&Event::BlankReady, &[])?;

    let (mut vm, working_set) = match channel.recv::<Request>()? {
        (
            Request::Restore {
                origin,
                working_set,
            },
            descriptors,
        ) => {
            let start = Start::now();
            let fds = RestoreFds::sort(working_set, descriptors)?;
            let restored = restore(blank, &origin, fds, links.vsock.as_ref())?;
            let costs = start.costs(restored.costs);
            // Off the path of a request: a fork waits here.
            jail::narrow_event_loop().map_err(WorkerError::Jail)?;
            channel.send(&Event::Restored { costs }, &[])?;
            (restored.vm, restored.working_set)
        }
        (request, _) => return Err(WorkerError::order(&request, "for a blank VM")),
    };
    wait_for_resume(channel)?;
    run_first(handle, &working_set)?;
    channel.send(&Event::Started, &[])?;
    server.serve(&mut vm)
}

fn create(
    spec: &BlankVmSpec,
    descriptors: Vec<OwnedFd>,
) -> Result<(BlankVm, DeviceLinks), WorkerError> {
    let fds = BlankVmFds::sort(spec, descriptors)?;
    let shape = MachineShape {
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        cpu_baseline: spec.cpu_baseline,
    };
    let mut vm = Vm::reserved(&fds.kvm, shape, fds.console)?;
    let net = spec.tap.as_ref().zip(fds.tap);
    let links = attach_devices(&mut vm, net, spec.vsock.as_ref())?;
    Ok((BlankVm::new(vm)?, links))
}

struct Restored {
    vm: Vm,
    costs: RestoreCosts,
    working_set: WorkingSet,
}

fn restore(
    blank: BlankVm,
    origin: &Origin,
    fds: RestoreFds,
    vsock: Option<&VsockLink>,
) -> Result<Restored, WorkerError> {
    let handle = blank.handle();
    let template = Template::open(&fds.state, fds.memory)?;
    let (vm, calls) = blank.restore(&template, origin)?;
    attach_saved(vsock, fds.stream)?;
    let working_set = match fds.working_set {
        Some(list) => WorkingSet::open(&list).map_err(SnapshotError::from)?,
        None => WorkingSet::default(),
    };
    handle.map_read(&working_set)?;
    let costs = RestoreCosts {
        ioctls: calls.ioctls.into(),
        syscalls: calls.memory.into(),
        ..Default::default()
    };
    Ok(Restored {
        vm,
        costs,
        working_set,
    })
}

fn wait_for_resume(channel: &Channel) -> Result<(), WorkerError> {
    match channel.recv::<Request>()?.0 {
        Request::Resume => Ok(()),
        request => Err(WorkerError::order(&request, "before resume")),
    }
}

/// Takes the handle, since every handle keeps the vCPU threads alive and the server has its own.
fn run_first(handle: VmHandle, working_set: &WorkingSet) -> Result<(), WorkerError> {
    handle.copy_written(working_set)?;
    Ok(handle.resume()?)
}

/// Time and page faults of the process when a request arrived.
struct Start {
    time: Instant,
    minor_faults: u64,
}

impl Start {
    fn now() -> Self {
        Self {
            time: Instant::now(),
            minor_faults: minor_faults(),
        }
    }

    fn costs(&self, counted: RestoreCosts) -> RestoreCosts {
        RestoreCosts {
            elapsed_us: self.time.elapsed().as_micros() as u64,
            minor_faults: minor_faults() - self.minor_faults,
            ..counted
        }
    }
}

/// Minor page faults of this process so far.
fn minor_faults() -> u64 {
    // SAFETY: all bytes zero are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: getrusage writes one `rusage` through the pointer, which is valid.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    usage.ru_minflt as u64
}
