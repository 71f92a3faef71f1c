//! A client of `GET /v1/executions/{id}/attach`.

use cloude_protocol::Data;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use super::websocket::{Connection, Headers};
use super::{Answer, Backend};

/// An attached client.
pub struct Socket(pub Connection);

/// The events that the server sent, and the close frame's code and reason.
#[derive(Debug, Default)]
pub struct Received {
    pub events: Vec<Value>,
    pub close: Option<(u16, String)>,
}

impl Received {
    pub fn stdout(&self) -> String {
        let output = |event: &Value| match event["event"] == "output" {
            true => {
                serde_json::from_value::<Data>(event["data"].clone())
                    .unwrap()
                    .0
            }
            false => Vec::new(),
        };
        let bytes: Vec<u8> = self.events.iter().flat_map(output).collect();
        String::from_utf8(bytes).unwrap()
    }
}

impl Socket {
    pub async fn send(&mut self, message: Value) {
        let message = Message::text(message.to_string());
        self.0.send(message).await.unwrap();
    }

    /// The next event; none if the server closes the connection.
    pub async fn event(&mut self, received: &mut Received) -> bool {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    received.events.push(serde_json::from_str(&text).unwrap());
                    return true;
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    received.close = Some((frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    pub async fn until(&mut self, text: &str) -> Received {
        let mut received = Received::default();
        while !received.stdout().contains(text) {
            assert!(self.event(&mut received).await, "{received:?}");
        }
        received
    }

    pub async fn rest(mut self) -> Received {
        let mut received = Received::default();
        while self.event(&mut received).await {}
        received
    }
}

fn path(id: &str) -> String {
    format!("/v1/executions/{id}/attach")
}

pub async fn connect(
    backend: &Backend,
    id: &str,
    headers: Headers<'_>,
) -> Result<Socket, tungstenite::Error> {
    let connected = super::websocket::connect(backend, &path(id), headers).await;
    connected.map(Socket)
}

pub async fn attach(backend: &Backend, id: &str) -> Socket {
    connect(backend, id, &[]).await.unwrap()
}

pub async fn refused(backend: &Backend, id: &str, headers: Headers<'_>) -> u16 {
    super::websocket::refused(backend, &path(id), headers).await
}

pub async fn post(backend: &Backend, body: Value, prefer: &'static str) -> Answer {
    let headers = [("content-type", "application/json"), ("prefer", prefer)];
    let body = body.to_string();
    backend.send("POST", "/v1/executions", &headers, body).await
}

/// The id of a new execution.
pub async fn start(backend: &Backend, code: &str, interactive: Value) -> String {
    let body = json!({"language": "python", "code": code, "interactive": interactive});
    let answer = post(backend, body, "respond-async").await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    answer.json()["id"].as_str().unwrap().to_owned()
}
