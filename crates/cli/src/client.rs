//! The HTTP client of the backend's API (crates/protocol/src/api.rs).

use cloude_protocol::agent::NDJSON;
use cloude_protocol::api::LanguageInfo;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args;
use crate::connect::{Connection, causes, connect};
use crate::error::{BackendError, CliError, UsageError};

/// This version, for messages about a backend of another one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One backend.
pub struct Backend {
    client: Client,
    url: Url,
    shown: String,
    has_key: bool,
}

impl Backend {
    /// A client for the backend that the options name.
    pub fn new(options: &args::Backend) -> Result<Self, CliError> {
        let Connection {
            client,
            url,
            shown,
            has_key,
        } = connect(options)?;
        Ok(Backend {
            client,
            url,
            shown,
            has_key,
        })
    }

    /// The address for messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// `GET /v1/languages`.
    pub async fn languages(&self) -> Result<Vec<LanguageInfo>, CliError> {
        self.get("v1/languages").await
    }

    /// `GET path`; the response is JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let response = self.send(self.request(Method::GET, path)?).await?;
        self.json(response).await
    }

    /// `POST path` with a JSON body; the response is JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let request = self
            .request(Method::POST, path)?
            .header("accept", "application/json");
        let response = self.send(with_body(request, body)?).await?;
        self.json(response).await
    }

    /// `DELETE path`; the response is JSON.
    pub async fn delete_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let response = self.send(self.request(Method::DELETE, path)?).await?;
        self.json(response).await
    }

    /// `DELETE path`; the response has no body.
    pub async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.send(self.request(Method::DELETE, path)?).await?;
        Ok(())
    }

    /// `POST path` with a JSON body; the response is a stream of JSON lines ([`NDJSON`]).
    pub async fn post_stream(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response, CliError> {
        let request = self.request(Method::POST, path)?.header("accept", NDJSON);
        let response = self.send(with_body(request, body)?).await?;
        let media_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if !media_type.starts_with(NDJSON) {
            return Err(BackendError::ContentType {
                url: self.shown().to_owned(),
                found: media_type.to_owned(),
                version: VERSION,
            }
            .into());
        }
        Ok(response)
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

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, CliError> {
        let url = self
            .url
            .join(path)
            .map_err(|error| UsageError::BackendUrl {
                url: format!("{}{path}", self.url),
                reason: error.to_string(),
            })?;
        Ok(self.client.request(method, url))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.unwrap_or_default();
        let error = BackendError::from_response(status, &body, retry_after, self.shown());
        Err(error.about_key(self.has_key).into())
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, CliError> {
        let body = response
            .bytes()
            .await
            .map_err(|error| self.broken(&error))?;
        Ok(serde_json::from_slice(&body).map_err(|error| self.bad_body(&error))?)
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
