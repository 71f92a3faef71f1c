//! The boot request of a VM, and the configuration that its agent reads at boot.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cloude_initramfs_builder::boot_segment::BootSegment;
use cloude_protocol::agent::READY_PORT;
use cloude_protocol::boot::BootConfig;
use cloude_vmm::control::{BootSpec, EgressSpec, NetLimits, Request, TapSpec, VsockSpec};

use super::kvm::open_kvm;
use super::process::GUEST_CID;
use super::vm::Vm;
use crate::config::EngineConfig;
use crate::error::Failure;
use crate::files::reopen;
use crate::guest::hostname;
use crate::machine::{MachineShape, MachineSpec};
use crate::network::Attached;

/// `console=ttyS0`: the serial console. `rdinit`: the agent is PID 1. `panic=-1`: a panic resets the VM at
/// once, which ends it. `random.trust_cpu=on`: RDRAND seeds the guest's generator, so no read of it waits for
/// entropy. See the kernel's Documentation/admin-guide/kernel-parameters.txt.
const KERNEL_ARGS: &str = "console=ttyS0 rdinit=/.cloude/agent panic=-1 random.trust_cpu=on";
/// The language image, the shared segment (agent, modules), and the VM's private segment.
const INITRAMFS_SEGMENTS: usize = 3;

/// The descriptors of a boot request that differ between VMs.
pub(super) struct BootFiles<'a> {
    /// The shared segment.
    pub segment: &'a File,
    /// The write end of the console's pipe.
    pub console: OwnedFd,
}

/// Asks the VM's worker to boot.
pub(super) fn send_boot(
    config: &EngineConfig,
    vm: &mut Vm,
    spec: &MachineSpec,
    token: &str,
    files: BootFiles<'_>,
    template: bool,
) -> Result<(), Failure> {
    let failed = |what: &str, error: String| Failure::infrastructure(format!("{what}: {error}"));
    let open = |path: &Path| {
        File::open(path).map_err(|error| failed(&path.display().to_string(), error.to_string()))
    };
    let kvm = open_kvm()?;
    let (kernel, image) = (open(&config.vmlinux())?, open(&spec.image)?);
    let segment = reopen(files.segment).map_err(|error| {
        failed(
            "the initramfs segment of agent and modules",
            error.to_string(),
        )
    })?;
    let boot_config = BootConfig {
        token: token.to_owned(),
        hostname: hostname(&spec.id),
        network: vm.attached().map(|attached| attached.guest().clone()),
        ..common_boot_config(config, template)
    };
    let private = BootSegment::new()
        .boot_config(&boot_config)
        .and_then(|segment| segment.to_memfd())
        .map_err(|error| {
            failed(
                "the initramfs segment of this VM's configuration",
                error.to_string(),
            )
        })?;
    let attached = vm.attached();
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![
        kvm.as_fd(),
        kernel.as_fd(),
        image.as_fd(),
        segment.as_fd(),
        private.as_fd(),
    ];
    descriptors.extend(attached.and_then(Attached::tap));
    descriptors.push(files.console.as_fd());
    let tap = attached.map(|attached| tap_spec(config, attached));
    let boot = Request::Boot(boot_spec(config, spec.shape(), tap));
    vm.worker().try_send(&boot, &descriptors).map_err(|error| {
        failed(
            "sending the boot request to the VM's worker",
            error.to_string(),
        )
    })?;
    // The worker now has the last descriptor of the TAP, so the TAP vanishes with the worker.
    drop(vm.attached_mut().and_then(Attached::take_tap));
    Ok(())
}

/// The worker's view of a VM's TAP.
pub(super) fn tap_spec(config: &EngineConfig, attached: &Attached) -> TapSpec {
    TapSpec {
        mac: attached.mac(),
        mtu: config.network.mtu,
        egress: attached.egress(),
        limits: attached.limits(),
    }
}

/// The boot request without its descriptors. All of it is part of a template's key.
fn boot_spec(config: &EngineConfig, shape: MachineShape, tap: Option<TapSpec>) -> BootSpec {
    BootSpec {
        vcpus: shape.vcpus,
        memory_mib: shape.memory_mib,
        cmdline: cmdline(config),
        initramfs_segments: INITRAMFS_SEGMENTS,
        tap,
        console: true,
        vsock: Some(VsockSpec {
            guest_cid: GUEST_CID,
            ready_port: READY_PORT,
        }),
        cpu_baseline: config.vm.cpu_baseline,
    }
}

/// The boot request of a template and its agent's configuration as JSON, without the values that differ
/// between VMs: a part of the template's key.
pub fn template_boot_text(
    config: &EngineConfig,
    shape: MachineShape,
) -> serde_json::Result<String> {
    let tap = config.has_network_device(shape.network).then_some(TapSpec {
        mac: [0; 6],
        mtu: config.network.mtu,
        // Properties of the device, not of the guest: a fork has others.
        egress: EgressSpec::default(),
        limits: NetLimits::default(),
    });
    serde_json::to_string(&(
        boot_spec(config, shape, tap),
        common_boot_config(config, true),
    ))
}

/// The agent's configuration without token, host name and network.
fn common_boot_config(config: &EngineConfig, template: bool) -> BootConfig {
    BootConfig {
        token: String::new(),
        hostname: String::new(),
        network: None,
        copy_output_to_console: config.vm.log_guest_console,
        shell: false,
        template,
    }
}

fn cmdline(config: &EngineConfig) -> String {
    // Every byte on the serial console is a VM exit.
    let quiet = if config.vm.log_guest_console {
        ""
    } else {
        " quiet"
    };
    format!("{KERNEL_ARGS}{quiet} {}", config.vm.kernel_args)
        .trim()
        .to_owned()
}
