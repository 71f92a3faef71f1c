//! `GET /v1/executions/{id}/attach`: the events of an execution and the input of its program on one WebSocket.

use std::sync::Arc;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Extension, Request, State};
use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use cloude_protocol::api::{AttachMessage, ExecutionEvent, SignalChoice};
use futures_util::StreamExt;

use super::error::{ApiError, RequestError};
use super::extract::ApiPath;
use super::peer::Peer;
use super::upgrade::Held;
use super::websocket::{self, Client, End, Feed, Sink, Source, code};
use crate::jobs::{Control, Follower, Job, Service, check_size};
use crate::keys::Caller;

/// Largest message of a client in bytes.
const MAX_MESSAGE: usize = 256 << 10;
/// The subprotocol of this endpoint.
const PROTOCOL: &str = "cloude.v1";
/// The start of the subprotocol that is a client's API key.
const KEY_PROTOCOL: &str = "cloude.key.";

/// Takes the API key from a subprotocol: web pages cannot send the header `Authorization` with a handshake.
pub async fn key_of_protocol(mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !headers.contains_key(AUTHORIZATION)
        && let Some(mut bearer) = offered_key(headers)
    {
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    next.run(request).await
}

fn offered_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = offers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let key = offers.find_map(|offer| offer.trim().strip_prefix(KEY_PROTOCOL))?;
    HeaderValue::try_from(format!("Bearer {key}")).ok()
}

/// `GET /v1/executions/{id}/attach`
pub async fn attach(
    State(service): State<Service>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(held): Extension<Held>,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let Some(job) = service.readable(&caller, &id).await? else {
        return Err(RequestError::unknown_execution(&id).into());
    };
    let upgrade = websocket::limited(upgrade, MAX_MESSAGE)?.protocols([PROTOCOL]);
    let pin = service.pins().pin(peer.closer());
    let client = Client { peer, caller, held };
    Ok(upgrade.on_upgrade(move |socket| async move {
        let follower = Follower::of(Arc::clone(&job), pin, None);
        let (mut sink, mut source) = socket.split();
        let talk = async {
            tokio::select! {
                biased;
                end = output(&mut sink, follower) => end,
                end = input(&mut source, &job) => end,
            }
        };
        let end = client.while_valid(talk).await;
        client.close(sink, source, end).await;
    }))
}

/// Sends all events.
async fn output(sink: &mut Sink, mut follower: Follower) -> End {
    loop {
        let event = match websocket::event(sink, &mut follower).await {
            Ok(Some(event)) => event,
            Ok(None) => return End::Close(code::RESTART, "the server is shutting down".into()),
            Err(end) => return end,
        };
        let is_last = matches!(event, ExecutionEvent::Result(_));
        let sent = match serde_json::to_string(&event) {
            Ok(text) => websocket::send(sink, text).await,
            Err(error) => Err(End::Close(code::ERROR, error.to_string())),
        };
        match sent {
            Ok(()) if is_last => {
                return End::Close(code::NORMAL, "the execution has ended".into());
            }
            Ok(()) => {}
            Err(end) => return end,
        }
    }
}

/// Receives input until the client closes the connection or sends an invalid message.
async fn input(source: &mut Source, job: &Job) -> End {
    let feed = Feed::default();
    let received = receive(source, job, &feed);
    let Some(port) = job.input() else {
        return received.await;
    };
    tokio::select! {
        biased;
        end = received => end,
        error = feed.run(port) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> End {
    tracing::warn!(%error, "sending input to a program failed");
    End::Close(code::ERROR, format!("sending input failed: {error}"))
}

async fn receive(source: &mut Source, job: &Job, feed: &Feed) -> End {
    loop {
        let input = match websocket::next(source).await {
            Ok(message) => Input::of(message),
            Err(end) => return end,
        };
        let taken = match (input, job.input()) {
            (Err(reason), _) => Err(reason),
            (Ok(Input::Control(Control::Resize(_))), Some(port))
                if port.interactive().terminal.is_none() =>
            {
                Err("the program has no terminal: set `interactive.terminal`".to_owned())
            }
            (Ok(Input::Control(control)), Some(port)) => match port.control(control).await {
                Ok(()) => Ok(()),
                Err(error) => return failed(&error),
            },
            (Ok(Input::Bytes(bytes)), Some(_)) => {
                feed.push(&bytes, false).await;
                Ok(())
            }
            (Ok(Input::End), Some(_)) => {
                feed.push(&[], true).await;
                Ok(())
            }
            // The client cannot know that it has ended.
            (Ok(_), None) if job.result().is_some() => Ok(()),
            (Ok(_), None) => {
                Err("the execution takes no input: its request has no `interactive`".to_owned())
            }
        };
        if let Err(reason) = taken {
            return End::Close(code::POLICY, reason);
        }
    }
}

/// A valid message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Input {
    Bytes(Vec<u8>),
    End,
    Control(Control),
}

impl Input {
    /// The error is the reason for which the connection is closed.
    fn of(message: Message) -> Result<Self, String> {
        let text = match message {
            Message::Text(text) => text,
            binary => return Ok(Input::Bytes(binary.into_data().into())),
        };
        let message = serde_json::from_str(text.as_str());
        Ok(
            match message.map_err(|error| format!("invalid message: {error}"))? {
                AttachMessage::Stdin(data) => Input::Bytes(data.0),
                AttachMessage::CloseStdin(true) => Input::End,
                AttachMessage::CloseStdin(false) => {
                    return Err("invalid message: `close_stdin` must be true".into());
                }
                AttachMessage::Signal(signal) => Input::Control(Control::Signal(number(&signal)?)),
                AttachMessage::Resize(size) => {
                    check_size(size).map_err(|refused| refused.to_string())?;
                    Input::Control(Control::Resize(size))
                }
            },
        )
    }
}

fn number(signal: &SignalChoice) -> Result<i32, String> {
    let number = match signal {
        SignalChoice::Name(name) => websocket::number(name),
        SignalChoice::Number(number) => Some(*number).filter(|number| (1..=64).contains(number)),
    };
    number.ok_or_else(|| "invalid message: `signal` must be as `INT`, or 1 to 64".into())
}
