//! The jobs as the HTTP interface sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cloude_protocol::agent::Cause;
use cloude_protocol::api::{
    Execution, ExecutionRequest, LanguageInfo, Limits, StatusResponse, TemplateInfo,
    TemplateRequest,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admitted, Refused, admit};
use super::cache::Cache;
use super::{Job, run, status_of};
use crate::config::Config;
use crate::images::Images;
use crate::languages::Languages;
use crate::metrics::Metrics;
use crate::scheduler::{Full, Place, Scheduler};
use crate::store::{Accepted, Store, StoreError};
use crate::vm::{Death, Launcher, MachineSpec, TemplateError};

/// Beside the guest's memory, a worker with its share of page cache takes about so much. MiB.
const WORKER_MIB: u64 = 16;

/// All that running an execution needs.
pub struct Parts {
    /// What clouded was told.
    pub config: Config,
    /// The language files.
    pub languages: Languages,
    /// Their images.
    pub images: Arc<dyn Images>,
    /// Starts machines.
    pub launcher: Arc<dyn Launcher>,
    /// Who may start one when.
    pub scheduler: Scheduler,
    /// Remembers.
    pub store: Store,
}

impl Parts {
    /// What a VM of so much guest memory counts against the host's.
    pub fn vm_memory_mib(&self, guest_mib: u64) -> u64 {
        guest_mib + WORKER_MIB
    }

    fn guest_budget_mib(&self) -> u64 {
        self.scheduler
            .capacity()
            .memory_mib
            .saturating_sub(WORKER_MIB)
    }
}

/// Why an execution was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The request is wrong.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Too many wait.
    #[error(transparent)]
    Full(#[from] Full),
    /// We are about to stop.
    #[error("the server is shutting down; try again when it is back")]
    Draining,
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a template was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The request is wrong, or comes too late.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It did not become one.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// What the client that submits does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It goes, and asks later: the execution survives this process.
    Leaves,
    /// It waits for the result, and takes the execution back by hanging up.
    Waits,
    /// It waits and reads along.
    Streams,
}

/// Accepts executions and knows them.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Arc<Parts>,
    cache: Cache,
    tasks: TaskTracker,
    metrics: Metrics,
    draining: AtomicBool,
    /// Stops everything that runs, without storing a result: it is run again at the next start.
    halt: CancellationToken,
}

impl Service {
    /// A service without jobs.
    pub fn new(parts: Parts) -> Self {
        let cache = Cache::new(parts.config.store.cache_bytes);
        let metrics = Metrics::new(&parts.config.pool);
        let inner = Inner {
            metrics,
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

    /// Are new executions refused?
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    /// Accepts an execution.
    pub async fn submit(
        &self,
        request: ExecutionRequest,
        client: Client,
    ) -> Result<Arc<Job>, SubmitError> {
        let arrived = Instant::now();
        if self.is_draining() {
            return Err(SubmitError::Draining);
        }
        let id = uuid::Uuid::new_v4().to_string();
        let admitted = self.admit(&id, &request)?;
        let place = self.parts().scheduler.enter(admitted.bytes)?;
        let language = admitted.language.name.clone();
        let durable = client == Client::Leaves;
        self.parts()
            .store
            .accept(&Accepted {
                id: id.clone(),
                language,
                request,
                durable,
                attempts: 0,
            })
            .await?;
        let job = Job::new(
            id,
            admitted.language.name.clone(),
            client == Client::Streams,
            self.inner.halt.child_token(),
        );
        Ok(self.start(job, admitted, place, arrived))
    }

    /// Takes up again what was accepted before; the error says why that cannot be.
    pub(super) fn resume(&self, accepted: &Accepted) -> Result<(), String> {
        let admitted = self
            .admit(&accepted.id, &accepted.request)
            .map_err(|refused| refused.to_string())?;
        let place = self.parts().scheduler.enter_again(admitted.bytes);
        let job = Job::new(
            accepted.id.clone(),
            admitted.language.name.clone(),
            false,
            self.inner.halt.child_token(),
        );
        self.start(job, admitted, place, Instant::now());
        Ok(())
    }

    fn admit(&self, id: &str, request: &ExecutionRequest) -> Result<Admitted, Refused> {
        let parts = self.parts();
        admit(
            id,
            request,
            &parts.languages,
            &parts.config,
            parts.guest_budget_mib(),
        )
    }

    fn start(&self, job: Job, admitted: Admitted, place: Place, arrived: Instant) -> Arc<Job> {
        let job = Arc::new(job);
        self.inner.cache.insert(Arc::clone(&job));
        let inner = Arc::clone(&self.inner);
        let running = Arc::clone(&job);
        self.inner.tasks.spawn(async move {
            let parts = Arc::clone(&inner.parts);
            let (execution, rest) =
                run::run(parts, Arc::clone(&running), admitted, place, arrived).await;
            if inner.halt.is_cancelled() && execution.cause == Cause::Cancelled {
                // Not a result: the next start runs it again.
                inner.cache.remove(&running.id);
                run::report(&execution);
            } else {
                inner.metrics.executed(&execution);
                inner.cache.finished(&execution);
                // Whoever waits takes it now, before the rest is done.
                tokio::task::yield_now().await;
                run::report(&execution);
                inner.parts.store.finished(execution);
            }
            rest.end().await;
        });
        job
    }

    /// The job, while it is in memory.
    pub fn job(&self, id: &str) -> Option<Arc<Job>> {
        self.inner.cache.get(id)
    }

    /// How an execution stands; none if it is unknown.
    pub async fn status(&self, id: &str) -> Result<Option<StatusResponse>, StoreError> {
        if let Some(job) = self.job(id) {
            return Ok(Some(job.status()));
        }
        let record = self.parts().store.get(id).await?;
        Ok(record.map(|record| match record.result {
            Some(execution) => status_of(&execution),
            None => StatusResponse {
                id: id.to_owned(),
                status: record.status,
                language: record.language,
                exit_code: None,
                stdout: String::new(),
                stderr: String::new(),
            },
        }))
    }

    /// The result of an execution, if it is known and ended.
    pub async fn result(&self, id: &str) -> Result<Option<Arc<Execution>>, StoreError> {
        if let Some(job) = self.job(id) {
            return Ok(job.result());
        }
        let record = self.parts().store.get(id).await?;
        Ok(record.and_then(|record| record.result).map(Arc::new))
    }

    /// All languages.
    pub fn languages(&self) -> Vec<LanguageInfo> {
        let parts = self.parts();
        parts
            .languages
            .iter()
            .map(|language| LanguageInfo {
                name: language.name.clone(),
                aliases: language.aliases.clone(),
                extensions: language.extensions.clone(),
                image_ready: parts.images.ready(&language.name),
            })
            .collect()
    }

    /// What there is to measure, in OpenMetrics' text format.
    pub async fn metrics(&self) -> String {
        let templates = self.templates().await;
        let parts = self.parts();
        let (load, counts) = (parts.scheduler.load(), parts.launcher.template_counts());
        self.inner.metrics.text(load, &templates, counts)
    }

    /// All templates.
    pub async fn templates(&self) -> Vec<TemplateInfo> {
        self.parts().launcher.templates().await
    }

    /// Builds a template, or waits until it is built. Gives whether it was built for this call.
    pub async fn build_template(
        &self,
        request: &TemplateRequest,
    ) -> Result<(TemplateInfo, bool), BuildError> {
        if self.is_draining() {
            return Err(SubmitError::Draining.into());
        }
        // The machine of an execution that says nothing else.
        let execution = ExecutionRequest {
            language: request.language.clone(),
            code: "-".into(),
            network: request.network,
            limits: Limits {
                vcpus: request.vcpus,
                memory_mib: request.memory_mib,
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
            .map_err(Death::infrastructure)
            .map_err(TemplateError::from)?;
        let spec = MachineSpec {
            id: "template".into(),
            image,
            language: admitted.language,
            vcpus: admitted.vcpus,
            memory_mib: admitted.memory_mib,
            network: admitted.network,
            start: None,
        };
        Ok(self.parts().launcher.build_template(spec).await?)
    }

    /// Removes a template. Gives whether there was one.
    pub async fn remove_template(&self, id: &str) -> Result<bool, TemplateError> {
        self.parts().launcher.remove_template(id).await
    }

    /// Refuses new executions from now on.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        self.inner.tasks.close();
    }

    /// After [`Service::drain`]: lets what runs finish for `grace`, then stops it. Durable executions
    /// that did not finish are run again by the next start. Every machine is gone when this returns,
    /// and everything is written.
    pub async fn finish(&self, grace: Duration) {
        if tokio::time::timeout(grace, self.inner.tasks.wait())
            .await
            .is_err()
        {
            self.inner.halt.cancel();
            self.inner.tasks.wait().await;
        }
        if let Err(error) = self.parts().store.flush().await {
            tracing::error!(%error, "storing the last results");
        }
    }
}
