//! One execution in one VM: the request, and whatever ends it.

use std::time::Duration;

use cloude_protocol::agent::{Event, ExecuteRequest};
use tokio_util::sync::CancellationToken;

use super::client::{Connection, execute};
use crate::error::Failure;
use crate::launched::Machine;
use crate::machine::AgentStream;

/// Maximum time that a broken connection waits for the VM's failure, which explains more than the I/O error.
const FAILURE_WAIT: Duration = Duration::from_secs(2);

/// An execution without a result.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub struct ExchangeError {
    /// The failure of the VM or of the agent, or the cancellation.
    pub failure: Failure,
    /// The agent refused the request itself, which is a fault of neither the VM nor its template.
    pub refused: bool,
}

impl From<Failure> for ExchangeError {
    fn from(failure: Failure) -> Self {
        ExchangeError {
            failure,
            refused: false,
        }
    }
}

/// Artifacts that are sent slower than this many bytes in a second are given up.
const ARTIFACT_RATE: u64 = 4 << 20;

/// [`execute`] until it ends, the VM fails, `cancel` is cancelled, or the wall-clock limits of all stages, the time for
/// artifacts and `grace` are over.
///
/// Meanwhile input for an interactive program is sent by an [`super::InputSender`], made of the machine's connector
/// ([`Machine::connector`]) before this borrows it.
pub async fn exchange(
    (stream, token): (Box<dyn AgentStream>, &str),
    machine: &mut dyn Machine,
    request: &ExecuteRequest,
    grace: Duration,
    cancel: &CancellationToken,
    each: impl FnMut(Event),
) -> Result<Connection, ExchangeError> {
    let error = tokio::select! {
        biased;
        result = execute(stream, token, request, each) => match result {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        },
        () = cancel.cancelled() => return Err(Failure::cancelled("cancelled").into()),
        failure = machine.failed() => return Err(failure.into()),
        () = tokio::time::sleep(wall_time(request) + artifact_time(request) + grace) => {
            let message = "the VM did not answer within its wall-clock limits";
            return Err(Failure::infrastructure(message).into());
        }
    };
    if error.is_connection() {
        // The usual reason is that the VM failed, and its failure has the cause.
        let failed = tokio::time::timeout(FAILURE_WAIT, machine.failed()).await;
        if let Ok(failure) = failed {
            return Err(failure.into());
        }
    }
    Err(ExchangeError {
        failure: Failure::infrastructure(error.to_string()),
        refused: error.is_refused_request(),
    })
}

/// The wall-clock limits of all stages.
pub fn wall_time(request: &ExecuteRequest) -> Duration {
    let compile = request.compile.as_ref();
    let compile_ms = compile.map_or(0, |stage| stage.wall_time_ms);
    Duration::from_millis(compile_ms + request.run.wall_time_ms)
}

/// The time to find and send the artifacts.
fn artifact_time(request: &ExecuteRequest) -> Duration {
    let artifacts = request.artifacts.as_ref();
    artifacts.map_or(Duration::ZERO, |wanted| {
        Duration::from_secs(5 + wanted.max_bytes / ARTIFACT_RATE)
    })
}
