//! The pool: templates, their paused forks, and the tasks that make both.

use std::sync::Arc;

use cloude_protocol::api::StartChoice;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forks::Forks;
use crate::admission::Admission;
use crate::config::EngineConfig;
use crate::error::Failure;
use crate::machine::MachineSpec;
use crate::network::{NetworkProvider, Reclaim};
use crate::template::{DiskStore, TemplateKeys, TemplateSource};
use crate::worker::{PooledFork, Workers};

/// Templates may hold the memory for VMs divided by this. The rest stays for executions.
const TEMPLATE_DIVISOR: u64 = 2;

/// The parts of the engine that the pool uses.
pub struct PoolParts {
    /// The engine's configuration.
    pub config: Arc<EngineConfig>,
    /// Makes and resumes forks.
    pub workers: Arc<Workers>,
    /// Attaches forks to the network.
    pub network: Arc<NetworkProvider>,
    /// Computes keys.
    pub keys: Arc<TemplateKeys>,
    /// Builds or loads templates.
    pub source: Arc<dyn TemplateSource>,
    /// Stores templates.
    pub store: Arc<DiskStore>,
    /// Admits the VMs of builds.
    pub admission: Arc<dyn Admission>,
}

/// The templates of an engine and their paused forks.
pub struct Pool {
    pub(super) parts: PoolParts,
    pub(super) forks: Forks,
    /// Builds, and forks that are made or stopped.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the engine shuts down or is dropped.
    pub(super) closing: CancellationToken,
}

impl Pool {
    /// An empty pool. `closing` ends its tasks.
    pub fn new(parts: PoolParts, closing: CancellationToken) -> Self {
        let held_limit_mib = parts.admission.memory_mib() / TEMPLATE_DIVISOR;
        Pool {
            forks: Forks::new(&parts.config.pool, held_limit_mib),
            parts,
            tasks: TaskTracker::new(),
            closing,
        }
    }

    /// The bookkeeping of templates and forks.
    pub fn forks(&self) -> &Forks {
        &self.forks
    }

    /// True if a VM of this specification may be forked.
    pub fn may_fork(&self, spec: &MachineSpec) -> bool {
        self.parts.config.pool.enabled && spec.start != Some(StartChoice::Cold)
    }

    /// True if the language has this machine unless a request asks for another one.
    pub(super) fn is_default_machine(&self, spec: &MachineSpec) -> bool {
        let vm = &self.parts.config.vm;
        (spec.vcpus, spec.memory_mib) == vm.default_machine(&spec.language)
    }

    /// Reports the outcome of a fork, see [`crate::Launcher::report_fork`].
    pub fn report_fork(&self, template: &str, result: Result<(), &Failure>) {
        match result {
            Ok(()) => self.forks.worked(template),
            Err(failure) => self.fork_failed(template, failure),
        }
    }

    /// Logs a failed fork and counts it against its template.
    pub(super) fn fork_failed(&self, id: &str, failure: &Failure) {
        tracing::warn!(template = id, reason = failure.message, "a fork failed");
        let distrust = || self.parts.store.distrust(id, &failure.message);
        if let Some(forks) = self.forks.failed(id, distrust) {
            tracing::error!(
                template = id,
                "forks of the template fail: the next execution builds a new one"
            );
            self.stop_all(forks);
            self.reserve_memory();
        }
    }

    /// Stops forks in a task.
    pub(super) fn stop_all(&self, forks: Vec<PooledFork>) {
        if !forks.is_empty() {
            self.tasks.spawn(async move {
                for fork in forks {
                    fork.stop().await;
                }
            });
        }
    }

    /// Reserves the memory that templates hold. Called whenever a template comes or goes.
    pub(super) fn reserve_memory(&self) {
        let bytes = self.forks.held_bytes();
        self.parts.admission.reserve(bytes.div_ceil(1 << 20));
    }

    /// Stops all forks and builds, and waits until they are gone.
    pub async fn close(&self) {
        self.closing.cancel();
        self.stop_all(self.forks.clear());
        self.tasks.close();
        self.tasks.wait().await;
        // Forks that were finished while the tasks ended.
        for fork in self.forks.clear() {
            fork.stop().await;
        }
    }
}

impl Reclaim for Pool {
    fn reclaim_address(&self) -> Option<BoxFuture<'static, ()>> {
        Some(self.forks.take_attached()?.stop().boxed())
    }
}
