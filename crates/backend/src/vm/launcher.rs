//! Starts `cloude-vmm` workers.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cloude_initramfs_builder::boot_segment::{BootSegment, BootSegmentError};
use cloude_protocol::agent::{Cause, READY_PORT};
use cloude_protocol::api::{StartChoice, StartKind, TemplateInfo};
use cloude_protocol::boot::BootConfig;
use cloude_protocol::language::Language;
use cloude_vmm::control::{BootSpec, Request, TapSpec, VsockSpec};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::console::Console;
use super::control::Worker;
use super::identity::{hostname, new_token};
use super::machine::Vm;
use super::pool::Forks;
use super::pool::list::Counts;
use super::template::kept::Kept;
use super::template::key::Digests;
use super::{AgentStream, Death, Launcher, Machine, MachineSpec, Started, TemplateError};
use crate::config::{Config, Transport};
use crate::network::{Attached, Network, NetworkError};
use crate::store::Store;

/// Every worker is a host of its own to its one guest, so that all guests have the same number;
/// 0 to 2 are reserved (include/uapi/linux/vm_sockets.h).
pub(super) const GUEST_CID: u32 = 3;
/// The serial console, our agent as PID 1, a panic that ends the VM at once, and a generator that
/// trusts RDRAND, so that nothing in the guest waits for entropy.
const KERNEL_ARGS: &str = "console=ttyS0 rdinit=/.cloude/agent panic=-1 random.trust_cpu=on";

/// Why no machine can be started here at all.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A file that every VM needs.
    #[error("{what} `{path}`: {source}; {fix}")]
    File {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// The agent or the modules could not be packed.
    #[error(transparent)]
    BootSegment(#[from] BootSegmentError),
}

/// The real [`Launcher`].
pub struct VmLauncher {
    pub(super) me: Weak<VmLauncher>,
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) vmlinux: PathBuf,
    kernel: File,
    /// The agent and the kernel's modules, the same for every VM, and the digest of the agent's binary.
    common: Mutex<(String, Arc<File>)>,
    pub(super) digests: Arc<Digests>,
    /// Languages by their names, each with its digest, as they last were.
    pub(super) languages: std::sync::Mutex<HashMap<String, (Arc<Language>, String)>>,
    pub(super) forks: Forks,
    pub(super) kept: Kept,
    /// Held by whoever builds a template.
    pub(super) building: Mutex<()>,
    /// Builds, and what stops forks.
    pub(super) tasks: TaskTracker,
    pub(super) closing: CancellationToken,
    network: OnceCell<Arc<Network>>,
    /// Serializes setting the network up and taking it down.
    network_down: Mutex<bool>,
}

impl VmLauncher {
    /// Opens what every VM needs.
    pub fn new(config: &Config, store: Store) -> Result<Arc<Self>, SetUpError> {
        let check = |what, path: &Path, fix| {
            File::open(path).map_err(|source| SetUpError::File {
                what,
                path: path.to_owned(),
                source,
                fix,
            })
        };
        check(
            "the worker",
            &config.vm.worker,
            "build cloude-vmm, or set `vm.worker` (CLOUDE_VM_WORKER)",
        )?;
        check(
            "the agent",
            &config.agent.binary,
            "build cloude-agent, or set `agent.binary` (CLOUDE_AGENT_BINARY)",
        )?;
        let mut vmlinux = config.kernel.clone();
        if vmlinux.is_dir() {
            vmlinux.push("vmlinux");
        }
        let kernel = check(
            "the kernel",
            &vmlinux,
            "run kernel/fetch, or set `kernel` (VM_KERNEL_PATH)",
        )?;
        let common = BootSegment::new()
            .agent_file(&config.agent.binary)?
            .kernel(&config.kernel)?
            .to_memfd()?;
        let digests = Digests::default();
        let agent = digests
            .of(&config.agent.binary)
            .map_err(|source| SetUpError::File {
                what: "the agent",
                path: config.agent.binary.clone(),
                source,
                fix: "build cloude-agent, or set `agent.binary` (CLOUDE_AGENT_BINARY)",
            })?;
        let launcher = Arc::new_cyclic(|me| VmLauncher {
            me: me.clone(),
            config: config.clone(),
            store,
            vmlinux,
            kernel,
            common: Mutex::new((agent, Arc::new(common))),
            digests: Arc::new(digests),
            languages: std::sync::Mutex::default(),
            forks: Forks::new(&config.pool),
            kept: Kept::new(&config.pool),
            building: Mutex::new(()),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            network: OnceCell::new(),
            network_down: Mutex::new(false),
        });
        if config.pool.enabled {
            let pool = VmLauncher::keep_pool(Arc::downgrade(&launcher));
            launcher.tasks.spawn(pool);
        }
        Ok(launcher)
    }

    /// The agent's segment: packed again where the agent's binary is another one by now.
    async fn common(&self) -> Result<Arc<File>, Death> {
        let (digests, binary) = (Arc::clone(&self.digests), self.config.agent.binary.clone());
        let kernel = self.config.kernel.clone();
        let mut common = self.common.lock().await;
        let known = common.0.clone();
        let packed = tokio::task::spawn_blocking(move || {
            let digest = digests.of(&binary).map_err(|error| error.to_string())?;
            if digest == known {
                return Ok(None);
            }
            let segment = BootSegment::new()
                .agent_file(&binary)
                .and_then(|segment| segment.kernel(&kernel))
                .and_then(|segment| segment.to_memfd())
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(Some((digest, Arc::new(segment))))
        });
        let packed = packed
            .await
            .map_err(|error| error.to_string())
            .and_then(|result| result)
            .map_err(|error| Death::infrastructure(format!("the agent's segment: {error}")))?;
        if let Some(packed) = packed {
            *common = packed;
        }
        Ok(Arc::clone(&common.1))
    }

    /// The network, set up when it is first needed.
    pub async fn network(&self) -> Result<&Arc<Network>, NetworkError> {
        self.network
            .get_or_try_init(|| async {
                let down = self.network_down.lock().await;
                if *down {
                    return Err(NetworkError::Disabled);
                }
                let last = self.store.last_ip().await.ok().flatten();
                let network =
                    Network::set_up(&self.config.network, &self.config.state_dir, last).await?;
                Ok(Arc::new(network))
            })
            .await
    }

    /// Takes the network down, if it was set up; it is not set up again.
    pub async fn shut_down(&self) {
        self.close_pool().await;
        *self.network_down.lock().await = true;
        if let Some(network) = self.network.get() {
            network.remove().await;
        }
    }

    /// Whether a VM has a network device.
    pub(super) fn has_device(&self, outbound: bool) -> bool {
        outbound || self.config.agent.transport == Transport::Ip
    }

    /// The network of a VM that has one.
    pub(super) async fn try_attach(
        &self,
        outbound: bool,
    ) -> Result<Option<Attached>, NetworkError> {
        if !self.has_device(outbound) {
            return Ok(None);
        }
        let network = self.network().await?;
        Attached::new(network, outbound).await.map(Some)
    }

    /// The network of a VM that has one and that somebody waits for: if no address is free, a paused fork
    /// gives up its own.
    pub(super) async fn attach(&self, outbound: bool) -> Result<Option<Attached>, Death> {
        loop {
            let error = match self.try_attach(outbound).await {
                Ok(attached) => return Ok(attached),
                Err(error) => error,
            };
            let paused = match &error {
                NetworkError::Exhausted(_) => self.forks.give_way(),
                _ => None,
            };
            match paused {
                Some(paused) => paused.stop(&self.store).await,
                None => return Err(Death::infrastructure(format!("no network: {error}"))),
            }
        }
    }

    /// A guest that dies by itself before its agent is ready has run nothing of the client's: another one
    /// is started in its place, once.
    async fn start(&self, spec: MachineSpec, cancel: CancellationToken) -> Result<Started, Death> {
        if self.forks_for(&spec)
            && let Some(started) = self.fork(&spec, &cancel).await?
        {
            return Ok(started);
        }
        if spec.start == Some(StartChoice::Fork) {
            // Never booted instead: the client asked for a fork or nothing.
            return Err(Death::infrastructure(
                "`start` is `fork`, and this execution cannot be forked: `pool.enabled` is off",
            ));
        }
        match self.start_once(&spec, &cancel).await {
            Err(death) if death.cause == Cause::GuestPanic => {
                let message = death.message;
                tracing::warn!(
                    id = spec.id,
                    message,
                    "a guest died booting; starting another"
                );
                self.start_once(&spec, &cancel).await
            }
            result => result,
        }
    }

    async fn start_once(
        &self,
        spec: &MachineSpec,
        cancel: &CancellationToken,
    ) -> Result<Started, Death> {
        let attached = self.attach(spec.network).await?;
        let worker = Worker::spawn(&self.config.vm.worker)
            .await
            .map_err(|error| {
                Death::infrastructure(format!(
                    "starting `{}`: {error}",
                    self.config.vm.worker.display()
                ))
            });
        let mut vm = Vm {
            worker: None,
            attached,
            console: Console::default(),
            store: self.store.clone(),
            _busy: None,
        };
        let booted = match worker {
            Ok(worker) => {
                vm.adopt(worker);
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => Err(Death::cancelled()),
                    booted = self.boot_within_time(&mut vm, spec, false) => booted,
                }
            }
            Err(death) => Err(death),
        };
        match booted {
            Ok((stream, token)) => {
                let ip = vm.ip();
                Ok(Started {
                    stream,
                    token,
                    ip,
                    start: StartKind::Cold,
                    template: None,
                    network: None,
                    machine: Box::new(vm),
                })
            }
            Err(death) => {
                let death = vm.explain(death);
                Box::new(vm).stop().await;
                Err(death)
            }
        }
    }

    fn too_slow(&self) -> Death {
        let seconds = self.config.agent.boot_timeout_ms as f64 / 1000.0;
        Death::infrastructure(format!(
            "the guest was not ready within {seconds} s; on a slow host raise `agent.boot_timeout_ms`"
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
        let common = self.common().await?;
        self.send_boot(vm, spec, &token, console_end, &common, template)?;
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
        common: &File,
        template: bool,
    ) -> Result<(), Death> {
        let failed = |what: &str, error: String| Death::infrastructure(format!("{what}: {error}"));
        let kvm = open_kvm()?;
        let image = File::open(&spec.image)
            .map_err(|error| failed(&spec.image.display().to_string(), error.to_string()))?;
        let kernel =
            reopen(&self.kernel).map_err(|error| failed("the kernel", error.to_string()))?;
        let common =
            reopen(common).map_err(|error| failed("the agent's segment", error.to_string()))?;
        let own = BootSegment::new()
            .boot_config(&self.boot_config(vm, spec, token, template))
            .and_then(|segment| segment.to_memfd())
            .map_err(|error| failed("the VM's segment", error.to_string()))?;
        let attached = vm.attached.as_ref();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![
            kvm.as_fd(),
            kernel.as_fd(),
            image.as_fd(),
            common.as_fd(),
            own.as_fd(),
        ];
        descriptors.extend(attached.and_then(Attached::tap));
        descriptors.push(console.as_fd());
        let boot = Request::Boot(BootSpec {
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            cmdline: self.cmdline(),
            initramfs_segments: 3,
            tap: attached.map(|attached| self.tap_spec(attached)),
            console: true,
            vsock: Some(VsockSpec {
                guest_cid: GUEST_CID,
                ready_port: READY_PORT,
            }),
            cpu_baseline: self.config.vm.cpu_baseline,
        });
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

    fn boot_config(&self, vm: &Vm, spec: &MachineSpec, token: &str, template: bool) -> BootConfig {
        BootConfig {
            token: token.to_owned(),
            hostname: hostname(&spec.id),
            network: vm
                .attached
                .as_ref()
                .map(|attached| attached.guest().clone()),
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

impl Launcher for VmLauncher {
    fn launch(
        &self,
        spec: MachineSpec,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Started, Death>> {
        self.start(spec, cancel).boxed()
    }

    fn templates(&self) -> BoxFuture<'_, Vec<TemplateInfo>> {
        self.list_templates().boxed()
    }

    fn build_template(
        &self,
        spec: MachineSpec,
    ) -> BoxFuture<'_, Result<(TemplateInfo, bool), TemplateError>> {
        self.make_template(spec).boxed()
    }

    fn remove_template<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<bool, TemplateError>> {
        self.drop_template(id).boxed()
    }

    fn template_counts(&self) -> Counts {
        self.forks.counts()
    }

    fn template_mib(&self) -> u64 {
        self.forks.resident_bytes().div_ceil(1 << 20)
    }

    fn forked(&self, template: &str, result: Result<(), &Death>) {
        match result {
            Ok(()) => self.forks.worked(template),
            Err(death) => self.fork_failed(template, death),
        }
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

/// The same file with a position of its own: workers that start at once must not share one.
fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
