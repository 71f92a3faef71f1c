//! How a launcher boots VMs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use cloude_initramfs_builder::boot_segment::BootSegment;
use cloude_protocol::agent::READY_PORT;
use cloude_protocol::boot::BootConfig;
use cloude_vmm::control::{BootSpec, Request, TapSpec, VsockSpec};

use super::console::Console;
use super::control::GUEST_CID;
use super::fork::Shape;
use super::identity::{hostname, new_token};
use super::launcher::VmLauncher;
use super::machine::Vm;
use super::reopen::reopen;
use super::{AgentStream, Death, MachineSpec};
use crate::config::Transport;
use crate::network::Attached;

/// The serial console, our agent as PID 1, a panic that ends the VM at once, and a generator that
/// trusts RDRAND, so that nothing in the guest waits for entropy.
const KERNEL_ARGS: &str = "console=ttyS0 rdinit=/.cloude/agent panic=-1 random.trust_cpu=on";

impl VmLauncher {
    fn too_slow(&self) -> Death {
        let seconds = self.config.agent.boot_timeout_ms as f64 / 1000.0;
        Death::infrastructure(format!(
            "the guest was not ready within {seconds} s; on a slow host raise `time_factor` \
             (CLOUDE_TIME_FACTOR), or `agent.boot_timeout_ms` alone"
        ))
    }

    /// Boots a VM in its worker, and waits until its agent is ready.
    pub(super) async fn boot_within_time(
        &self,
        vm: &mut Vm,
        spec: &MachineSpec,
        template: bool,
    ) -> Result<(Box<dyn AgentStream>, String), Death> {
        let timeout = Duration::from_millis(self.config.agent.boot_timeout_ms);
        tokio::time::timeout(timeout, self.boot(vm, spec, template))
            .await
            .unwrap_or_else(|_| Err(self.too_slow()))
    }

    async fn boot(
        &self,
        vm: &mut Vm,
        spec: &MachineSpec,
        template: bool,
    ) -> Result<(Box<dyn AgentStream>, String), Death> {
        let failed = |error: io::Error| Death::infrastructure(format!("preparing the VM: {error}"));
        let token = new_token().map_err(failed)?;
        let (console, console_end) =
            Console::open(&spec.id, self.config.vm.log_guest_console).map_err(failed)?;
        vm.console = console;
        let segment = self.segment.get().await?;
        self.send_boot(vm, spec, &token, console_end, &segment.file, template)?;
        let stream = match self.config.agent.transport {
            Transport::Ip if !template => vm.connect_ip().await?,
            // The connection that is saved with a template, and that its forks go on with.
            _ => vm.connect_vsock().await?,
        };
        Ok((stream, token))
    }

    fn send_boot(
        &self,
        vm: &mut Vm,
        spec: &MachineSpec,
        token: &str,
        console: OwnedFd,
        segment: &File,
        template: bool,
    ) -> Result<(), Death> {
        let failed = |what: &str, error: String| Death::infrastructure(format!("{what}: {error}"));
        let kvm = open_kvm()?;
        let open = |path: &Path| {
            File::open(path).map_err(|error| failed(&path.display().to_string(), error.to_string()))
        };
        let (kernel, image) = (open(&self.vmlinux)?, open(&spec.image)?);
        let segment =
            reopen(segment).map_err(|error| failed("the agent's segment", error.to_string()))?;
        let config = BootConfig {
            token: token.to_owned(),
            hostname: hostname(&spec.id),
            network: vm
                .attached
                .as_ref()
                .map(|attached| attached.guest().clone()),
            ..self.boot_config(template)
        };
        let own = BootSegment::new()
            .boot_config(&config)
            .and_then(|segment| segment.to_memfd())
            .map_err(|error| failed("the VM's segment", error.to_string()))?;
        let attached = vm.attached.as_ref();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![
            kvm.as_fd(),
            kernel.as_fd(),
            image.as_fd(),
            segment.as_fd(),
            own.as_fd(),
        ];
        descriptors.extend(attached.and_then(Attached::tap));
        descriptors.push(console.as_fd());
        let shape = Shape {
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            network: spec.network,
        };
        let tap = attached.map(|attached| self.tap_spec(attached));
        let boot = Request::Boot(self.boot_spec(shape, tap));
        vm.worker()?
            .send(&boot, &descriptors)
            .map_err(|error| failed("telling the VM's worker what to boot", error.to_string()))?;
        // The worker's copy is now the last: the TAP goes when the worker does.
        drop(vm.attached.as_mut().and_then(Attached::take_tap));
        Ok(())
    }

    pub(super) fn tap_spec(&self, attached: &Attached) -> TapSpec {
        TapSpec {
            mac: attached.mac(),
            mtu: self.config.network.mtu,
        }
    }

    /// What the worker is asked to boot, but for the descriptors. All of it is part of a template's key.
    fn boot_spec(&self, shape: Shape, tap: Option<TapSpec>) -> BootSpec {
        BootSpec {
            vcpus: shape.vcpus,
            memory_mib: shape.memory_mib,
            cmdline: self.cmdline(),
            initramfs_segments: 3,
            tap,
            console: true,
            vsock: Some(VsockSpec {
                guest_cid: GUEST_CID,
                ready_port: READY_PORT,
            }),
            cpu_baseline: self.config.vm.cpu_baseline,
        }
    }

    /// The boot request of a template and its guest's configuration as text, without what each VM has of its
    /// own: what a template's key is made of.
    pub(super) fn template_boot_text(&self, shape: Shape) -> serde_json::Result<String> {
        let tap = self.has_device(shape.network).then_some(TapSpec {
            mac: [0; 6],
            mtu: self.config.network.mtu,
        });
        serde_json::to_string(&(self.boot_spec(shape, tap), self.boot_config(true)))
    }

    /// What a guest is told at boot, but for what it has of its own.
    fn boot_config(&self, template: bool) -> BootConfig {
        BootConfig {
            token: String::new(),
            hostname: String::new(),
            network: None,
            copy_output_to_console: self.config.vm.log_guest_console,
            shell: false,
            template,
        }
    }

    fn cmdline(&self) -> String {
        // Each line on the serial console is an exit per byte.
        let quiet = if self.config.vm.log_guest_console {
            ""
        } else {
            " quiet"
        };
        format!("{KERNEL_ARGS}{quiet} {}", self.config.vm.kernel_args)
            .trim()
            .to_owned()
    }
}

/// /dev/kvm, for a worker.
pub(super) fn open_kvm() -> Result<File, Death> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| Death::infrastructure(format!("opening /dev/kvm: {error}")))
}
