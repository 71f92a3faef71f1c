//! Relays one event to standard output and standard error.

use cloude_protocol::agent::{StageName, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent};

use crate::error::CliError;
use crate::outcome;
use crate::terminal;

/// The names of the events that this version knows. Others are ignored.
const KNOWN: [&str; 6] = [
    "accepted",
    "restarted",
    "started",
    "output",
    "dropped",
    "result",
];

/// True if this version knows the event.
pub fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// Returns the result of the last event. Both streams of a compiler go to standard error, so that standard output holds the
/// program's output alone.
pub fn relay(event: ExecutionEvent) -> Result<Option<Execution>, CliError> {
    match event {
        ExecutionEvent::Accepted { .. } => {}
        ExecutionEvent::Restarted { .. } => {
            terminal::clear_spinner();
            terminal::note("the backend was restarted: the output starts over");
        }
        ExecutionEvent::Started {
            stage: StageName::Compile,
        } => terminal::show_spinner("compiling"),
        ExecutionEvent::Started {
            stage: StageName::Run,
        } => terminal::clear_spinner(),
        ExecutionEvent::Output {
            stage: StageName::Run,
            stream: Stream::Stdout,
            data,
        } => {
            terminal::clear_spinner();
            terminal::stdout(&data.0)?;
        }
        ExecutionEvent::Output { data, .. } => {
            terminal::clear_spinner();
            terminal::stderr(&data.0);
        }
        ExecutionEvent::Dropped {
            stage,
            stream,
            bytes,
        } => {
            terminal::clear_spinner();
            outcome::dropped(stage, stream, bytes);
        }
        ExecutionEvent::Result(execution) => {
            terminal::clear_spinner();
            return Ok(Some(*execution));
        }
    }
    Ok(None)
}
