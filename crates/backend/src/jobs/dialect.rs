//! Executions of other servers' clients. The request in its dialect is stored beside them, because answers need it after the
//! end.

use std::sync::Arc;

use cloude_protocol::agent::StageName;
use cloude_protocol::api::{Execution, ExecutionRequest};

use super::job::{Client, Job};
use super::refused::Refused;
use super::service::{Service, SubmitError};
use super::submit::accepted_of;
use super::transcript::Transcript;
use crate::keys::Caller;
use crate::store::{Accepted, Page, StoreError};
use crate::tenant::Tenant;

/// A translated request.
pub struct Translated {
    pub request: ExecutionRequest,
    /// The request in its dialect, as JSON.
    pub dialect: String,
}

impl Service {
    /// Accepts durable executions. Each that is refused has its reason; any other error accepts none.
    pub async fn submit_each(
        &self,
        tenant: &Tenant,
        all: Vec<Translated>,
    ) -> Result<Vec<Result<Arc<Job>, Refused>>, SubmitError> {
        let token = self.inner.tasks.token();
        let (mut outcomes, mut prepared) = (Vec::new(), Vec::new());
        for Translated { request, dialect } in all {
            outcomes.push(
                match self.prepare(tenant.clone(), &request, Client::Leaves) {
                    Ok(new) => {
                        let job = Arc::clone(&new.job);
                        let accepted = Accepted {
                            dialect: Some(dialect),
                            ..accepted_of(&job, request)
                        };
                        prepared.push((new, accepted));
                        Ok(job)
                    }
                    Err(SubmitError::Refused(refused)) => Err(refused),
                    Err(error) => return Err(error),
                },
            );
        }
        if !prepared.is_empty() {
            self.store_and_start(token, prepared).await?;
        }
        Ok(outcomes)
    }

    /// The request in its dialect. None if the id is unknown, if the execution has no dialect, or if the caller may not see
    /// it.
    pub async fn dialect(&self, caller: &Caller, id: &str) -> Result<Option<String>, StoreError> {
        let found = self.parts().store.dialect(id).await?;
        let found = found.filter(|(owner, _)| caller.may_see(owner));
        Ok(found.map(|(_, dialect)| dialect))
    }

    /// A page of the executions with a dialect that the caller may see, newest first.
    pub async fn dialects(
        &self,
        caller: &Caller,
        limit: u64,
        offset: u64,
    ) -> Result<Page, StoreError> {
        let owner = (!caller.sees_all()).then(|| caller.tenant().clone());
        self.parts().store.dialects(owner, limit, offset).await
    }

    /// Removes a finished execution and everything that is stored for it. The caller of this function has checked that the
    /// client may see it.
    pub async fn delete(&self, execution: &Execution) -> Result<(), StoreError> {
        self.parts().store.delete(&execution.id).await?;
        self.inner.cache.remove(&execution.id);
        Ok(())
    }

    /// Both streams of a stage of a finished execution, in the order in which the agent read them.
    pub async fn merged_output(
        &self,
        execution: &Execution,
        stage: StageName,
    ) -> Result<Vec<u8>, StoreError> {
        let order = self.parts().store.order(&execution.id).await?;
        Ok(merged_output(execution, order.as_deref(), stage))
    }
}

/// Likewise. `order`: what the store has of it; standard output comes first without it.
pub fn merged_output(execution: &Execution, order: Option<&[u8]>, stage: StageName) -> Vec<u8> {
    // The number of the run is before the pieces.
    let pieces = order.and_then(|order| order.get(size_of::<u32>()..));
    let transcript = pieces.and_then(Transcript::of_order);
    let transcript = transcript.unwrap_or_else(|| Transcript::of_result(execution));
    transcript.merged(stage, execution)
}
