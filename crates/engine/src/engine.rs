//! The engine: configuration in, VMs out.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use cloude_protocol::api::{StartChoice, StartKind, TemplateInfo};
use cloude_protocol::paths::cache_dir;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::thread::CapabilitySet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admission::{Admission, Unlimited};
use crate::config::{EngineConfig, Transport};
use crate::error::{Failure, TemplateError};
use crate::files::Digests;
use crate::images::BuiltImages;
use crate::isolation::{IsolationError, Prison, WallState};
use crate::languages::{Languages, LanguagesError};
use crate::launched::Launched;
use crate::launcher::Launcher;
use crate::machine::MachineSpec;
use crate::network::{self, NetworkError, NetworkProvider, Reclaim};
use crate::pool::{Pool, PoolCounts, PoolParts, refill};
use crate::run_dir::{RunDir, RunDirError};
use crate::template::{DiskStore, TemplateBuilder, TemplateKeys};
use crate::worker::{SegmentError, SharedSegment, Workers, open_device, orphans};

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A file that every VM needs cannot be opened.
    #[error("{what} `{path}`: {source}; {fix}")]
    File {
        /// The file's role.
        what: &'static str,
        /// Its configured path.
        path: PathBuf,
        /// The error of open(2).
        source: io::Error,
        /// The way out.
        fix: &'static str,
    },
    /// The agent or the kernel's modules cannot be packed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The run directory cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The language files are invalid.
    #[error(transparent)]
    Languages(#[from] LanguagesError),
    /// Workers cannot be isolated as configured.
    #[error(transparent)]
    Isolation(#[from] IsolationError),
    /// The bridge of the configuration belongs to somebody else.
    #[error("`network.bridge`: {0}")]
    Bridge(#[source] NetworkError),
    /// `agent.transport = "ip"` needs a network.
    #[error("the network for `agent.transport = \"ip\"`: {0}")]
    Network(#[from] NetworkError),
}

/// Runs code in micro-VMs. The crate's front page shows how.
///
/// Call [`Engine::shut_down`] before the last clone of its [`Arc`] is dropped: dropping kills the workers, but
/// cannot remove the network.
pub struct Engine {
    config: Arc<EngineConfig>,
    languages: Languages,
    images: Arc<BuiltImages>,
    workers: Arc<Workers>,
    network: Arc<NetworkProvider>,
    pool: Arc<Pool>,
    prison: Arc<Prison>,
    /// Ends the pool's tasks when the engine is dropped.
    _closing: DropGuard,
}

impl Engine {
    /// Starts an engine with the language files of the configuration, without a limit on the number of VMs.
    pub async fn start(config: EngineConfig) -> Result<Arc<Self>, SetUpError> {
        let languages = Languages::load(&config.languages)?;
        Engine::with_admission(config, languages, Arc::new(Unlimited)).await
    }

    /// Starts an engine with these languages, whose template builds ask `admission` for their VMs.
    ///
    /// Removes what a killed process with the same run directory left: workers, TAPs, firewall rules. Checks
    /// that the worker, the agent and the kernel exist, and begins to fill the pool.
    pub async fn with_admission(
        config: EngineConfig,
        languages: Languages,
        admission: Arc<dyn Admission>,
    ) -> Result<Arc<Self>, SetUpError> {
        check_files(&config)?;
        let config = Arc::new(config);
        let run_dir = RunDir::open(&config.run_dir)?;
        clean_up(&run_dir).await;
        if config.network.enabled {
            network::check(&config.network)
                .await
                .map_err(SetUpError::Bridge)?;
        }
        let prison = Arc::new(prison(&config).await?);
        let digests = Arc::new(Digests::default());
        let segment =
            SharedSegment::new(&config.agent.binary, &config.kernel, Arc::clone(&digests))?;
        let segment = Arc::new(segment);
        let network = Arc::new(NetworkProvider::new(Arc::clone(&config), run_dir.clone()));
        let workers = Arc::new(Workers::new(
            Arc::clone(&config),
            Arc::clone(&segment),
            Arc::clone(&prison),
            run_dir,
        ));
        let keys = Arc::new(TemplateKeys::new(Arc::clone(&config), segment, digests));
        let store = Arc::new(DiskStore::new(&config.pool));
        let source = TemplateBuilder::new(
            Arc::clone(&config),
            Arc::clone(&workers),
            Arc::clone(&network),
            Arc::clone(&keys),
            Arc::clone(&store),
        );
        let closing = CancellationToken::new();
        let parts = PoolParts {
            config: Arc::clone(&config),
            workers: Arc::clone(&workers),
            network: Arc::clone(&network),
            keys,
            source: Arc::new(source),
            store,
            admission,
        };
        let pool = Arc::new(Pool::new(parts, closing.clone()));
        let reclaim: Weak<Pool> = Arc::downgrade(&pool);
        network.reclaim_from(reclaim as Weak<dyn Reclaim>);
        if config.agent.transport == Transport::Ip {
            network.network().await?;
        }
        if config.pool.enabled {
            refill::spawn(&pool);
        }
        Ok(Arc::new(Engine {
            images: Arc::new(BuiltImages::new(
                &config.images,
                &config.languages,
                &cache_dir(),
            )),
            config,
            languages,
            workers,
            network,
            pool,
            prison,
            _closing: closing.drop_guard(),
        }))
    }

    /// The configuration.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The languages.
    pub fn languages(&self) -> &Languages {
        &self.languages
    }

    /// The languages' images.
    pub fn images(&self) -> &Arc<BuiltImages> {
        &self.images
    }

    /// Stops image builds, template builds and paused forks, and removes the network. VMs that were launched
    /// must be stopped before.
    pub async fn shut_down(&self) {
        self.images.shut_down().await;
        self.pool.close().await;
        self.network.shut_down().await;
    }

    async fn launch_vm(
        &self,
        spec: MachineSpec,
        cancel: CancellationToken,
    ) -> Result<Launched, Failure> {
        if self.pool.may_fork(&spec)
            && let Some(launched) = self.pool.lease(&spec, &cancel).await?
        {
            return Ok(launched);
        }
        if spec.start == Some(StartChoice::Fork) {
            return Err(Failure::infrastructure(
                "`start` is `fork`, and this execution cannot be forked: `pool.enabled` is false",
            ));
        }
        let attached = self.network.attach(spec.network).await?;
        let booted = self.workers.boot(&spec, attached, false, &cancel).await?;
        Ok(Launched {
            stream: booted.stream,
            token: booted.token,
            ip: booted.vm.ip(),
            start: StartKind::Cold,
            template: None,
            network: None,
            machine: Box::new(booted.vm),
        })
    }
}

impl Launcher for Engine {
    fn check(&self) -> Result<(), String> {
        open_device().map_err(|error| format!("opening /dev/kvm: {error}"))
    }

    fn launch(
        &self,
        spec: MachineSpec,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Launched, Failure>> {
        self.launch_vm(spec, cancel).boxed()
    }

    fn report_fork(&self, template: &str, result: Result<(), &Failure>) {
        self.pool.report_fork(template, result);
    }

    fn templates(&self) -> BoxFuture<'_, Vec<TemplateInfo>> {
        self.pool.templates().boxed()
    }

    fn build_template(
        &self,
        spec: MachineSpec,
    ) -> BoxFuture<'_, Result<(TemplateInfo, bool), TemplateError>> {
        self.pool.build_template(spec).boxed()
    }

    fn remove_template<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<bool, TemplateError>> {
        self.pool.remove_template(id).boxed()
    }

    fn walls(&self) -> Vec<WallState> {
        self.prison.states().to_vec()
    }

    fn pool_counts(&self) -> PoolCounts {
        self.pool.forks().counts()
    }
}

/// Opens each file that every VM needs.
fn check_files(config: &EngineConfig) -> Result<(), SetUpError> {
    let check = |what, path: &Path, fix| {
        File::open(path)
            .map(drop)
            .map_err(|source| SetUpError::File {
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
    check(
        "the kernel",
        &config.vmlinux(),
        "run kernel/fetch, or set `kernel` (VM_KERNEL_PATH)",
    )
}

/// Finds the walls of this host, off the async threads.
async fn prison(config: &Arc<EngineConfig>) -> Result<Prison, IsolationError> {
    let config = Arc::clone(config);
    let open = move || Prison::open(&config.isolation, &config.run_dir, &config.vm.worker);
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Removes what a killed process left. A process without CAP_NET_ADMIN has no network to clean up.
async fn clean_up(run_dir: &RunDir) {
    orphans::end_all(run_dir).await;
    let capabilities = rustix::thread::capabilities(None);
    if !capabilities.is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN)) {
        return;
    }
    // A failure is no reason not to start: on a host without nft or netlink there is nothing to remove.
    if let Err(error) = network::clean_up(run_dir.path()).await {
        tracing::warn!(%error, "removing the network of an earlier process");
    }
}
