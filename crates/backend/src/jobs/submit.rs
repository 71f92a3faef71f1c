//! An execution from its request to its stored result.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use cloude_protocol::agent::Cause;
use cloude_protocol::api::{Execution, ExecutionRequest, Status};
use futures_util::FutureExt;

use super::admission::Admitted;
use super::service::{Inner, Service, SubmitError};
use super::{Client, Job, Stop, run};
use crate::scheduler::QueueSlot;
use crate::store::{Accepted, StoreError};

impl Service {
    /// Accepts an execution.
    pub async fn submit(
        &self,
        request: ExecutionRequest,
        client: Client,
    ) -> Result<Arc<Job>, SubmitError> {
        let arrived = Instant::now();
        // `finish` waits for this token, and with it for the job: taken before the question, so that either
        // `drain` sees the token or we see that it was called.
        let token = self.inner.tasks.token();
        if self.is_draining() {
            return Err(SubmitError::Draining);
        }
        // Results that wait for the disk are all in memory.
        if let Some(trouble) = self.parts().store.trouble()
            && trouble.bytes > self.parts().config.store.cache_bytes
        {
            return Err(StoreError::Unwritten(trouble).into());
        }
        let id = uuid::Uuid::new_v4().to_string();
        let admitted = self.admit(&id, &request)?;
        let scheduler = &self.parts().scheduler;
        let place = match self.parts().images.ready(&admitted.language) {
            Some(_) => scheduler.enter(admitted.bytes)?,
            None => scheduler.enter_aside(admitted.bytes)?,
        };
        let job = self.job_for(id, &admitted, client);
        if client != Client::Leaves {
            return Ok(self.start(job, admitted, place, arrived));
        }
        let accepted = Accepted {
            id: job.id.clone(),
            language: job.language.clone(),
            request,
            attempts: 0,
        };
        // A task of its own: once it is stored it is run, also if the client does not wait for the answer.
        let service = self.clone();
        let started = tokio::spawn(async move {
            let _token = token;
            service.parts().store.accept(&accepted).await?;
            Ok(service.start(job, admitted, place, arrived))
        });
        started.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    fn job_for(&self, id: String, admitted: &Admitted, client: Client) -> Job {
        let language = admitted.language.name.clone();
        Job::new(id, language, client, self.inner.halt.child_token())
    }

    /// Takes up again what was accepted before; the error says why that cannot be.
    pub(super) fn resume(&self, accepted: &Accepted) -> Result<(), String> {
        let admitted = self
            .admit(&accepted.id, &accepted.request)
            .map_err(|refused| refused.to_string())?;
        let place = self.parts().scheduler.enter_again(admitted.bytes);
        let job = self.job_for(accepted.id.clone(), &admitted, Client::Leaves);
        self.start(job, admitted, place, Instant::now());
        Ok(())
    }

    fn start(&self, job: Job, admitted: Admitted, place: QueueSlot, arrived: Instant) -> Arc<Job> {
        let job = Arc::new(job);
        self.inner.cache.insert(Arc::clone(&job));
        let inner = Arc::clone(&self.inner);
        let running = Arc::clone(&job);
        self.inner.tasks.spawn(async move {
            let parts = Arc::clone(&inner.parts);
            let run = run::run(parts, Arc::clone(&running), admitted, place, arrived);
            let (execution, teardown) = match AssertUnwindSafe(run).catch_unwind().await {
                Ok(ended) => ended,
                // The machine and the permit were dropped with the rest of the task.
                Err(panic) => (run::panicked(&running, &*panic), run::Teardown::default()),
            };
            inner.ended(&running, execution).await;
            teardown.end().await;
        });
        job
    }
}

impl Inner {
    /// Stores a result and shows it.
    async fn ended(&self, job: &Job, execution: Arc<Execution>) {
        let store = &self.parts.store;
        let durable = job.client == Client::Leaves;
        if durable && execution.cause == Cause::Cancelled && job.stopped() == Stop::ShutDown {
            // Not a result: the next start runs it again, and this was no attempt.
            if job.progress().status == Status::Running {
                store.interrupted(&job.id);
            }
            self.cache.remove(&job.id);
            return run::report(&execution);
        }
        self.metrics.executed(&execution);
        if durable {
            // Before anybody sees it: it would be pending again after the death of this process. Where it
            // cannot be written it is shown all the same, and GET /health says so.
            let _ = store.finished_now(Arc::clone(&execution)).await;
            job.publish(&execution);
        } else {
            job.publish(&execution);
            // Lets clients that wait take the result before the VM is stopped.
            tokio::task::yield_now().await;
            store.finished(Arc::clone(&execution));
        }
        // The store knows it: only now may it leave the memory.
        self.cache.finished(&execution);
        run::report(&execution);
    }
}
