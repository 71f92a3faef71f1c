//! Authentication: Basic and Bearer (RFC 9110, section 11; the token protocol of the distribution project), with the
//! credentials of `docker login`.

use std::env;
use std::io::Read as _;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError as Retrieval, DockerCredential};
use reqwest::Url;
use reqwest::blocking::RequestBuilder;
use serde::Deserialize;

use super::RegistryError;
use super::error::innermost;
use super::transport::{Transport, authority};
use crate::source::manifest::MAX_DOCUMENT_BYTES;

/// The key of Docker Hub in config.json: the URL of its first API.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A challenge of `WWW-Authenticate`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest.trim();
        while let Some((name, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(after) => after.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                "scope" => scope = Some(value.to_owned()),
                _ => {}
            }
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        Some(Challenge::Bearer {
            realm: realm?,
            service,
            scope,
        })
    }
}

/// The credential for a registry in docker's config.json, or from its credential helper.
pub(super) fn credential(registry: &str) -> Result<Option<DockerCredential>, RegistryError> {
    let dir = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    if !dir.is_some_and(|dir| dir.join("config.json").exists()) {
        return Ok(None);
    }
    let key = if registry == "docker.io" {
        DOCKER_HUB_KEY
    } else {
        registry
    };
    match docker_credential::get_credential(key) {
        Ok(credential) => Ok(Some(credential)),
        Err(Retrieval::NoCredentialConfigured | Retrieval::ConfigNotFound) => Ok(None),
        // The message of docker's helpers for a registry without a credential.
        Err(Retrieval::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(None)
        }
        Err(error) => {
            // The output of a helper may contain the password: it is not shown.
            let reason = match error {
                Retrieval::HelperFailure { helper, .. } => {
                    format!("the credential helper {helper} failed")
                }
                error => error.to_string(),
            };
            Err(RegistryError::Credentials {
                registry: registry.to_owned(),
                reason,
            })
        }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Requests a token from the realm of a Bearer challenge. None after 401 or 403.
pub(super) fn token(
    transport: &Transport,
    challenge: (&str, Option<&str>, &str),
    credential: Option<&DockerCredential>,
) -> Result<Option<String>, RegistryError> {
    let (realm, service, scope) = challenge;
    let url = Url::parse(realm).map_err(|_| RegistryError::Url(realm.to_owned()))?;
    transport.check(&url)?;
    let host = authority(&url);
    let response = token_request(transport, url, service, scope, credential)
        .send()
        .map_err(|error| RegistryError::from_request(&host, &error))?;
    let status = response.status();
    if matches!(status.as_u16(), 401 | 403) {
        return Ok(None);
    }
    let failed = |status: String| RegistryError::Status {
        registry: host.clone(),
        status,
        what: "the token request".to_owned(),
    };
    if !status.is_success() {
        return Err(failed(status.to_string()));
    }
    let mut body = Vec::new();
    response
        .take(MAX_DOCUMENT_BYTES)
        .read_to_end(&mut body)
        .map_err(|error| failed(innermost(&error)))?;
    let token = token_of(&body).map_err(|error| failed(error.to_string()))?;
    token
        .map(Some)
        .ok_or_else(|| failed("a body without a token".to_owned()))
}

/// The token in the body of an answer to a token request.
pub(super) fn token_of(body: &[u8]) -> serde_json::Result<Option<String>> {
    let token: Token = serde_json::from_slice(body)?;
    Ok(token.token.or(token.access_token))
}

/// `GET` with Basic authentication, or `POST` of a form with an identity token (OAuth 2 refresh token).
fn token_request(
    transport: &Transport,
    mut url: Url,
    service: Option<&str>,
    scope: &str,
    credential: Option<&DockerCredential>,
) -> RequestBuilder {
    let mut pairs = vec![("scope", scope)];
    pairs.extend(service.map(|service| ("service", service)));
    match credential {
        Some(DockerCredential::IdentityToken(identity)) => {
            pairs.push(("grant_type", "refresh_token"));
            pairs.push(("client_id", "cloude"));
            pairs.push(("refresh_token", identity));
            // The encoding of a form is that of a query.
            let mut form = url.clone();
            form.query_pairs_mut().clear().extend_pairs(&pairs);
            let body = form.query().unwrap_or_default().to_owned();
            transport
                .client
                .post(url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body)
        }
        other => {
            url.query_pairs_mut().extend_pairs(&pairs);
            let request = transport.client.get(url);
            match other {
                Some(DockerCredential::UsernamePassword(user, password)) => {
                    request.basic_auth(user, Some(password))
                }
                _ => request,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_challenge_is_read() {
        let header = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(header),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".to_owned(),
                service: Some("r.example".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            })
        );
    }

    #[test]
    fn malformed_and_unknown_challenges_are_none() {
        assert_eq!(Challenge::parse(r#"Bearer service="x""#), None);
        assert_eq!(Challenge::parse("Negotiate abc"), None);
        assert_eq!(Challenge::parse(r#"Bearer realm="x"#), None);
        assert_eq!(
            Challenge::parse("basic realm=\"x\""),
            Some(Challenge::Basic)
        );
    }
}
