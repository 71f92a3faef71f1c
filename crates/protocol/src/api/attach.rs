//! The messages of clients that are attached to an execution.

use serde::{Deserialize, Serialize};

use crate::Data;
use crate::agent::TerminalSize;

/// A text message of a client of `GET /v1/executions/{id}/attach`: an object with one key. The server's messages are
/// [`super::ExecutionEvent`]s. A binary message has the bytes for standard input as they are.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttachMessage {
    /// Bytes for standard input.
    Stdin(Data),
    /// `true`: close standard input after the bytes before. A terminal gets its end-of-file character.
    CloseStdin(bool),
    /// Send a signal to the program's process group, or to the foreground one of its terminal. Does not wait for the bytes
    /// before.
    Signal(SignalChoice),
    /// The terminal's new size.
    Resize(TerminalSize),
}

/// A signal of signal(7).
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum SignalChoice {
    /// `INT`, or `SIGINT`.
    Name(String),
    /// 1 to 64.
    Number(i32),
}
