//! What an earlier clouded accepted and did not finish.

use std::sync::Arc;

use cloude_engine::Failure;
use cloude_protocol::api::{StartKind, Timings};

use super::outcome::Ending;
use super::service::Service;
use super::transcript::Transcript;
use crate::store::{Accepted, StoreError};

/// An execution that was in a VM so often when clouded died may be the reason that it did.
const MAX_ATTEMPTS: u32 = 3;

impl Service {
    /// Runs again what was accepted and not finished: a fresh VM has no trace of the attempt before. Gives
    /// how many. What cannot be run is ended with the reason.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let mut again = 0;
        for row in self.parts().store.unfinished().await? {
            let given_up = match row {
                Ok(accepted) => match self.run_again(&accepted) {
                    Ok(()) => {
                        again += 1;
                        continue;
                    }
                    Err(reason) => (accepted.id, accepted.language, reason),
                },
                Err(row) => (row.id, row.language, row.reason),
            };
            let (id, language, reason) = given_up;
            tracing::warn!(id, reason, "an execution of an earlier clouded is given up");
            self.give_up(&id, &language, reason);
        }
        Ok(again)
    }

    fn run_again(&self, accepted: &Accepted) -> Result<(), String> {
        if accepted.attempts >= MAX_ATTEMPTS {
            return Err(format!(
                "clouded died during each of {} attempts at this execution",
                accepted.attempts
            ));
        }
        self.resume(accepted)
    }

    fn give_up(&self, id: &str, language: &str, message: String) {
        let ending = Ending {
            id,
            language,
            image: None,
            result: Err(Failure::infrastructure(message)),
            transcript: &mut Transcript::default(),
            timings: Timings::default(),
            ip: None,
            start: StartKind::Cold,
            memory_mib: 0,
        };
        self.parts().store.finished(Arc::new(ending.execution()));
    }
}
