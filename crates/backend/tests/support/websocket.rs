//! A client of WebSockets.

use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{Backend, Stream};

pub type Headers<'a> = &'a [(&'static str, &'a str)];
pub type Connection = WebSocketStream<Box<dyn Stream>>;

/// Connects to a path with these headers.
pub async fn connect(
    backend: &Backend,
    path: &str,
    headers: Headers<'_>,
) -> Result<Connection, tungstenite::Error> {
    let url = format!("ws://localhost{path}");
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = backend.stream().await;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// The status of a refused handshake.
pub async fn refused(backend: &Backend, path: &str, headers: Headers<'_>) -> u16 {
    match connect(backend, path, headers).await {
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("connected"),
    }
}
