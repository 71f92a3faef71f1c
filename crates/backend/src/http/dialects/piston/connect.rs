//! The WebSocket `/api/v2/connect`: one program, with its input and output as they come.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::response::Response;
use cloude_protocol::agent::{Interactive, StageName, Stream};
use cloude_protocol::api::{Execution, ExecutionEvent};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};

use super::response::{Failed, Output};
use super::runtimes::piston_name;
use super::start::{Started, start};
use crate::http::error::ApiError;
use crate::http::executions::CancelOnDrop;
use crate::http::peer::Peer;
use crate::http::upgrade::Held;
use crate::http::websocket::{self, Client, End, Feed, Sink, Source};
use crate::jobs::{Control, Follower, Job, Pin, Service, SubmitError};
use crate::keys::Caller;

/// Largest message of a client in bytes; the first one has the program.
const MAX_MESSAGE: usize = 1 << 20;
/// Maximum time for the message `init`.
const INIT: Duration = Duration::from_secs(1);

/// The end of a connection, with an `error` message before it if there is one.
struct Closing {
    error: Option<String>,
    end: End,
}

impl From<End> for Closing {
    fn from(end: End) -> Self {
        Closing { error: None, end }
    }
}

fn close(code: u16, reason: &str) -> Closing {
    End::Close(code, reason.to_owned()).into()
}

fn already_initialized() -> Closing {
    close(4000, "Already Initialized")
}

fn initialization_timeout() -> Closing {
    close(4001, "Initialization Timeout")
}

fn notified(error: String) -> Closing {
    Closing {
        error: Some(error),
        ..close(4002, "Notified Error")
    }
}

fn not_initialized() -> Closing {
    close(4003, "Not yet initialized")
}

fn only_stdin() -> Closing {
    close(4004, "Can only write to stdin")
}

fn invalid_signal() -> Closing {
    close(4005, "Invalid signal")
}

fn completed() -> Closing {
    close(4999, "Job Completed")
}

/// `GET /api/v2/connect`
pub async fn connect(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(held): Extension<Held>,
    Extension(caller): Extension<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = websocket::limited(upgrade, MAX_MESSAGE)?;
    let pin = service.pins().pin(peer.closer());
    let client = Client { peer, caller, held };
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (mut sink, mut source) = socket.split();
        let talk = async {
            let closing = match talk(&mut sink, &mut source, &service, &client.caller, pin).await {
                Ok(closing) | Err(closing) => closing,
            };
            if let Some(message) = closing.error {
                let error = json!({"type": "error", "message": message});
                let _ = websocket::send(&mut sink, error.to_string()).await;
            }
            closing.end
        };
        let end = client.while_valid(talk).await;
        client.close(sink, source, end).await;
    }))
}

async fn talk(
    sink: &mut Sink,
    source: &mut Source,
    service: &Service,
    caller: &Caller,
    pin: Pin,
) -> Result<Closing, Closing> {
    let body = match tokio::time::timeout(INIT, init(source)).await {
        Ok(body) => body?,
        Err(_) => return Err(initialization_timeout()),
    };
    let started = start(service, caller, body, Some(Interactive::default())).await;
    let started = started.map_err(|refusal| notified(refusal.message()))?;
    // The program ends with the connection, as in the original.
    let _cancel = CancelOnDrop(Arc::clone(&started.job));
    tokio::select! {
        biased;
        closing = output(sink, &started, pin) => closing,
        closing = input(source, &started.job) => Ok(closing),
    }
}

/// The fields of the first message.
async fn init(source: &mut Source) -> Result<Map<String, Value>, Closing> {
    loop {
        let (kind, message) = received(websocket::next(source).await?)?;
        match kind.as_str() {
            "init" => return Ok(message),
            "data" | "signal" => return Err(not_initialized()),
            // As in the original.
            _ => {}
        }
    }
}

/// The type of a message, and all its fields.
fn received(message: Message) -> Result<(String, Map<String, Value>), Closing> {
    let message: Map<String, Value> = serde_json::from_slice(&message.into_data())
        .map_err(|error| notified(format!("invalid message: {error}")))?;
    let kind = message.get("type").and_then(Value::as_str);
    Ok((kind.unwrap_or_default().to_owned(), message))
}

/// Sends the messages of a program up to its end.
async fn output(sink: &mut Sink, started: &Started, pin: Pin) -> Result<Closing, Closing> {
    let name = piston_name(&started.language.name);
    let version = started.version.to_string();
    let runtime = json!({"type": "runtime", "language": name, "version": version});
    websocket::send(sink, runtime.to_string()).await?;
    let mut follower = Follower::of(Arc::clone(&started.job), pin, None);
    let mut compiles = false;
    loop {
        let message = match websocket::event(sink, &mut follower).await? {
            None => return Err(notified(SubmitError::Draining.to_string())),
            Some(ExecutionEvent::Result(execution)) => {
                exit(sink, &execution, compiles, name, version).await?;
                return Ok(completed());
            }
            Some(ExecutionEvent::Started { stage }) => {
                if compiles && stage == StageName::Run {
                    // Only a compiler that exits with 0 is followed by the program.
                    let exit =
                        json!({"type": "exit", "stage": "compile", "code": 0, "signal": null});
                    websocket::send(sink, exit.to_string()).await?;
                }
                compiles = stage == StageName::Compile;
                json!({"type": "stage", "stage": stage})
            }
            Some(ExecutionEvent::Output { stream, data, .. }) => {
                data_message(stream, &data.to_text())
            }
            Some(
                ExecutionEvent::Accepted { .. }
                | ExecutionEvent::Restarted { .. }
                | ExecutionEvent::Dropped { .. },
            ) => continue,
        };
        websocket::send(sink, message.to_string()).await?;
    }
}

fn data_message(stream: Stream, text: &str) -> Value {
    json!({"type": "data", "stream": stream, "data": text})
}

/// Sends the end of the last stage.
async fn exit(
    sink: &mut Sink,
    execution: &Execution,
    compiles: bool,
    name: &str,
    version: String,
) -> Result<(), Closing> {
    let answer = Output::default().answer(execution, name, version);
    let answer = answer.map_err(|failed| match failed {
        Failed::Infrastructure(message) | Failed::Stopped(message) => notified(message),
    })?;
    let stage = match (compiles, answer.compile) {
        (true, Some(compile)) => compile,
        _ => answer.run,
    };
    let name = if compiles { "compile" } else { "run" };
    let exit = json!({"type": "exit", "stage": name, "code": stage.code, "signal": stage.signal});
    Ok(websocket::send(sink, exit.to_string()).await?)
}

/// Receives input until the client closes the connection or sends an invalid message.
async fn input(source: &mut Source, job: &Job) -> Closing {
    let Some(port) = job.input() else {
        return notified("the program takes no input".into());
    };
    let feed = Feed::default();
    tokio::select! {
        biased;
        closing = receive(source, job, &feed) => closing,
        error = feed.run(port) => notified(error.to_string()),
    }
}

async fn receive(source: &mut Source, job: &Job, feed: &Feed) -> Closing {
    loop {
        let message = match websocket::next(source).await {
            Ok(message) => received(message),
            Err(end) => return end.into(),
        };
        let taken = match message {
            Ok((kind, message)) => take(&kind, &message, job, feed).await,
            Err(closing) => Err(closing),
        };
        if let Err(closing) = taken {
            return closing;
        }
    }
}

async fn take(
    kind: &str,
    message: &Map<String, Value>,
    job: &Job,
    feed: &Feed,
) -> Result<(), Closing> {
    let text = |name: &str| message.get(name).and_then(Value::as_str);
    match (kind, job.input()) {
        ("init", _) => return Err(already_initialized()),
        ("data", _) if text("stream") != Some("stdin") => return Err(only_stdin()),
        ("data", _) => {
            // Our addition: the original cannot end standard input.
            let end = message.get("eof") == Some(&Value::Bool(true));
            let data = text("data").or(end.then_some(""));
            let data = data.ok_or_else(|| notified("data must be a string".into()))?;
            feed.push(data.as_bytes(), end).await;
        }
        ("signal", Some(port)) => {
            let name = text("signal").filter(|name| name.starts_with("SIG"));
            let number = name.and_then(websocket::number);
            let number = number.ok_or_else(invalid_signal)?;
            let sent = port.control(Control::Signal(number)).await;
            sent.map_err(|error| notified(error.to_string()))?;
        }
        _ => {}
    }
    Ok(())
}
