//! Talks to a backend.

use cloude_protocol::agent::NDJSON;
use cloude_protocol::api::LanguageInfo;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

use crate::error::CliError;

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
        let bad = |why: &str| {
            CliError::Usage(format!(
                "--backend (CLOUDE_BACKEND) {url:?} is not a URL: {why}; give one like http://127.0.0.1:8080"
            ))
        };
        let mut url = Url::parse(&text).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("only http and https are spoken"));
        }
        // `join` replaces what follows the last slash.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        // Fails only if a provider was installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("cloude/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10));
        if is_loopback(&url) {
            // A proxy that the environment names cannot reach our loopback.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            CliError::Infrastructure(format!("cannot make an HTTP client: {}", causes(&error)))
        })?;
        Ok(Backend { client, url })
    }

    /// The URL, as shown to a person.
    pub fn shown(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// `GET /v1/languages`.
    pub async fn languages(&self) -> Result<Vec<LanguageInfo>, CliError> {
        self.get("v1/languages").await
    }

    /// A GET whose answer is JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let response = self.send(self.request(Method::GET, path)?).await?;
        self.json(response).await
    }

    /// A POST of JSON whose answer is JSON.
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

    /// A DELETE whose answer is JSON.
    pub async fn take<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let response = self.send(self.request(Method::DELETE, path)?).await?;
        self.json(response).await
    }

    /// A DELETE whose answer is nothing.
    pub async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.send(self.request(Method::DELETE, path)?).await?;
        Ok(())
    }

    /// A POST of JSON whose answer is a stream of lines.
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
            return Err(self.not_a_backend(&format!(
                "a stream of events was asked for and {media_type:?} came"
            )));
        }
        Ok(response)
    }

    /// What a connection that breaks in the middle of an answer is called.
    pub fn broken(&self, error: &reqwest::Error) -> CliError {
        CliError::Infrastructure(format!(
            "the connection to {} broke before the result came: {}",
            self.shown(),
            causes(error)
        ))
    }

    /// What an answer that makes no sense is called.
    pub fn not_a_backend(&self, what: &str) -> CliError {
        CliError::Infrastructure(format!(
            "{} does not answer as a Cloude backend of this version does: {what}",
            self.shown()
        ))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, CliError> {
        let url = self
            .url
            .join(path)
            .map_err(|error| CliError::Usage(format!("{path:?} makes no URL: {error}")))?;
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
        Err(CliError::from_answer(
            status,
            &body,
            retry_after,
            self.shown(),
        ))
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, CliError> {
        let body = response
            .bytes()
            .await
            .map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&body).map_err(|error| self.not_a_backend(&error.to_string()))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let url = self.shown();
        if error.is_connect() {
            return CliError::Infrastructure(format!(
                "no backend at {url} ({}): start one with `clouded`, or name another with --backend (CLOUDE_BACKEND)",
                last_cause(error)
            ));
        }
        CliError::Infrastructure(format!("{url} did not answer: {}", causes(error)))
    }
}

fn with_body(request: RequestBuilder, body: &impl Serialize) -> Result<RequestBuilder, CliError> {
    let body = serde_json::to_vec(body)
        .map_err(|error| CliError::Infrastructure(format!("cannot encode the request: {error}")))?;
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

/// An error and all that lies beneath it: the outermost rarely says what happened.
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
