//! The HTTP client, and the hosts that may be asked over plain HTTP.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use reqwest::Url;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;

use super::RegistryError;
use super::error::PlainRedirect;

/// Limit on connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit on one read without data.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Registries redirect to blob stores, usually once or twice.
const MAX_REDIRECTS: usize = 10;

/// The client for all requests.
pub(super) struct Transport {
    pub client: Client,
    allow_http: Vec<String>,
}

impl Transport {
    pub fn new(allow_http: &[String]) -> Result<Self, RegistryError> {
        // Fails only if the process has a rustls provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let allowed = allow_http.to_vec();
        let policy = Policy::custom(move |attempt| {
            let url = attempt.url();
            if url.scheme() == "http" && !is_http_allowed(&authority(url), &allowed) {
                let host = authority(url);
                return attempt.error(PlainRedirect(host));
            }
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error("too many redirects");
            }
            attempt.follow()
        });
        let client = Client::builder()
            .user_agent(concat!("cloude-initramfs/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(READ_TIMEOUT)
            .redirect(policy)
            .build()
            .map_err(RegistryError::Client)?;
        Ok(Transport {
            client,
            allow_http: allow_http.to_vec(),
        })
    }

    /// Refuses plain HTTP to hosts that are not allowed.
    pub fn check(&self, url: &Url) -> Result<(), RegistryError> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if is_http_allowed(&authority(url), &self.allow_http) => Ok(()),
            "http" => Err(RegistryError::PlainHttp(authority(url))),
            _ => Err(RegistryError::Url(url.to_string())),
        }
    }

    /// The API's URL of a host. HTTPS is tried first, also if plain HTTP is allowed.
    pub fn base(&self, host: &str) -> Result<Url, RegistryError> {
        let parse = |scheme: &str| {
            let text = format!("{scheme}://{host}/v2/");
            Url::parse(&text).map_err(|_| RegistryError::Url(text))
        };
        let https = parse("https")?;
        let plain = is_http_allowed(host, &self.allow_http)
            && self.client.get(https.clone()).send().is_err();
        if plain { parse("http") } else { Ok(https) }
    }
}

/// Host, with the port if it is not the default.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_http_allowed(authority: &str, allowed: &[String]) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let loopback = host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
        || host
            .parse::<Ipv6Addr>()
            .is_ok_and(|address| address.is_loopback());
    loopback || allowed.iter().any(|it| it == authority || it == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_allowed_hosts() {
        let allowed = ["r.example".to_owned(), "s.example:5000".to_owned()];
        for host in [
            "localhost:5000",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:5000",
            "r.example:80",
            "s.example:5000",
        ] {
            assert!(is_http_allowed(host, &allowed), "{host}");
        }
        for host in [
            "s.example",
            "10.0.0.1:5000",
            "localhost.example",
            "127.0.0.1.example",
            "x.r.example",
        ] {
            assert!(!is_http_allowed(host, &allowed), "{host}");
        }
    }
}
