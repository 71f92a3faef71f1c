//! The HTTP client of the backend's API (crates/protocol/src/api/).

use std::time::{Duration, Instant};

use bytes::Bytes;
use cloude_protocol::agent::NDJSON;
use cloude_protocol::api::LanguageInfo;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args;
use crate::connect::{Connection, causes, connect};
use crate::error::{BackendError, CliError};
use crate::settings::Settings;
use crate::terminal;

/// This version, for messages about a backend of another one.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The media type of server-sent events.
const EVENT_STREAM: &str = "text/event-stream";
/// The pause before the first repetition of a request whose response has no `Retry-After`. It doubles up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// One backend. Clones share the connections.
#[derive(Clone)]
pub struct Backend(Connection);

impl Backend {
    /// A client for the backend that the options, the environment or the configuration file name.
    pub fn new(options: &args::Backend) -> Result<Self, CliError> {
        Ok(Backend(connect(&Settings::load(options)?)?))
    }

    /// For a command that shows the backend's state as it is.
    pub fn without_retries(self) -> Self {
        Backend(Connection {
            retry_for: Duration::ZERO,
            ..self.0
        })
    }

    /// The address for messages.
    pub fn shown(&self) -> &str {
        &self.0.shown
    }

    /// For how long requests are repeated.
    pub fn retry_for(&self) -> Duration {
        self.0.retry_for
    }

    /// `GET /v1/languages`.
    pub async fn languages(&self) -> Result<Vec<LanguageInfo>, CliError> {
        self.get("v1/languages").await
    }

    /// `GET path`; the response is JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        self.json(&self.body(response).await?)
    }

    /// `GET path` with a query; the response is JSON.
    pub async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, CliError> {
        let mut url = self.url(path);
        url.query_pairs_mut().extend_pairs(query);
        let response = self.send(self.client().get(url)).await?;
        self.json(&self.body(response).await?)
    }

    /// `GET path`: the status and the body of a successful response.
    pub async fn get_answer(&self, path: &str) -> Result<(u16, Bytes), CliError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        let status = response.status().as_u16();
        Ok((status, self.body(response).await?))
    }

    /// `GET` of an artifact. `path` is relative and has no `..`.
    pub async fn get_artifact(&self, id: &str, path: &str) -> Result<Response, CliError> {
        let mut url = self.url(&format!("v1/executions/{id}/artifacts"));
        // An `http` URL always has segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.split('/'));
        }
        self.send(self.client().get(url)).await
    }

    /// `GET path`: bytes as they come.
    pub async fn get_bytes(&self, path: &str) -> Result<Response, CliError> {
        self.send(self.request(Method::GET, path)).await
    }

    /// `GET path`; the response is a stream of server-sent events, those after `last_id`.
    pub async fn get_events(&self, path: &str, last_id: &str) -> Result<Response, CliError> {
        let mut request = self
            .request(Method::GET, path)
            .header("accept", EVENT_STREAM);
        if !last_id.is_empty() {
            request = request.header("last-event-id", last_id);
        }
        let response = self.send(request).await?;
        self.of_type(response, EVENT_STREAM)
    }

    /// `GET path` with more headers; the response may be 101.
    pub async fn get_upgrade(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, CliError> {
        let request = self.request(Method::GET, path);
        self.send(with_headers(request, headers)).await
    }

    /// `POST path` with a JSON body; the response is JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.post_with(path, body, &[]).await
    }

    /// `POST path` with a JSON body and more headers; the response is JSON.
    pub async fn post_with<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        headers: &[(&str, &str)],
    ) -> Result<T, CliError> {
        let request = self
            .request(Method::POST, path)
            .header("accept", "application/json");
        let response = self
            .send(with_headers(with_body(request, body)?, headers))
            .await?;
        self.json(&self.body(response).await?)
    }

    /// `POST path` with a JSON body; the response is a stream of JSON lines ([`NDJSON`]).
    pub async fn post_stream(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response, CliError> {
        let request = self.request(Method::POST, path).header("accept", NDJSON);
        let response = self.send(with_body(request, body)?).await?;
        self.of_type(response, NDJSON)
    }

    /// `DELETE path`; the response is JSON.
    pub async fn delete_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let response = self.send(self.request(Method::DELETE, path)).await?;
        self.json(&self.body(response).await?)
    }

    /// `DELETE path`; the response has no body.
    pub async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.send(self.request(Method::DELETE, path)).await?;
        Ok(())
    }

    /// The error for a connection that breaks in the middle of a response.
    pub fn broken(&self, error: &reqwest::Error) -> BackendError {
        BackendError::Broken {
            url: self.shown().to_owned(),
            reason: causes(error),
        }
    }

    /// The error for a stream that ends without a result.
    pub fn closed(&self) -> BackendError {
        BackendError::Closed {
            url: self.shown().to_owned(),
        }
    }

    /// The error for a body or an event that is not the expected JSON.
    pub fn bad_body(&self, error: &serde_json::Error) -> BackendError {
        BackendError::Body {
            url: self.shown().to_owned(),
            reason: error.to_string(),
            version: VERSION,
        }
    }

    /// Parses the body of a response.
    pub fn json<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CliError> {
        Ok(serde_json::from_slice(body).map_err(|error| self.bad_body(&error))?)
    }

    fn client(&self) -> &Client {
        &self.0.client
    }

    /// `path` is one of this program's own, with ids that were checked.
    fn url(&self, path: &str) -> Url {
        let mut url = self.0.url.clone();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        url.set_path(&format!("{}{path}", self.0.url.path()));
        url.set_query(query);
        url
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client().request(method, self.url(path))
    }

    /// Sends a request. Repeats it while the backend is busy, after the time that the response asks for, until the time
    /// for retries is over. A backend that cannot be reached is an error at once.
    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let deadline = Instant::now() + self.0.retry_for;
        let mut pause = FIRST_PAUSE;
        let mut request = request;
        loop {
            let again = request.try_clone();
            let error = match self.send_once(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let wait = match &error {
                BackendError::Busy { retry_after_s, .. }
                | BackendError::Unavailable { retry_after_s, .. } => {
                    retry_after_s.map_or(pause, Duration::from_secs)
                }
                _ => return Err(error.into()),
            };
            match again {
                Some(again) if fits(wait, deadline) => request = again,
                _ => return Err(error.into()),
            }
            terminal::show_spinner("the backend is busy");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn send_once(&self, request: RequestBuilder) -> Result<Response, BackendError> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.unwrap_or_default();
        let error = BackendError::from_response(status, &body, retry_after, self.shown());
        Err(error.about_key(self.0.has_key))
    }

    async fn body(&self, response: Response) -> Result<Bytes, CliError> {
        Ok(response
            .bytes()
            .await
            .map_err(|error| self.broken(&error))?)
    }

    fn of_type(&self, response: Response, expected: &'static str) -> Result<Response, CliError> {
        let found = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if found.starts_with(expected) {
            return Ok(response);
        }
        Err(BackendError::ContentType {
            url: self.shown().to_owned(),
            found: found.to_owned(),
            expected,
            version: VERSION,
        }
        .into())
    }

    fn unreachable(&self, error: &reqwest::Error) -> BackendError {
        let url = self.shown().to_owned();
        if error.is_connect() {
            return BackendError::Connect {
                url,
                reason: last_cause(error),
            };
        }
        BackendError::NoAnswer {
            url,
            reason: causes(error),
        }
    }
}

/// True if a pause of this length ends before the deadline.
fn fits(wait: Duration, deadline: Instant) -> bool {
    Instant::now()
        .checked_add(wait)
        .is_some_and(|end| end <= deadline)
}

fn with_headers(request: RequestBuilder, headers: &[(&str, &str)]) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    })
}

fn with_body(
    request: RequestBuilder,
    body: &impl Serialize,
) -> Result<RequestBuilder, BackendError> {
    let body = serde_json::to_vec(body).map_err(|error| BackendError::Encode {
        reason: error.to_string(),
    })?;
    Ok(request
        .header("content-type", "application/json")
        .body(body))
}

fn last_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
