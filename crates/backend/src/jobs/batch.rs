//! Batches: many inputs of one program.

use cloude_protocol::api::{
    Batch, BatchInput, BatchRequest, ExecutionRequest, ExecutionSummary, Status,
};

use super::refused::{Refused, ensure};
use super::service::{Service, SubmitError};
use crate::keys::Caller;
use crate::store::StoreError;
use crate::tenant::Tenant;

/// The most inputs of a batch.
const MAX_INPUTS: usize = 1000;

impl Service {
    /// Accepts all executions of a batch, or none.
    pub async fn submit_batch(
        &self,
        tenant: Tenant,
        batch: BatchRequest,
    ) -> Result<Batch, SubmitError> {
        let BatchRequest { request, inputs } = batch;
        ensure((1..=MAX_INPUTS).contains(&inputs.len()), || {
            Refused::Inputs {
                count: inputs.len(),
                limit: MAX_INPUTS,
            }
        })?;
        ensure(request.interactive.is_none(), || Refused::InteractiveBatch)?;
        let requests = inputs.into_iter().map(|input| with_input(&request, input));
        let (id, jobs) = self.submit_all(tenant, requests.collect()).await?;
        let executions = jobs.iter().map(|job| job.summary()).collect();
        Ok(batch_of(id, executions))
    }

    /// A batch; `None` if the id is unknown, or if the caller may not see it.
    pub async fn batch(&self, caller: &Caller, id: &str) -> Result<Option<Batch>, StoreError> {
        let rows = self.parts().store.batch(id).await?;
        let executions: Vec<_> = rows
            .into_iter()
            .filter(|(tenant, _)| caller.may_see(tenant))
            // The row of an execution that runs is older than its job.
            .map(|(_, summary)| match self.in_memory(caller, &summary.id) {
                Some(job) => job.summary(),
                None => summary,
            })
            .collect();
        Ok((!executions.is_empty()).then(|| batch_of(id.to_owned(), executions)))
    }
}

fn with_input(request: &ExecutionRequest, input: BatchInput) -> ExecutionRequest {
    let mut request = request.clone();
    if let Some(stdin) = input.stdin {
        request.stdin = stdin;
    }
    if let Some(args) = input.args {
        request.args = args;
    }
    request.env.extend(input.env);
    request.labels.extend(input.labels);
    request
}

fn batch_of(id: String, executions: Vec<ExecutionSummary>) -> Batch {
    let has_ended = |it: &ExecutionSummary| matches!(it.status, Status::Done | Status::Error);
    Batch {
        id,
        ended: executions.iter().all(has_ended),
        executions,
    }
}
