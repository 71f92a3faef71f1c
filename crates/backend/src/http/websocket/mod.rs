//! WebSockets (RFC 6455) of running executions: limits, closing, and input on its way to the program.

mod feed;
mod signal;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use cloude_protocol::api::ExecutionEvent;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite;

use super::error::RequestError;
use super::peer::Peer;
use super::upgrade::Held;
use crate::jobs::Follower;
use crate::keys::Caller;

pub use feed::Feed;
pub use signal::number;

/// Bytes of a connection's read buffer, of which each connection has one.
const READ_BUFFER: usize = 8 << 10;
/// Maximum time for the client's close frame after ours.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Silence after which a ping is sent, because proxies close silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Longest reason of a close frame (RFC 6455, 5.5: 125 bytes with the code).
const MAX_REASON: usize = 123;

/// The sending half.
pub type Sink = SplitSink<WebSocket, Message>;
/// The receiving half.
pub type Source = SplitStream<WebSocket>;

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed it, or it broke.
    Gone,
    /// It is closed with a code and a reason.
    Close(u16, String),
}

/// Codes of close frames (RFC 6455, 7.4.1).
pub mod code {
    pub const NORMAL: u16 = 1000;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const ERROR: u16 = 1011;
    pub const RESTART: u16 = 1012;
}

/// Who is at the other end, and what ends the connection besides.
pub struct Client {
    pub peer: Arc<Peer>,
    pub caller: Caller,
    pub held: Held,
}

/// The upgrade with this server's limits; an error if the request is no handshake. `max_message`: bytes of one message.
pub fn limited(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    max_message: usize,
) -> Result<WebSocketUpgrade, RequestError> {
    let upgrade = upgrade.map_err(|_| RequestError::NotWebSocket)?;
    Ok(upgrade
        .max_message_size(max_message)
        .max_frame_size(max_message)
        .read_buffer_size(READ_BUFFER)
        // Every message is flushed.
        .write_buffer_size(0))
}

impl Client {
    /// Waits until `talk` ends, the client's key does, or the connection has to be closed at once.
    pub async fn while_valid(&self, talk: impl Future<Output = End>) -> End {
        tokio::select! {
            biased;
            rejected = self.caller.key_ended() => {
                End::Close(code::POLICY, RequestError::from(rejected).to_string())
            }
            () = self.peer.closed() => End::Gone,
            () = self.held.aborted() => End::Gone,
            end = talk => end,
        }
    }

    /// Closes the connection. What the client still sends is dropped: with unread bytes the kernel would send a RST, which
    /// may overtake the last messages.
    pub async fn close(&self, mut sink: Sink, mut source: Source, end: End) {
        let End::Close(code, reason) = end else {
            return;
        };
        let mut length = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(length) {
            length -= 1;
        }
        let frame = CloseFrame {
            code,
            reason: reason[..length].into(),
        };
        let closed = async {
            if sink.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = source.next().await {}
            }
        };
        tokio::select! {
            () = closed => {}
            () = tokio::time::sleep(CLOSE_WAIT) => {}
            () = self.peer.closed() => {}
            () = self.held.aborted() => {}
        }
    }
}

/// The client's next text or binary message; the end of the connection if there is none.
pub async fn next(source: &mut Source) -> Result<Message, End> {
    loop {
        match source.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => return Ok(message),
            // tungstenite answers pings and close frames.
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let error = error.into_inner();
                return Err(match error.downcast_ref::<tungstenite::Error>() {
                    Some(tungstenite::Error::Capacity(error)) => {
                        End::Close(code::TOO_BIG, error.to_string())
                    }
                    _ => End::Gone,
                });
            }
            None => return Err(End::Gone),
        }
    }
}

/// Sends a text message.
pub async fn send(sink: &mut Sink, text: String) -> Result<(), End> {
    let sent = sink.send(Message::text(text)).await;
    sent.map_err(|_| End::Gone)
}

/// Waits for the next event of an execution, and sends pings meanwhile; `None` after the last one.
pub async fn event(
    sink: &mut Sink,
    follower: &mut Follower,
) -> Result<Option<ExecutionEvent>, End> {
    loop {
        match tokio::time::timeout(KEEP_ALIVE, follower.next()).await {
            Ok(event) => return Ok(event.map(|(_, event)| event)),
            Err(_) => {
                let ping = sink.send(Message::Ping(Default::default())).await;
                ping.map_err(|_| End::Gone)?;
            }
        }
    }
}
