//! Executions by their id.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloude_protocol::api::{Execution, ExecutionSummary, StatusResponse};

use super::job::{Job, Stop};
use super::service::{Service, SubmitError};
use crate::keys::Caller;
use crate::store::StoreError;

/// The state of an execution.
pub enum Found {
    /// Finished.
    Ended(Arc<Execution>),
    /// Pending or running.
    Unfinished(Arc<Job>),
    /// Stored, and not restarted yet.
    Stored(ExecutionSummary),
}

impl Found {
    /// An unfinished execution as `GET /status/{id}` shows it; `Err` with the result of a finished one.
    pub fn status(&self) -> Result<StatusResponse, Arc<Execution>> {
        match self {
            Found::Ended(execution) => Err(Arc::clone(execution)),
            Found::Unfinished(job) => Ok(job.status()),
            Found::Stored(summary) => Ok(StatusResponse {
                id: summary.id.clone(),
                status: summary.status,
                language: summary.language.clone(),
                exit_code: None,
                stdout: String::new(),
                stderr: String::new(),
            }),
        }
    }
}

/// The content of an artifact.
pub enum Content {
    Memory(Bytes),
    /// The number of its stream in the store ([`Service::stored_part`]).
    Stored(i64),
}

impl Service {
    /// The state of an execution; `None` if the id is unknown, or if the caller may not see the execution.
    pub async fn find(&self, caller: &Caller, id: &str) -> Result<Option<Found>, StoreError> {
        if let Some(job) = self.in_memory(caller, id) {
            return Ok(Some(match job.result() {
                Some(execution) => Found::Ended(execution),
                None => Found::Unfinished(job),
            }));
        }
        let record = self.parts().store.get(id).await?;
        let record = record.filter(|record| caller.may_see(&record.tenant));
        Ok(record.map(|record| match record.result {
            Some(execution) => Found::Ended(execution),
            None => Found::Stored(record.summary),
        }))
    }

    pub(super) fn in_memory(&self, caller: &Caller, id: &str) -> Option<Arc<Job>> {
        let job = self.inner.cache.get(id)?;
        caller.may_see(&job.about.tenant).then_some(job)
    }

    /// Waits for the result of an execution; `None` after `time`, or if the shutdown stops it.
    pub async fn wait(&self, job: &Job, time: Duration) -> Option<Arc<Execution>> {
        tokio::select! {
            biased;
            execution = job.finished() => Some(execution),
            () = self.inner.halt.cancelled() => None,
            () = tokio::time::sleep(time) => None,
        }
    }

    /// Waits for the result of a durable execution, which the shutdown may stop without one.
    pub async fn result_of(&self, job: &Job) -> Result<Arc<Execution>, SubmitError> {
        tokio::select! {
            biased;
            execution = job.finished() => Ok(execution),
            // It has no result until the next start.
            () = self.inner.halt.cancelled() => Err(SubmitError::Draining),
        }
    }

    /// Cancels an execution and returns its result; a finished one keeps its result. `None` as for [`Service::find`].
    pub async fn cancel(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<Option<Arc<Execution>>, SubmitError> {
        if let Some(job) = self.in_memory(caller, id) {
            job.stop(Stop::Requested);
            return self.result_of(&job).await.map(Some);
        }
        match self.find(caller, id).await? {
            None => Ok(None),
            Some(Found::Ended(execution)) => Ok(Some(execution)),
            // An unfinished execution leaves the memory only when the shutdown stops it.
            Some(Found::Unfinished(_) | Found::Stored(_)) => Err(SubmitError::Draining),
        }
    }

    /// An execution whose events can be read. `None` as for [`Service::find`].
    pub async fn readable(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<Option<Arc<Job>>, SubmitError> {
        if let Some(job) = self.in_memory(caller, id) {
            return Ok(Some(job));
        }
        let store = &self.parts().store;
        let record = store.get(id).await?;
        let Some(record) = record.filter(|record| caller.may_see(&record.tenant)) else {
            return Ok(None);
        };
        let Some(result) = record.result else {
            return Err(SubmitError::Draining);
        };
        let order = store.order(id).await?;
        let job = Job::stored(record.tenant, result, order.as_deref());
        Ok(Some(Arc::new(job)))
    }

    /// The content of an artifact by its place in [`Execution::artifacts`] of a finished execution.
    pub fn artifact(&self, execution: &Execution, index: usize) -> Content {
        let id = &execution.id;
        let cached = self.inner.cache.get(id).and_then(|job| job.file(index));
        let file = cached.or_else(|| self.parts().store.unwritten_file(id, index));
        match file {
            Some(file) => Content::Memory(file),
            None => Content::Stored(crate::store::file_stream(index)),
        }
    }

    /// A part of a stored artifact, and the position of its first byte; `None` if it was removed meanwhile.
    pub async fn stored_part(
        &self,
        id: &str,
        stream: i64,
        at: u64,
    ) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.parts().store.part(id, stream, at).await
    }
}
