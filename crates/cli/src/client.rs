//! The HTTP client of the backend's API (crates/protocol/src/api.rs).

use cloude_protocol::agent::NDJSON;
use cloude_protocol::api::LanguageInfo;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

use crate::error::{BackendError, CliError, UsageError};

/// This version, for messages about a backend of another one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One backend.
pub struct Backend {
    client: Client,
    url: Url,
}

impl Backend {
    /// A client for the backend at a URL; `http://` is added where there is no scheme.
    pub fn new(url: &str) -> Result<Self, CliError> {
        let text = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let mut parsed = Url::parse(&text).map_err(|error| UsageError::BackendUrl {
            url: url.to_owned(),
            reason: error.to_string(),
        })?;
        if !matches!(parsed.scheme(), "http" | "https") {
            let url = url.to_owned();
            return Err(UsageError::BackendScheme { url }.into());
        }
        // `Url::join` replaces the part after the last slash.
        if !parsed.path().ends_with('/') {
            parsed.set_path(&format!("{}/", parsed.path()));
        }
        // Fails only if the process has a rustls provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(format!("cloude/{VERSION}"))
            .connect_timeout(Duration::from_secs(10));
        if is_loopback(&parsed) {
            // A proxy of HTTP_PROXY cannot reach this machine's loopback.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| BackendError::HttpClient {
            reason: causes(&error),
        })?;
        Ok(Backend {
            client,
            url: parsed,
        })
    }

    /// The URL for messages, without a slash at the end.
    pub fn shown(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
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
        Err(error.into())
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

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
}

/// The messages of an error and of all its sources: reqwest's outermost names only the URL.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

fn last_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
