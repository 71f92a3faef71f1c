//! The operations of the HTTP interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloude_engine::images::{Images, ReadyImage};
use cloude_engine::languages::Languages;
use cloude_engine::{Failure, Launcher, MachineSpec, TemplateError, WORKER_MIB, WallState};
use cloude_protocol::api::{
    Example, ExecutionRequest, LanguageDetails, LanguageInfo, Limits, TemplateInfo, TemplateRequest,
};
use cloude_protocol::keys::Usage;
use cloude_protocol::language::Language;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admitted, admit, template_owner};
use super::cache::Cache;
use super::pins::Pins;
use super::program::Programs;
use super::refused::Refused;
use crate::bounds::Bounds;
use crate::callbacks::{Callbacks, Form};
use crate::config::Config;
use crate::keys::{Caller, Keys};
use crate::metrics::Metrics;
use crate::scheduler::{Capacity, EnterError, Load, Scheduler};
use crate::store::{FailedWrites, Store, StoreError};
use crate::tenant::Tenant;

/// Bytes of output that do not count as memory: with the default limits, no execution's output does.
const FREE_OUTPUT_BYTES: u64 = 4 << 20;

/// Everything that executions use.
pub struct Parts {
    pub config: Config,
    pub languages: Languages,
    /// Images of the languages.
    pub images: Arc<dyn Images>,
    /// Starts VMs.
    pub launcher: Arc<dyn Launcher>,
    /// Admits VMs.
    pub scheduler: Scheduler,
    /// Durable executions, and results.
    pub store: Store,
    /// API keys.
    pub keys: Keys,
}

impl Parts {
    /// MiB of the budget that an execution uses: its VM's guest memory, [`WORKER_MIB`], and the output that it may
    /// keep, which is in the memory of clouded. `output_bytes`: those of all streams.
    pub fn vm_memory_mib(&self, guest_mib: u64, output_bytes: u64) -> u64 {
        let output_mib = output_bytes.saturating_sub(FREE_OUTPUT_BYTES) >> 20;
        let budget_mib = self.scheduler.capacity().memory_mib;
        // A VM within the budget gets its permit, however much output it may have.
        let vm_mib = guest_mib + WORKER_MIB;
        vm_mib
            .saturating_add(output_mib)
            .min(budget_mib.max(vm_mib))
    }

    fn guest_budget_mib(&self) -> u64 {
        let budget_mib = self.scheduler.capacity().memory_mib;
        let quota_mib = match self.config.quota.memory_mib {
            0 => u64::MAX,
            quota_mib => quota_mib,
        };
        budget_mib.min(quota_mib).saturating_sub(WORKER_MIB)
    }
}

/// An execution was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The request is invalid or too large.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The queue is full, or the tenant has reached a quota.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The idempotency key was used for another request.
    #[error(
        "the header `Idempotency-Key` was sent with another request before: use a new key for a new request"
    )]
    KeyReused,
    /// The server is shutting down.
    #[error("the server is shutting down; try again when it is back")]
    Draining,
    /// A durable execution could not be stored, or too many results are not written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A template was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The request is invalid, or the server is shutting down.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The build failed or was refused.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// The health of the server.
pub enum Health {
    /// Executions are accepted and stored.
    Ok,
    /// The server is shutting down.
    Draining,
    /// Writes to the job store fail: results would be lost in a crash.
    Degraded(FailedWrites),
}

/// Accepts executions, and answers requests about them. Clones share the state.
#[derive(Clone)]
pub struct Service {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) parts: Arc<Parts>,
    pub(super) cache: Cache,
    pins: Arc<Pins>,
    pub(super) tasks: TaskTracker,
    pub(super) metrics: Metrics,
    pub(super) callbacks: Callbacks,
    pub(super) programs: Programs,
    draining: AtomicBool,
    /// Stops all executions at the shutdown. Durable ones get no result and are restarted by the next start.
    pub(super) halt: CancellationToken,
}

impl Service {
    /// A service without executions.
    pub fn new(parts: Parts) -> Self {
        let cache = Cache::new(parts.config.store.cache_bytes);
        let metrics = Metrics::new(&parts.config.pool);
        let held = parts.config.limits.result_bytes_in_flight;
        let inner = Inner {
            pins: Arc::new(Pins::new(held, metrics.bounds().clone())),
            metrics,
            callbacks: Callbacks::new(&parts.config.callbacks),
            programs: Programs::default(),
            parts: Arc::new(parts),
            cache,
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
            halt: CancellationToken::new(),
        };
        Service {
            inner: Arc::new(inner),
        }
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    /// The configuration of this server.
    pub fn config(&self) -> &Config {
        &self.inner.parts.config
    }

    /// The counters of limits that were reached.
    pub fn bounds(&self) -> &Bounds {
        self.inner.metrics.bounds()
    }

    /// The output that responses hold.
    pub fn pins(&self) -> &Arc<Pins> {
        &self.inner.pins
    }

    /// The API keys.
    pub fn keys(&self) -> &Keys {
        &self.inner.parts.keys
    }

    /// True if new executions are refused, because the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::SeqCst)
    }

    pub(super) fn admit(&self, id: &str, request: &ExecutionRequest) -> Result<Admitted, Refused> {
        let parts = self.parts();
        admit(
            id,
            request,
            &parts.languages,
            &parts.config,
            parts.guest_budget_mib(),
        )
    }

    /// The usage of the caller, or of all owners.
    pub async fn usage(&self, caller: &Caller) -> Result<Vec<Usage>, StoreError> {
        let owner = match caller.sees_all() {
            true => None,
            false => Some(caller.tenant().clone()),
        };
        self.parts().store.usage(owner).await
    }

    /// The health of the server.
    pub fn health(&self) -> Health {
        match self.parts().store.failed_writes() {
            _ if self.is_draining() => Health::Draining,
            Some(failures) => Health::Degraded(failures),
            None => Health::Ok,
        }
    }

    /// All languages.
    pub fn languages(&self) -> Vec<LanguageInfo> {
        let languages = self.parts().languages.iter();
        languages.map(|language| self.info_of(language)).collect()
    }

    fn info_of(&self, language: &Language) -> LanguageInfo {
        let image = self.parts().images.ready(language);
        LanguageInfo {
            name: language.name.clone(),
            aliases: language.aliases.clone(),
            extensions: language.extensions.clone(),
            image_ready: image.is_some(),
            image_age_s: image.as_ref().map(ReadyImage::age_s),
            version: image.as_ref().and_then(|image| image.version.clone()),
            image_digest: image.map(|image| image.digest),
        }
    }

    /// The language with this name or alias, with a program to begin with.
    pub fn language_details(&self, name: &str) -> Option<LanguageDetails> {
        let language = self.language(name)?;
        let test = &language.self_test;
        Some(LanguageDetails {
            language: self.info_of(&language),
            file: language.file.clone(),
            compiled: language.compile.is_some(),
            example: Example {
                code: test.code.clone(),
                stdin: test.stdin.clone(),
                args: test.args.clone(),
                stdout: test.stdout.clone(),
                exit_code: test.exit_code,
            },
        })
    }

    /// The name of the language with this name or alias.
    pub fn language_name(&self, name: &str) -> Option<String> {
        let language = self.parts().languages.find(name)?;
        Some(language.name.clone())
    }

    /// The language with this name or alias.
    pub fn language(&self, name: &str) -> Option<Arc<Language>> {
        self.parts().languages.find(name).cloned()
    }

    /// The language with this id in Judge0.
    pub fn judge0_language(&self, id: u32) -> Option<Arc<Language>> {
        self.parts().languages.by_judge0_id(id).cloned()
    }

    /// The version of a language's image with its title: `Python 3.13.5`. None if there is no image, or if it does not
    /// record a version.
    pub fn image_version(&self, language: &Language) -> Option<String> {
        self.parts().images.ready(language)?.version
    }

    /// The size of this server.
    pub fn capacity(&self) -> Capacity {
        self.parts().scheduler.capacity()
    }

    /// The current load.
    pub fn load(&self) -> Load {
        self.parts().scheduler.load()
    }

    /// All metrics in the OpenMetrics text format.
    pub async fn metrics(&self) -> String {
        let templates = self.templates().await;
        let parts = self.parts();
        let (load, counts) = (self.load(), parts.launcher.pool_counts());
        let unwritten = parts
            .store
            .failed_writes()
            .map_or(0, |failures| failures.writes);
        self.inner.metrics.text(load, unwritten, &templates, counts)
    }

    /// The walls around each VM's process.
    pub fn walls(&self) -> Vec<WallState> {
        self.parts().launcher.walls()
    }

    /// All templates.
    pub async fn templates(&self) -> Vec<TemplateInfo> {
        self.parts().launcher.templates().await
    }

    /// Builds a template, or waits for a build that is running. The flag is true if this call built it. `tenant` uses
    /// it alone with `pool.isolation = "per-key"`.
    pub async fn build_template(
        &self,
        tenant: &Tenant,
        request: &TemplateRequest,
    ) -> Result<(TemplateInfo, bool), BuildError> {
        if self.is_draining() {
            return Err(SubmitError::Draining.into());
        }
        // An execution with these values gets the same machine as the template.
        let execution = ExecutionRequest {
            language: request.language.clone(),
            code: "-".into(),
            network: request.network,
            limits: Limits {
                vcpus: request.vcpus,
                memory_bytes: request.memory_mib.map(|mib| mib.saturating_mul(1 << 20)),
                ..Limits::default()
            },
            ..ExecutionRequest::default()
        };
        let admitted = self
            .admit("template", &execution)
            .map_err(SubmitError::from)?;
        let images = &self.parts().images;
        let image = images
            .ensure(&admitted.language, admitted.memory_mib)
            .await
            .map_err(Failure::infrastructure)
            .map_err(TemplateError::from)?;
        let spec = MachineSpec {
            id: "template".into(),
            image: image.path,
            language: admitted.language,
            vcpus: admitted.vcpus,
            memory_mib: admitted.memory_mib,
            network: admitted.network,
            template_owner: template_owner(&self.parts().config, tenant),
            start: None,
        };
        Ok(self.parts().launcher.build_template(spec).await?)
    }

    /// Removes a template. Returns false if the id is unknown.
    pub async fn remove_template(&self, id: &str) -> Result<bool, TemplateError> {
        self.parts().launcher.remove_template(id).await
    }

    /// Delivers callbacks until the future is dropped. `form`: those of executions with a dialect.
    pub async fn deliver_callbacks(&self, form: Form) {
        self.inner.callbacks.run(&self.parts().store, form).await;
    }

    /// Refuses new executions from now on.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
        self.inner.tasks.close();
    }

    /// After [`Service::drain`]: waits up to `grace` for executions to finish, then stops them. The next start
    /// restarts unfinished durable ones. When this returns, no VM is left and all results are written, or the log
    /// names the reason.
    pub async fn finish(&self, grace: Duration) {
        if tokio::time::timeout(grace, self.inner.tasks.wait())
            .await
            .is_err()
        {
            self.inner.halt.cancel();
            self.inner.tasks.wait().await;
        }
        match self.parts().store.flush().await {
            Ok(()) => tracing::info!("all results are written"),
            Err(error) => tracing::error!(%error, "results are lost if they cannot be written now"),
        }
    }
}
