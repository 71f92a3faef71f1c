//! Input for an interactive program while it runs: `POST /input` on a connection of its own.

use std::pin::Pin;

use bytes::Bytes;
use cloude_protocol::Data;
use cloude_protocol::agent::Input;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::client_error::{AgentError, refusal};
use crate::error::Failure;
use crate::launched::AgentConnector;

/// Bytes of data in one request. The agent accepts bodies of 1 MiB, and JSON has at most twice the bytes of the data.
const PIECE_BYTES: usize = 256 << 10;

/// An input that was not applied, or not whole.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The run stage is not running, or its standard input is closed.
    #[error("{0}")]
    Closed(String),
    /// The connection could not be opened.
    #[error("{0}")]
    Connect(Failure),
    /// The agent refused the input, or the connection ended.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Sends inputs to the program of one [`super::exchange`], while that runs.
///
/// It has one connection, opened by the first input. Inputs are applied in the order of the calls. `send` waits until the
/// program has room for all data, which may be never: send a signal that must not wait with another sender, a clone.
pub struct InputSender {
    connector: AgentConnector,
    token: String,
    open: Option<Open>,
}

struct Open {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Polled together with each request.
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

/// Another sender for the same program, with a connection of its own.
impl Clone for InputSender {
    fn clone(&self) -> Self {
        InputSender::new(self.connector.clone(), self.token.clone())
    }
}

impl InputSender {
    /// `token` is that of the identity if the VM is a fork, else that of the boot ([`crate::Launched::token`]).
    pub fn new(connector: AgentConnector, token: String) -> Self {
        InputSender {
            connector,
            token,
            open: None,
        }
    }

    /// Applies the parts of `input` in the order of its fields, and returns when all bytes are in the pipe or terminal. Wait
    /// for the `started` event of the run stage before the first one.
    ///
    /// If the future is dropped, the agent writes no more of the data.
    pub async fn send(&mut self, input: &Input) -> Result<(), InputError> {
        for piece in pieces(input) {
            self.send_piece(&piece).await?;
        }
        Ok(())
    }

    async fn send_piece(&mut self, input: &Input) -> Result<(), InputError> {
        let body = Bytes::from(serde_json::to_vec(input).map_err(AgentError::from)?);
        let request = Request::builder()
            .method(Method::POST)
            .uri("/input")
            .header(HOST, "agent")
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(AgentError::from)?;
        // Not in `self` meanwhile: a connection whose answer was not awaited cannot be used again.
        let mut open = match self.open.take() {
            Some(mut open) => match open.is_usable().await {
                true => open,
                // The agent closes connections that are idle for long.
                false => Open::connect(&self.connector).await?,
            },
            None => Open::connect(&self.connector).await?,
        };
        let answered = open.exchange(request).await;
        if !matches!(answered, Err(InputError::Agent(_))) {
            self.open = Some(open);
        }
        answered
    }
}

impl Open {
    async fn connect(connector: &AgentConnector) -> Result<Self, InputError> {
        let stream = connector.connect().map_err(InputError::Connect)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(AgentError::from)?;
        Ok(Open {
            sender,
            connection: Box::pin(connection),
        })
    }

    /// True if the agent has not closed the connection.
    async fn is_usable(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = &mut self.connection => false,
            ready = self.sender.ready() => ready.is_ok(),
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(), InputError> {
        let Open { sender, connection } = self;
        let exchange = async {
            let response = sender.send_request(request).await;
            answer(response.map_err(AgentError::from)?).await
        };
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answered = &mut exchange => answered,
            ended = connection => {
                ended.map_err(AgentError::from)?;
                // The peer closed; bytes that it sent before are still in the buffer.
                exchange.await
            }
        }
    }
}

async fn answer(response: Response<hyper::body::Incoming>) -> Result<(), InputError> {
    match response.status() {
        StatusCode::NO_CONTENT => Ok(()),
        status => match refusal(response).await {
            AgentError::Refused { message, .. } if status == StatusCode::CONFLICT => {
                Err(InputError::Closed(message))
            }
            error => Err(error.into()),
        },
    }
}

/// The input in pieces that the agent accepts, in order.
fn pieces(input: &Input) -> Vec<Input> {
    let bytes = input.data.as_ref().map_or(&[][..], |data| &data.0);
    let mut pieces: Vec<Input> = bytes
        .chunks(PIECE_BYTES)
        .map(|piece| Input {
            data: Some(Data(piece.to_vec())),
            ..Input::default()
        })
        .collect();
    if pieces.is_empty() {
        pieces.push(Input::default());
    }
    pieces[0].resize = input.resize;
    if let Some(last) = pieces.last_mut() {
        (last.end, last.signal) = (input.end, input.signal);
    }
    pieces
}

#[cfg(test)]
mod tests;
