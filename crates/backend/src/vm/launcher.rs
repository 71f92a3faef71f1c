//! Starts `cloude-vmm` workers.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use cloude_protocol::api::{StartChoice, StartKind, TemplateInfo};
use cloude_protocol::language::Language;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::console::Console;
use super::machine::Vm;
use super::pool::Forks;
use super::pool::list::Counts;
use super::segment::{SegmentError, SharedSegment};
use super::template::kept::Kept;
use super::template::key::Digests;
use super::{Death, Launcher, Machine, MachineSpec, Started, TemplateError};
use crate::config::{Config, Transport};
use crate::network::{Attached, Network, NetworkError};
use crate::scheduler::Scheduler;
use crate::store::Store;

/// Of the memory for VMs, templates may hold one part in so many: the rest stays for executions.
const TEMPLATE_SHARE: u64 = 2;

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
    Segment(#[from] SegmentError),
}

/// The real [`Launcher`].
pub struct VmLauncher {
    pub(super) me: Weak<VmLauncher>,
    pub(super) config: Config,
    pub(super) store: Store,
    /// Template builds are VMs like any other: they wait for a permit.
    pub(super) scheduler: Scheduler,
    pub(super) vmlinux: PathBuf,
    pub(super) segment: SharedSegment,
    pub(super) digests: Arc<Digests>,
    /// Languages by their names, each with its digest, as they last were.
    pub(super) languages: std::sync::Mutex<HashMap<String, (Arc<Language>, String)>>,
    pub(super) forks: Forks,
    pub(super) kept: Kept,
    /// Has one clone for each VM that runs.
    pub(super) running: Arc<()>,
    /// Builds, and the making and stopping of forks.
    pub(super) tasks: TaskTracker,
    pub(super) closing: CancellationToken,
    network: OnceCell<Arc<Network>>,
    /// Serializes setting the network up and taking it down.
    network_down: Mutex<bool>,
}

impl VmLauncher {
    /// Checks that everything is there which every VM needs, and begins to fill the pool.
    pub fn new(
        config: &Config,
        store: Store,
        scheduler: Scheduler,
    ) -> Result<Arc<Self>, SetUpError> {
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
        check(
            "the kernel",
            &vmlinux,
            "run kernel/fetch, or set `kernel` (VM_KERNEL_PATH)",
        )?;
        let digests = Arc::new(Digests::default());
        let segment =
            SharedSegment::new(&config.agent.binary, &config.kernel, Arc::clone(&digests))?;
        let held_limit_mib = scheduler.capacity().memory_mib / TEMPLATE_SHARE;
        let launcher = Arc::new_cyclic(|me| VmLauncher {
            me: me.clone(),
            config: config.clone(),
            store,
            scheduler,
            vmlinux,
            segment,
            digests,
            languages: std::sync::Mutex::default(),
            forks: Forks::new(&config.pool, held_limit_mib),
            kept: Kept::new(&config.pool),
            running: Arc::default(),
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
        self.boot_cold(&spec, &cancel).await
    }

    /// A VM that runs from now on, and has no worker yet.
    pub(super) fn new_vm(&self, attached: Option<Attached>) -> Vm {
        Vm {
            worker: None,
            attached,
            console: Console::default(),
            store: self.store.clone(),
            _running: Arc::clone(&self.running),
        }
    }

    async fn boot_cold(
        &self,
        spec: &MachineSpec,
        cancel: &CancellationToken,
    ) -> Result<Started, Death> {
        let attached = self.attach(spec.network).await?;
        let mut vm = self.new_vm(attached);
        let booted = match self.spawn_worker().await {
            Ok(worker) => {
                vm.adopt(worker);
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => Err(Death::cancelled("cancelled")),
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

    fn forked(&self, template: &str, result: Result<(), &Death>) {
        match result {
            Ok(()) => self.forks.worked(template),
            Err(death) => self.fork_failed(template, death),
        }
    }
}
