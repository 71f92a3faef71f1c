//! The connection to a backend: its URL or Unix socket, the API key, and certificates that it trusts.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Url};

use crate::error::{BackendError, CliError, UsageError};
use crate::settings::{Key, Setting, Settings};

/// An HTTP client with the URL that every path is joined to.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    pub url: Url,
    /// The backend's address for messages.
    pub shown: String,
    /// An API key is sent.
    pub has_key: bool,
    /// For how long requests to a busy backend are repeated.
    pub retry_for: Duration,
}

/// Reads the key and the certificates. Does not connect.
pub fn connect(settings: &Settings) -> Result<Connection, CliError> {
    let address = &settings.backend.value;
    let invalid = |reason: String| UsageError::BackendUrl {
        url: address.clone(),
        origin: settings.backend.origin.to_string(),
        reason,
    };
    let (url, socket) = match address.strip_prefix("unix:") {
        Some(path) => ("http://localhost", Some(socket(path).map_err(invalid)?)),
        None => (address.as_str(), None),
    };
    let url = parse(url).map_err(invalid)?;
    let key = key(&settings.key)?;
    // Fails only if the process has a rustls provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(format!("cloude/{}", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10));
    if socket.is_some() || is_loopback(&url) {
        // A proxy of HTTP_PROXY cannot reach this machine's loopback.
        builder = builder.no_proxy();
    }
    if let Some(path) = socket {
        builder = builder.unix_socket(path);
    }
    if let Some(path) = &settings.ca.value {
        builder = builder.tls_certs_merge(certificates(path)?);
    }
    let has_key = key.is_some();
    if let Some(key) = key {
        builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, key)]));
    }
    let client = builder.build().map_err(|error| BackendError::HttpClient {
        reason: causes(&error),
    })?;
    let shown = match socket {
        Some(_) => address.clone(),
        None => url.as_str().trim_end_matches('/').to_owned(),
    };
    Ok(Connection {
        client,
        url,
        shown,
        has_key,
        retry_for: settings.retry_for.value,
    })
}

/// The path of a Unix socket, or the reason why it is none.
fn socket(path: &str) -> Result<&Path, String> {
    let path = Path::new(path);
    match path.is_absolute() {
        true => Ok(path),
        false => Err("the path of a Unix socket must be absolute".to_owned()),
    }
}

/// Adds `http://` where there is no scheme. Fails with a reason.
fn parse(url: &str) -> Result<Url, String> {
    let text = match url.contains("://") {
        true => url.to_owned(),
        false => format!("http://{url}"),
    };
    let mut parsed = Url::parse(&text).map_err(|error| error.to_string())?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err("use http, https or unix".to_owned());
    }
    // `Url::join` replaces the part after the last slash.
    if !parsed.path().ends_with('/') {
        parsed.set_path(&format!("{}/", parsed.path()));
    }
    Ok(parsed)
}

/// The header with the API key.
fn key(setting: &Setting<Option<Key>>) -> Result<Option<HeaderValue>, UsageError> {
    let (source, key) = match &setting.value {
        Some(Key::File(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| UsageError::ReadFile {
                path: path.clone(),
                error,
            })?;
            (path.display().to_string(), text)
        }
        Some(Key::Text(text)) => (setting.origin.to_string(), text.clone()),
        None => return Ok(None),
    };
    let key = key.trim();
    let header = HeaderValue::try_from(format!("Bearer {key}"));
    match header {
        Ok(mut header) if key.starts_with("cloude_") && !key.contains(char::is_whitespace) => {
            header.set_sensitive(true);
            Ok(Some(header))
        }
        _ => Err(UsageError::ApiKey {
            source_name: source,
        }),
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, UsageError> {
    let pem = std::fs::read(path).map_err(|error| UsageError::ReadFile {
        path: path.to_owned(),
        error,
    })?;
    let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    match certificates.is_empty() {
        true => Err(UsageError::NoCertificate {
            path: path.to_owned(),
        }),
        false => Ok(certificates),
    }
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
pub fn causes(error: &dyn std::error::Error) -> String {
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
