//! Refuses requests of foreign web pages. A page whose name resolves to this server's address (DNS rebinding) sends its
//! own name in `Host`; a page of another site sends its site in `Origin`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Version};
use axum::middleware::Next;
use axum::response::Response;

use super::error::{ApiError, RequestError};
use crate::config::Config;

/// The names and addresses under which this server answers.
#[derive(Debug)]
pub struct Hosts {
    /// In lower case.
    names: Vec<String>,
    /// The address that the server listens on.
    address: Option<IpAddr>,
}

impl Hosts {
    /// The hosts of a configuration.
    pub fn of(config: &Config) -> Arc<Self> {
        let names = config.api.allowed_hosts.iter();
        Arc::new(Hosts {
            names: names
                .map(|name| normal(name).to_ascii_lowercase())
                .collect(),
            address: config.listen.ip(),
        })
    }

    /// `host`: a name or an address, without a port.
    fn allow(&self, host: &str) -> bool {
        let host = normal(host);
        if let Ok(ip) = host.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            // A page cannot rebind an address, so on 0.0.0.0 and :: every address is this server's.
            if ip.is_loopback()
                || self
                    .address
                    .is_some_and(|own| own == ip || own.is_unspecified())
            {
                return true;
            }
        }
        host.eq_ignore_ascii_case("localhost") || self.is_configured(host)
    }

    fn is_configured(&self, host: &str) -> bool {
        self.names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(normal(host)))
    }
}

/// A host without the brackets of an IPv6 address and without the root's dot.
fn normal(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// The middleware.
pub async fn check(
    State(hosts): State<Arc<Hosts>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let host = own_host(&hosts, &request)?;
    if let Some(origin) = request.headers().get(ORIGIN)
        && !is_own_origin(&hosts, host.as_ref(), origin)
    {
        return Err(RequestError::foreign_origin(origin.as_bytes()).into());
    }
    Ok(next.run(request).await)
}

/// The authority of `Host`, which HTTP/1.1 requires (RFC 9112, 3.2).
fn own_host(hosts: &Hosts, request: &Request) -> Result<Option<Authority>, RequestError> {
    let mut authorities = Vec::new();
    for value in request.headers().get_all(HOST) {
        let authority = value.to_str().ok().and_then(|text| text.parse().ok());
        authorities.push(authority.ok_or(RequestError::NoHost)?);
    }
    match authorities.len() {
        // Load balancers send health checks like this one.
        0 if request.version() == Version::HTTP_10 => {}
        1 => {}
        _ => return Err(RequestError::NoHost),
    }
    // The absolute form of the request target.
    authorities.extend(request.uri().authority().cloned());
    match authorities
        .iter()
        .find(|authority| !hosts.allow(authority.host()))
    {
        Some(foreign) => Err(RequestError::foreign_host(foreign.as_str())),
        None => Ok(authorities.into_iter().next()),
    }
}

/// True if the page came from this server, or from a host that the configuration names.
fn is_own_origin(hosts: &Hosts, host: Option<&Authority>, origin: &HeaderValue) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let Some((scheme, origin)) = origin.split_once("://") else {
        return false;
    };
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let Ok(origin) = origin.parse::<Authority>() else {
        return false;
    };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
    hosts.is_configured(origin.host())
        || host.is_some_and(|host| {
            normal(host.host()).eq_ignore_ascii_case(normal(origin.host()))
                && port(host) == port(&origin)
        })
}
