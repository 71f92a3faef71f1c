//! The handshake of a WebSocket (RFC 6455, 4.1), by the HTTP client: with its key, certificates and Unix socket.

use reqwest::{StatusCode, Upgraded};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::client::Backend;
use crate::error::{BackendError, CliError};

/// A connection.
pub type Socket = WebSocketStream<Upgraded>;

/// Connects to the WebSocket at `path`.
pub async fn connect(path: &str, backend: &Backend) -> Result<Socket, CliError> {
    let key = generate_key();
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", &key),
    ];
    let response = backend.get_upgrade(path, &headers).await?;
    let accepted = response.headers().get("sec-websocket-accept");
    let is_accepted = accepted.is_some_and(|value| value == &derive_accept_key(key.as_bytes()));
    if response.status() != StatusCode::SWITCHING_PROTOCOLS || !is_accepted {
        return Err(BackendError::NotClouded {
            url: backend.shown().to_owned(),
            status: response.status().as_u16(),
        }
        .into());
    }
    let stream = response
        .upgrade()
        .await
        .map_err(|error| backend.broken(&error))?;
    Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
}
