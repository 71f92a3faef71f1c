//! Accepts executions, starts their tasks and stores their results.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use cloude_protocol::Secret;
use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, ExecutionRequest, Status};
use futures_util::FutureExt;

use super::admission::{Admitted, check_version};
use super::attempt::Teardown;
use super::service::{Inner, Service, SubmitError};
use super::{Client, Job, Stop, run};
use crate::scheduler::QueueSlot;
use crate::store::{Accepted, StoreError, now_ms};
use crate::tenant::Tenant;

impl Service {
    /// Accepts an execution of `tenant`. A durable one ([`Client::Leaves`]) is stored before this returns.
    pub async fn submit(
        &self,
        tenant: Tenant,
        request: ExecutionRequest,
        client: Client,
    ) -> Result<Arc<Job>, SubmitError> {
        let arrived = Instant::now();
        // `finish` waits for this token, and so for the job. It is taken before `draining` is read: either `finish`
        // waits for the token, or this call sees that `drain` was called.
        let token = self.inner.tasks.token();
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
        let admitted = self.admit(&id, &request)?;
        let scheduler = &self.parts().scheduler;
        let image = self.parts().images.ready(&admitted.language);
        let version = image.as_ref().and_then(|image| image.version.as_deref());
        check_version(admitted.version.as_deref(), &admitted.language, version)?;
        let slot = match image {
            Some(_) => scheduler.enter(&tenant, admitted.bytes)?,
            None => scheduler.enter_for_image(&tenant, admitted.bytes)?,
        };
        let about = (request.labels.clone(), now_ms().unsigned_abs());
        let job = self.job_for((id, tenant), about, &admitted, client);
        if client != Client::Leaves {
            return Ok(self.start(job, admitted, slot, arrived));
        }
        let accepted = Accepted {
            id: job.id.clone(),
            tenant: job.tenant.clone(),
            language: job.language.clone(),
            request: without_secrets(request),
            attempts: 0,
            created_ms: job.created_ms,
        };
        // A separate task: an execution that was stored is started even if the client disconnects meanwhile.
        let service = self.clone();
        let started = tokio::spawn(async move {
            let _token = token;
            service.parts().store.accept(&accepted).await?;
            Ok(service.start(job, admitted, slot, arrived))
        });
        started.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    fn job_for(
        &self,
        id: (String, Tenant),
        about: (BTreeMap<String, String>, u64),
        admitted: &Admitted,
        client: Client,
    ) -> Job {
        let language = admitted.language.name.clone();
        Job::new(id, language, about, client, self.inner.halt.child_token())
    }

    /// Restarts an execution that an earlier clouded accepted. The error is the reason why it cannot run.
    pub(super) fn resume(&self, accepted: &Accepted) -> Result<(), String> {
        let admitted = self
            .admit(&accepted.id, &accepted.request)
            .map_err(|refused| refused.to_string())?;
        let slot = self
            .parts()
            .scheduler
            .enter_again(&accepted.tenant, admitted.bytes);
        let id = (accepted.id.clone(), accepted.tenant.clone());
        let about = (accepted.request.labels.clone(), accepted.created_ms);
        let job = self.job_for(id, about, &admitted, Client::Leaves);
        self.start(job, admitted, slot, Instant::now());
        Ok(())
    }

    fn start(&self, job: Job, admitted: Admitted, slot: QueueSlot, arrived: Instant) -> Arc<Job> {
        let job = Arc::new(job);
        self.inner.cache.insert(Arc::clone(&job));
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
        let durable = job.client == Client::Leaves;
        if durable && execution.cause == Cause::Cancelled && job.stopped() == Stop::ShutDown {
            // The next start of clouded restarts it, and does not count this attempt.
            if job.progress().status == Status::Running {
                store.interrupted(&job.id);
            }
            self.cache.remove(&job.id);
            return run::report(&execution);
        }
        self.metrics.executed(&execution);
        if durable {
            // Stored before it is published: otherwise a client could see the execution as pending again after a
            // crash. If the write fails, the result is published anyway, and GET /health reports the failure.
            let _ = store
                .finished_now(Arc::clone(&execution), job.tenant.clone())
                .await;
            job.publish(&execution);
        } else {
            job.publish(&execution);
            // The waiting client takes the result before this task stops the VM.
            tokio::task::yield_now().await;
            if store.unwritten_bytes() > self.parts.config.store.cache_bytes {
                // Programs print faster than the disk writes: this one keeps its VM permit meanwhile.
                let _ = store
                    .finished_now(Arc::clone(&execution), job.tenant.clone())
                    .await;
            } else {
                store.finished(Arc::clone(&execution), job.tenant.clone());
            }
        }
        // From here on the store can serve it, and the cache may evict it.
        self.cache.finished(&execution);
        run::report(&execution);
    }
}
