//! Recovery of executions that an earlier clouded accepted and did not finish.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloude_engine::Failure;
use cloude_protocol::api::{StartKind, Timings};

use super::about::About;
use super::outcome::ExecutionParts;
use super::service::Service;
use super::submit::about_accepted;
use super::transcript::Transcript;
use crate::store::{Accepted, Ended, StoreError};

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
                    Err(reason) => (about_accepted(&accepted), reason),
                },
                Err(row) => (
                    About {
                        id: row.id,
                        tenant: row.tenant,
                        language: row.language,
                        labels: BTreeMap::new(),
                        created_ms: row.created_ms,
                    },
                    row.reason,
                ),
            };
            self.fail(&failed.0, failed.1);
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
        if accepted.request.interactive.is_some() {
            return Err(
                "clouded stopped before this interactive execution ended, and the input that it had is not stored: start it \
                 again"
                    .into(),
            );
        }
        self.resume(accepted)
    }

    fn fail(&self, about: &About, reason: String) {
        tracing::warn!(
            id = about.id,
            reason,
            "an execution of an earlier clouded is not run again"
        );
        let parts = ExecutionParts {
            about,
            image: None,
            result: Err(Failure::infrastructure(reason)),
            is_compile_shared: false,
            artifacts: Vec::new(),
            artifacts_dropped: 0,
            transcript: &mut Transcript::default(),
            timings: Timings::default(),
            ip: None,
            network: None,
            start: StartKind::Cold,
            memory_mib: 0,
        };
        self.parts().store.finished(Arc::new(Ended {
            result: Arc::new(parts.execution()),
            tenant: about.tenant.clone(),
            files: Vec::new(),
            // It is durable, but there are no events.
            order: Some(Vec::new()),
        }));
    }
}
