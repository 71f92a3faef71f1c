//! Recovery of executions that an earlier clouded accepted and did not finish.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloude_engine::Failure;
use cloude_protocol::api::{StartKind, Timings};

use super::outcome::ExecutionParts;
use super::service::Service;
use super::transcript::Transcript;
use crate::store::{Accepted, StoreError, Unreadable};

/// Attempts after which a crash of clouded is attributed to the execution.
const MAX_ATTEMPTS: u32 = 3;

impl Service {
    /// Restarts unfinished executions in fresh VMs and returns their number. An execution that cannot be restarted
    /// fails with the reason.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let mut again = 0;
        for row in self.parts().store.unfinished().await? {
            let failed = match row {
                Ok(accepted) => match self.run_again(&accepted) {
                    Ok(()) => {
                        again += 1;
                        continue;
                    }
                    Err(reason) => Lost {
                        labels: accepted.request.labels,
                        row: Unreadable {
                            id: accepted.id,
                            tenant: accepted.tenant,
                            language: accepted.language,
                            created_ms: accepted.created_ms,
                            reason,
                        },
                    },
                },
                Err(row) => Lost {
                    labels: BTreeMap::new(),
                    row,
                },
            };
            self.fail(failed);
        }
        Ok(again)
    }

    fn run_again(&self, accepted: &Accepted) -> Result<(), String> {
        if accepted.attempts >= MAX_ATTEMPTS {
            return Err(format!(
                "clouded crashed during each of {} attempts at this execution",
                accepted.attempts
            ));
        }
        if !accepted.request.secrets.is_empty() {
            return Err(
                "clouded stopped before this execution ended, and did not store its `secrets`: start it again".into(),
            );
        }
        self.resume(accepted)
    }

    fn fail(&self, Lost { labels, row }: Lost) {
        tracing::warn!(
            id = row.id,
            reason = row.reason,
            "an execution of an earlier clouded is not run again"
        );
        let parts = ExecutionParts {
            id: &row.id,
            language: &row.language,
            image: None,
            result: Err(Failure::infrastructure(row.reason)),
            transcript: &mut Transcript::default(),
            timings: Timings::default(),
            ip: None,
            network: None,
            start: StartKind::Cold,
            memory_mib: 0,
            labels: &labels,
            created_ms: row.created_ms,
        };
        self.parts()
            .store
            .finished(Arc::new(parts.execution()), row.tenant);
    }
}

/// An execution that is not run again.
struct Lost {
    labels: BTreeMap<String, String>,
    row: Unreadable,
}
