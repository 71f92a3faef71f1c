//! A session with an interactive program: its output, this process's standard input, and signals.

mod input;
mod signals;

use bytes::Bytes;
use cloude_protocol::agent::StageName;
use cloude_protocol::api::{Execution, ExecutionEvent};
use futures_util::StreamExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::client::Backend;
use crate::error::{BackendError, CliError};
use crate::events::{is_known, relay};
use crate::raw_mode::{self, RawMode};
use crate::terminal;
use crate::websocket;
use input::Keys;
use signals::{Leaving, cancel};

/// Follows an execution of this process. If that fails, the execution is cancelled.
pub async fn run(id: &str, backend: &Backend) -> Result<Execution, CliError> {
    let followed = follow(id, true, Leaving::Cancels, backend).await;
    if followed.is_err() {
        cancel(id, backend).await;
    }
    followed
}

/// Follows an execution that another process started.
pub async fn attach(id: &str, with_input: bool, backend: &Backend) -> Result<Execution, CliError> {
    follow(id, with_input, Leaving::Leaves, backend).await
}

/// Relays events up to the last one and returns its result.
async fn follow(
    id: &str,
    with_input: bool,
    leaving: Leaving,
    backend: &Backend,
) -> Result<Execution, CliError> {
    // In a task of its own: this one may be in a write to standard output that blocks.
    tokio::spawn(signals::leave(id.to_owned(), leaving, backend.clone()));
    let path = format!("v1/executions/{id}/attach");
    let (sink, source) = websocket::connect(&path, backend).await?.split();
    let mut messages = read_on(source);
    let mut sink = Some(sink);
    let mut interactive = None;
    let mut raw = None;
    while let Some(message) = messages.recv().await {
        let Some(event) = event(message, backend)? else {
            continue;
        };
        if let ExecutionEvent::Accepted {
            interactive: of, ..
        } = event
        {
            interactive = of.filter(|_| with_input);
        }
        let starts = matches!(
            event,
            ExecutionEvent::Started {
                stage: StageName::Run
            }
        );
        let result = relay(event);
        if let (Some(interactive), true) = (interactive, starts)
            && let Some(sink) = sink.take()
        {
            let keys = match interactive.terminal.is_some() && raw_mode::has_terminal() {
                true => {
                    if leaving == Leaving::Leaves {
                        terminal::note("attached; Ctrl-] leaves");
                    }
                    raw = Some(RawMode::enter()?);
                    Keys::Raw
                }
                false => Keys::Lines,
            };
            tokio::spawn(input::send(sink, keys));
        }
        if let Some(execution) = result? {
            drop(raw);
            return Ok(execution);
        }
    }
    Err(backend.closed().into())
}

/// Reads on while standard output blocks: the backend ends connections that take nothing. Output limits bound what waits.
fn read_on<S>(mut source: S) -> UnboundedReceiver<Result<Message, tungstenite::Error>>
where
    S: futures_util::Stream<Item = Result<Message, tungstenite::Error>> + Send + Unpin + 'static,
{
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = source.next().await {
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The event of a message; none if this version does not know it.
fn event(
    message: Result<Message, tungstenite::Error>,
    backend: &Backend,
) -> Result<Option<ExecutionEvent>, CliError> {
    #[derive(serde::Deserialize)]
    struct Named {
        event: String,
    }
    let url = || backend.shown().to_owned();
    let text: Bytes = match message {
        Ok(Message::Text(text)) => text.into(),
        Ok(Message::Close(Some(frame))) if !frame.reason.is_empty() => {
            // One line, and nothing that a terminal obeys.
            let reason = frame.reason.replace(char::is_control, " ");
            return Err(BackendError::Detached { url: url(), reason }.into());
        }
        Ok(_) => return Ok(None),
        Err(error) => {
            let reason = error.to_string();
            return Err(BackendError::Broken { url: url(), reason }.into());
        }
    };
    match serde_json::from_slice(&text) {
        Ok(event) => Ok(Some(event)),
        Err(error) => match serde_json::from_slice::<Named>(&text) {
            Ok(named) if !is_known(&named.event) => Ok(None),
            _ => Err(backend.bad_body(&error).into()),
        },
    }
}
