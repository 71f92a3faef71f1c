//! What an earlier clouded accepted and did not finish.

use std::sync::Arc;

use cloude_protocol::agent::{Cause, ExecuteResult};
use cloude_protocol::api::{StartKind, Timings};

use super::outcome::Ending;
use super::service::Service;
use super::transcript::Transcript;
use crate::store::{Accepted, StoreError};
use crate::vm::Death;

/// An execution that was in a VM so often when clouded died may be the reason that it did.
const MAX_ATTEMPTS: u32 = 3;

impl Service {
    /// Runs again what was accepted: a fresh VM has no trace of the attempt before. What a client
    /// was waiting for is ended, for the client is gone.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let mut again = 0;
        for accepted in self.parts().store.unfinished().await? {
            if let Some(reason) = hopeless(&accepted) {
                self.give_up(&accepted, reason);
            } else if let Err(reason) = self.resume(&accepted) {
                self.give_up(&accepted, reason);
            } else {
                again += 1;
            }
        }
        Ok(again)
    }

    fn give_up(&self, accepted: &Accepted, message: String) {
        let cause = if accepted.durable {
            Cause::Infrastructure
        } else {
            Cause::Cancelled
        };
        let result: Result<ExecuteResult, Death> = Err(Death { cause, message });
        let ending = Ending {
            id: &accepted.id,
            language: &accepted.language,
            result,
            transcript: &mut Transcript::default(),
            timings: Timings::default(),
            ip: None,
            start: StartKind::Cold,
        };
        self.parts().store.finished(Arc::new(ending.execution()));
    }
}

fn hopeless(accepted: &Accepted) -> Option<String> {
    if !accepted.durable {
        return Some("clouded was stopped while the client waited".into());
    }
    (accepted.attempts >= MAX_ATTEMPTS).then(|| {
        format!(
            "clouded was stopped during each of {} attempts at this execution",
            accepted.attempts
        )
    })
}
