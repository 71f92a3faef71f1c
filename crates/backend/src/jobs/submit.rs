//! Accepts executions, starts their tasks and stores their results.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use cloude_protocol::Secret;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, ExecutionRequest, Status};
use futures_util::FutureExt;
use sha2::{Digest, Sha256};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::about::About;
use super::admission::{Admitted, check_version};
use super::attempt::Teardown;
use super::job::{Client, Job, Stop};
use super::refused::Refused;
use super::run;
use super::service::{Inner, Service, SubmitError};
use crate::scheduler::QueueSlot;
use crate::store::{Accepted, StoreError, now_ms};
use crate::tenant::Tenant;

/// The header `Idempotency-Key` of a request, with what it must be the same as.
pub use crate::store::IdempotencyKey;

/// An accepted request.
pub enum Submitted {
    /// A new execution.
    New(Arc<Job>),
    /// The id of the execution that an earlier request with the same key started.
    Earlier(String),
}

/// An admitted execution with its queue slot.
pub(super) struct Prepared {
    pub(super) job: Arc<Job>,
    admitted: Admitted,
    slot: QueueSlot,
    arrived: Instant,
}

/// The row of a new durable execution.
pub(super) fn accepted_of(job: &Job, request: ExecutionRequest) -> Accepted {
    let about = &job.about;
    Accepted {
        id: about.id.clone(),
        tenant: about.tenant.clone(),
        language: about.language.clone(),
        request: without_secrets(request),
        attempts: 0,
        created_ms: about.created_ms,
        key: None,
        batch: None,
        dialect: None,
    }
}

/// The identity of an execution that the store has.
pub fn about_accepted(accepted: &Accepted) -> About {
    About {
        id: accepted.id.clone(),
        tenant: accepted.tenant.clone(),
        language: accepted.language.clone(),
        labels: accepted.request.labels.clone(),
        created_ms: accepted.created_ms,
    }
}

impl Service {
    /// Accepts an execution of `tenant`. A durable one ([`Client::Leaves`]) is stored before this returns.
    pub async fn submit(
        &self,
        tenant: Tenant,
        request: ExecutionRequest,
        client: Client,
    ) -> Result<Arc<Job>, SubmitError> {
        self.accept((tenant, request), client, None).await
    }

    /// Accepts a durable execution, unless the tenant sent the same request with the same key before.
    pub async fn submit_once(
        &self,
        tenant: Tenant,
        request: ExecutionRequest,
        key: &str,
    ) -> Result<Submitted, SubmitError> {
        let stored = without_secrets(request.clone());
        let bytes = serde_json::to_vec(&stored).map_err(StoreError::from)?;
        let key = IdempotencyKey {
            key: key.to_owned(),
            hash: Sha256::digest(&bytes).into(),
        };
        if let Some(id) = self.earlier(&tenant, &key).await? {
            return Ok(Submitted::Earlier(id));
        }
        let accepted = self.accept((tenant.clone(), request), Client::Leaves, Some(key.clone()));
        match accepted.await {
            // Another request with the key was stored meanwhile.
            Err(SubmitError::Store(StoreError::KeyUsed)) => {
                match self.earlier(&tenant, &key).await? {
                    Some(id) => Ok(Submitted::Earlier(id)),
                    None => Err(StoreError::KeyUsed.into()),
                }
            }
            accepted => accepted.map(Submitted::New),
        }
    }

    /// The execution of an earlier request with this key.
    async fn earlier(
        &self,
        tenant: &Tenant,
        key: &IdempotencyKey,
    ) -> Result<Option<String>, SubmitError> {
        match self.parts().store.by_key(tenant, &key.key).await? {
            None => Ok(None),
            Some((hash, _)) if hash != key.hash => Err(SubmitError::KeyReused),
            Some((_, id)) => Ok(Some(id)),
        }
    }

    async fn accept(
        &self,
        (tenant, request): (Tenant, ExecutionRequest),
        client: Client,
        key: Option<IdempotencyKey>,
    ) -> Result<Arc<Job>, SubmitError> {
        let token = self.inner.tasks.token();
        let prepared = self.prepare(tenant, &request, client)?;
        self.inner.cache.insert(Arc::clone(&prepared.job));
        if client != Client::Leaves {
            return Ok(self.start(prepared));
        }
        // The job is in memory before it is stored: from then on a request with the same key looks for it.
        let accepted = Accepted {
            key,
            ..accepted_of(&prepared.job, request)
        };
        // A separate task: an execution that was stored is started even if the client disconnects meanwhile.
        let service = self.clone();
        let started = tokio::spawn(async move {
            let _token = token;
            if let Err(error) = service.parts().store.accept(&accepted).await {
                service.inner.cache.remove(&accepted.id);
                return Err(error.into());
            }
            Ok(service.start(prepared))
        });
        started.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Accepts the executions of a batch, all or none, and returns the id of the batch.
    pub async fn submit_all(
        &self,
        tenant: Tenant,
        requests: Vec<ExecutionRequest>,
    ) -> Result<(String, Vec<Arc<Job>>), SubmitError> {
        let token = self.inner.tasks.token();
        let batch = uuid::Uuid::new_v4().to_string();
        let mut all = Vec::new();
        for (index, request) in (0..).zip(requests) {
            let mut prepared = self.prepare(tenant.clone(), &request, Client::Leaves)?;
            prepared.admitted.program = Some(self.inner.programs.of(&batch));
            let accepted = Accepted {
                batch: Some((batch.clone(), index)),
                ..accepted_of(&prepared.job, request)
            };
            all.push((prepared, accepted));
        }
        let jobs = self.store_and_start(token, all).await;
        jobs.map(|jobs| (batch, jobs))
    }

    /// Stores executions, all or none, and starts them.
    pub(super) async fn store_and_start(
        &self,
        token: TaskTrackerToken,
        all: Vec<(Prepared, Accepted)>,
    ) -> Result<Vec<Arc<Job>>, SubmitError> {
        let (all, accepted): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let service = self.clone();
        let started = tokio::spawn(async move {
            let _token = token;
            service.parts().store.accept_all(&accepted).await?;
            let started = all.into_iter().map(|prepared| {
                service.inner.cache.insert(Arc::clone(&prepared.job));
                service.start(prepared)
            });
            Ok(started.collect())
        });
        started.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Checks a request and gives it a queue slot. The caller holds a token of [`Inner::tasks`], for which `finish` waits: it is
    /// taken before `draining` is read, so that either `finish` waits, or this call sees that `drain` was called.
    pub(super) fn prepare(
        &self,
        tenant: Tenant,
        request: &ExecutionRequest,
        client: Client,
    ) -> Result<Prepared, SubmitError> {
        let arrived = Instant::now();
        if self.is_draining() {
            return Err(SubmitError::Draining);
        }
        // Results that could not be written are held in memory, which is limited.
        if let Some(failures) = self.parts().store.failed_writes()
            && failures.bytes > self.parts().config.store.cache_bytes
        {
            return Err(StoreError::Unwritten(failures).into());
        }
        let id = uuid::Uuid::new_v4().to_string();
        let admitted = self.admit(&id, request)?;
        if client != Client::Leaves {
            check_waited_for(request)?;
        }
        self.check_callback(request)?;
        let scheduler = &self.parts().scheduler;
        let image = self.parts().images.ready(&admitted.language);
        let version = image.as_ref().and_then(|image| image.version.as_deref());
        check_version(admitted.version.as_deref(), &admitted.language, version)?;
        let slot = match image {
            Some(_) => scheduler.enter(&tenant, admitted.bytes)?,
            None => scheduler.enter_for_image(&tenant, admitted.bytes)?,
        };
        let about = About {
            id,
            tenant,
            language: admitted.language.name.clone(),
            labels: request.labels.clone(),
            created_ms: now_ms().unsigned_abs(),
        };
        Ok(Prepared {
            job: Arc::new(
                Job::new(about, client, self.inner.halt.child_token())
                    .interactive(request.interactive),
            ),
            admitted,
            slot,
            arrived,
        })
    }

    fn check_callback(&self, request: &ExecutionRequest) -> Result<(), Refused> {
        let Some(url) = &request.callback_url else {
            return Ok(());
        };
        let egress = self.inner.callbacks.egress().ok_or(Refused::NoCallbacks)?;
        egress
            .check_url(url)
            .map_err(|reason| Refused::CallbackUrl {
                url: url.chars().take(60).flat_map(char::escape_debug).collect(),
                reason,
            })
    }

    /// Restarts an execution that an earlier clouded accepted. The error is the reason why it cannot run.
    pub(super) fn resume(&self, accepted: &Accepted) -> Result<(), String> {
        let mut admitted = self
            .admit(&accepted.id, &accepted.request)
            .map_err(|refused| refused.to_string())?;
        let batch = accepted.batch.as_ref();
        admitted.program = batch.map(|(batch, _)| self.inner.programs.of(batch));
        let slot = self
            .parts()
            .scheduler
            .enter_again(&accepted.tenant, admitted.bytes);
        let stop = self.inner.halt.child_token();
        let job = Arc::new(Job::new(about_accepted(accepted), Client::Leaves, stop));
        self.inner.cache.insert(Arc::clone(&job));
        self.start(Prepared {
            job,
            admitted,
            slot,
            arrived: Instant::now(),
        });
        Ok(())
    }

    fn start(&self, prepared: Prepared) -> Arc<Job> {
        let Prepared {
            job,
            admitted,
            slot,
            arrived,
        } = prepared;
        let inner = Arc::clone(&self.inner);
        let running = Arc::clone(&job);
        self.inner.tasks.spawn(async move {
            let parts = Arc::clone(&inner.parts);
            let run = run::run(parts, Arc::clone(&running), admitted, slot, arrived);
            let (execution, teardown) = match AssertUnwindSafe(run).catch_unwind().await {
                Ok(ended) => ended,
                // The panic has dropped the VM and the permit.
                Err(panic) => (run::panicked(&running, &*panic), Teardown::default()),
            };
            inner.ended(&running, execution).await;
            teardown.end().await;
        });
        job
    }
}

/// Refuses a callback of an execution that does not outlive its request.
fn check_waited_for(request: &ExecutionRequest) -> Result<(), Refused> {
    match request.callback_url {
        Some(_) => Err(Refused::NotDurable),
        None => Ok(()),
    }
}

/// The request as the store may have it: the names of its secrets are left, so that the next start knows what is missing.
fn without_secrets(mut request: ExecutionRequest) -> ExecutionRequest {
    for value in request.secrets.values_mut() {
        *value = Secret::default();
    }
    request
}

impl Inner {
    /// Stores and publishes a result.
    async fn ended(&self, job: &Job, execution: Arc<Execution>) {
        let store = &self.parts.store;
        let id = &job.about.id;
        if job.is_durable()
            && execution.cause == Cause::Cancelled
            && job.stopped() == Stop::ShutDown
        {
            // The next start of clouded restarts it, and does not count this attempt.
            if job.progress().status == Status::Running {
                store.interrupted(id);
            }
            self.cache.remove(id);
            job.leave();
            return run::report(&execution);
        }
        self.metrics.executed(&execution);
        let to_store = Arc::new(job.to_store(Arc::clone(&execution)));
        let overhead = if job.is_durable() {
            // Stored before it is published: otherwise a client could see the execution as pending again after a
            // crash. If the write fails, the result is published anyway, and GET /health reports the failure.
            let _ = store.finished_now(to_store).await;
            if self.callbacks.egress().is_some() {
                self.callbacks.wake();
            }
            job.publish(&execution)
        } else {
            let overhead = job.publish(&execution);
            // The waiting client takes the result before this task stops the VM.
            tokio::task::yield_now().await;
            if store.unwritten_bytes() > self.parts.config.store.cache_bytes {
                // Programs print faster than the disk writes: this one keeps its VM permit meanwhile.
                let _ = store.finished_now(to_store).await;
            } else {
                store.finished(to_store);
            }
            overhead
        };
        // From here on the store can serve it, and the cache may evict it.
        self.cache.finished(&execution, overhead);
        run::report(&execution);
    }
}
