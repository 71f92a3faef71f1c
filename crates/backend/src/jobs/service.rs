//! The jobs as the HTTP interface sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloude_engine::images::{Images, ReadyImage};
use cloude_engine::languages::Languages;
use cloude_engine::{Failure, Launcher, MachineSpec, QueueFull, TemplateError, WORKER_MIB};
use cloude_protocol::api::{
    Execution, ExecutionRequest, LanguageInfo, Limits, StatusResponse, TemplateInfo,
    TemplateRequest,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admitted, Refused, admit};
use super::cache::Cache;
use super::{Stop, status_of};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::scheduler::Scheduler;
use crate::store::{Store, StoreError, Trouble};

/// All that running an execution needs.
pub struct Parts {
    /// The configuration of this server.
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
    QueueFull(#[from] QueueFull),
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

/// How an execution stands.
pub enum Found {
    /// It has a result.
    Ended(Arc<Execution>),
    /// It waits or runs.
    Unfinished(StatusResponse),
}

/// Whether the server does its work.
pub enum Health {
    /// It does.
    Ok,
    /// It is about to stop.
    Draining,
    /// Results cannot be written, and would be lost if it died now.
    Degraded(Trouble),
}

/// Accepts executions and knows them.
#[derive(Clone)]
pub struct Service {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) parts: Arc<Parts>,
    pub(super) cache: Cache,
    pub(super) tasks: TaskTracker,
    pub(super) metrics: Metrics,
    draining: AtomicBool,
    /// Stops everything that runs, without storing a result: it is run again at the next start.
    pub(super) halt: CancellationToken,
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

    /// The configuration of this server.
    pub fn config(&self) -> &Config {
        &self.inner.parts.config
    }

    /// Are new executions refused?
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

    /// How an execution stands; none if it is unknown.
    pub async fn find(&self, id: &str) -> Result<Option<Found>, StoreError> {
        if let Some(job) = self.inner.cache.get(id) {
            return Ok(Some(match job.result() {
                Some(execution) => Found::Ended(execution),
                None => Found::Unfinished(job.status()),
            }));
        }
        let record = self.parts().store.get(id).await?;
        Ok(record.map(|record| match record.result {
            Some(execution) => Found::Ended(execution),
            None => Found::Unfinished(StatusResponse {
                id: id.to_owned(),
                status: record.status,
                language: record.language,
                exit_code: None,
                stdout: String::new(),
                stderr: String::new(),
            }),
        }))
    }

    /// The same as `GET /status/{id}` shows it.
    pub async fn status(&self, id: &str) -> Result<Option<StatusResponse>, StoreError> {
        Ok(self.find(id).await?.map(|found| match found {
            Found::Ended(execution) => status_of(&execution),
            Found::Unfinished(status) => status,
        }))
    }

    /// Cancels an execution, and gives its result: what it had ended with where it had; none if it is
    /// unknown.
    pub async fn cancel(&self, id: &str) -> Result<Option<Arc<Execution>>, SubmitError> {
        if let Some(job) = self.inner.cache.get(id) {
            job.stop(Stop::Requested);
            return tokio::select! {
                biased;
                execution = job.finished() => Ok(Some(execution)),
                // It may have been stopped for that before, and is then run again by the next start.
                () = self.inner.halt.cancelled() => Err(SubmitError::Draining),
            };
        }
        match self.find(id).await? {
            None => Ok(None),
            Some(Found::Ended(execution)) => Ok(Some(execution)),
            // It is not in memory only once it was stopped for the next start.
            Some(Found::Unfinished(_)) => Err(SubmitError::Draining),
        }
    }

    /// Whether this server does its work.
    pub fn health(&self) -> Health {
        match self.parts().store.trouble() {
            _ if self.is_draining() => Health::Draining,
            Some(trouble) => Health::Degraded(trouble),
            None => Health::Ok,
        }
    }

    /// All languages.
    pub fn languages(&self) -> Vec<LanguageInfo> {
        let parts = self.parts();
        parts
            .languages
            .iter()
            .map(|language| {
                let image = parts.images.ready(language);
                LanguageInfo {
                    name: language.name.clone(),
                    aliases: language.aliases.clone(),
                    extensions: language.extensions.clone(),
                    image_ready: image.is_some(),
                    image_age_s: image.as_ref().map(ReadyImage::age_s),
                    version: image.as_ref().and_then(|image| image.version.clone()),
                    image_digest: image.map(|image| image.digest),
                }
            })
            .collect()
    }

    /// What there is to measure, in OpenMetrics' text format.
    pub async fn metrics(&self) -> String {
        let templates = self.templates().await;
        let parts = self.parts();
        let (load, counts) = (parts.scheduler.load(), parts.launcher.pool_counts());
        let unwritten = parts.store.trouble().map_or(0, |trouble| trouble.writes);
        self.inner.metrics.text(load, unwritten, &templates, counts)
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
            .map_err(Failure::infrastructure)
            .map_err(TemplateError::from)?;
        let spec = MachineSpec {
            id: "template".into(),
            image: image.path,
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
        self.inner.draining.store(true, Ordering::SeqCst);
        self.inner.tasks.close();
    }

    /// After [`Service::drain`]: lets what runs finish for `grace`, then stops it. Durable executions
    /// that did not finish are run again by the next start. Every machine is gone when this returns,
    /// and everything is written that the disk takes; the log says what is not.
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
