//! The events of an execution.

use serde::{Deserialize, Serialize};

use super::Execution;
use crate::Data;
use crate::agent::{Interactive, StageName, Stream};

/// One line of a streamed execution.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ExecutionEvent {
    /// The request was accepted.
    Accepted {
        /// The execution's id.
        id: String,
        /// The request's `interactive`; absent once the server that ran the program has restarted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interactive: Option<Interactive>,
    },
    /// The server was restarted and runs the execution anew: the events before are void. Only for durable executions, to
    /// readers with events of the run before.
    Restarted {
        /// The execution's id.
        id: String,
    },
    /// The VM is ready and a stage was started.
    Started {
        /// The stage.
        stage: StageName,
    },
    /// Bytes that a stage wrote.
    Output {
        /// The stage.
        stage: StageName,
        /// The stream.
        stream: Stream,
        /// The bytes.
        data: Data,
    },
    /// Bytes beyond the output limit are missing here.
    Dropped {
        /// The stage.
        stage: StageName,
        /// The stream.
        stream: Stream,
        /// Number of missing bytes.
        bytes: u64,
    },
    /// The last event. Its `stdout` and `stderr` are empty: they were sent as events.
    Result(Box<Execution>),
}
