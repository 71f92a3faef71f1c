//! Requests to one repository of a registry or mirror.

use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use docker_credential::DockerCredential;
use reqwest::Url;
use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::{ACCEPT, RANGE, WWW_AUTHENTICATE};

use super::RegistryError;
use super::auth::{self, Challenge};
use super::error::innermost;
use super::transport::{Transport, authority};
use crate::error::BuildError;
use crate::progress::Cancel;
use crate::source::Reference;
use crate::source::manifest::MAX_DOCUMENT_BYTES;

/// Attempts for a document after 429, 5xx or a broken transfer.
const ATTEMPTS: u32 = 4;

/// A repository, and the authorization for it.
pub(super) struct Endpoint<'a> {
    transport: &'a Transport,
    /// `https://HOST/v2/`.
    base: Url,
    /// The name in messages and in docker's config.json.
    pub registry: String,
    repository: String,
    authorization: Mutex<Option<Authorization>>,
}

#[derive(Clone)]
enum Authorization {
    Basic(String, String),
    Bearer(String),
}

impl<'a> Endpoint<'a> {
    /// The repository at the registry of a reference.
    pub fn new(transport: &'a Transport, reference: &Reference) -> Result<Self, RegistryError> {
        // The API of Docker Hub is on another host.
        let host = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let base = transport.base(host)?;
        Ok(Self::at(transport, base, &reference.registry, reference))
    }

    /// The repository at a mirror.
    pub fn mirror(
        transport: &'a Transport,
        url: &str,
        reference: &Reference,
    ) -> Result<Self, RegistryError> {
        let wrong = || RegistryError::Url(url.to_owned());
        let base = if url.contains("://") {
            let text = format!("{}/v2/", url.trim_end_matches('/'));
            Url::parse(&text).map_err(|_| wrong())?
        } else {
            transport.base(url)?
        };
        transport.check(&base)?;
        let registry = authority(&base);
        Ok(Self::at(transport, base, &registry, reference))
    }

    fn at(transport: &'a Transport, base: Url, registry: &str, reference: &Reference) -> Self {
        Endpoint {
            transport,
            base,
            registry: registry.to_owned(),
            repository: reference.repository.clone(),
            authorization: Mutex::new(None),
        }
    }

    /// Reads a whole manifest (`manifests`) or small blob (`blobs`).
    pub fn document(
        &self,
        kind: &str,
        name: &str,
        accept: &[&str],
        cancel: &Cancel,
    ) -> Result<Vec<u8>, BuildError> {
        let mut attempt = 1;
        loop {
            cancel.check()?;
            let result = self
                .get(kind, name, accept, 0)
                .and_then(|response| self.body(response));
            match result {
                Err(error) if attempt < ATTEMPTS && is_transient(&error) => {
                    std::thread::sleep(backoff(attempt));
                    attempt += 1;
                }
                result => return result.map_err(BuildError::from),
            }
        }
    }

    fn body(&self, response: Response) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let read = response
            .take(MAX_DOCUMENT_BYTES + 1)
            .read_to_end(&mut bytes);
        read.map_err(|error| RegistryError::Broken {
            registry: self.registry.clone(),
            attempts: 1,
            reason: innermost(&error),
        })?;
        match bytes.len() as u64 {
            size if size > MAX_DOCUMENT_BYTES => Err(RegistryError::TooLarge {
                what: "manifest",
                size,
            }),
            _ => Ok(bytes),
        }
    }

    /// `GET` of a manifest or blob from byte `from` on. Authenticates after the first 401.
    pub fn get(
        &self,
        kind: &str,
        name: &str,
        accept: &[&str],
        from: u64,
    ) -> Result<Response, RegistryError> {
        let path = format!("{}/{kind}/{name}", self.repository);
        let url = self
            .base
            .join(&path)
            .map_err(|_| RegistryError::Url(path.clone()))?;
        let mut authenticated = false;
        loop {
            let mut request = self.transport.client.get(url.clone());
            if !accept.is_empty() {
                request = request.header(ACCEPT, accept.join(", "));
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = self
                .authorize(request)
                .send()
                .map_err(|error| RegistryError::from_request(&self.registry, &error))?;
            if response.status().as_u16() == 401 && !authenticated {
                authenticated = true;
                self.answer(&response)?;
                continue;
            }
            return self.check(response, &path);
        }
    }

    fn authorize(&self, request: RequestBuilder) -> RequestBuilder {
        match &*self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some(Authorization::Basic(user, password)) => request.basic_auth(user, Some(password)),
            Some(Authorization::Bearer(token)) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Obtains the authorization for a challenge.
    fn answer(&self, response: &Response) -> Result<(), RegistryError> {
        let header = response.headers().get(WWW_AUTHENTICATE);
        let header = header
            .and_then(|header| header.to_str().ok())
            .unwrap_or_default();
        let credential = auth::credential(&self.registry)?;
        let authorization = match Challenge::parse(header) {
            Some(Challenge::Basic) => match credential {
                Some(DockerCredential::UsernamePassword(user, password)) => {
                    Authorization::Basic(user, password)
                }
                _ => return Err(self.login_needed()),
            },
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let pull = format!("repository:{}:pull", self.repository);
                let scope = scope.as_deref().unwrap_or(&pull);
                let challenge = (realm.as_str(), service.as_deref(), scope);
                match auth::token(self.transport, challenge, credential.as_ref())? {
                    Some(token) => Authorization::Bearer(token),
                    None if credential.is_some() => return Err(self.refused()),
                    None => return Err(self.login_needed()),
                }
            }
            None => {
                let challenge = header.to_owned();
                return Err(RegistryError::Challenge {
                    registry: self.registry.clone(),
                    challenge,
                });
            }
        };
        *self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        Ok(())
    }

    fn check(&self, response: Response, path: &str) -> Result<Response, RegistryError> {
        let (registry, what) = (self.registry.clone(), path.to_owned());
        match response.status() {
            status if status.is_success() => Ok(response),
            // Some registries issue anonymous tokens and refuse the request.
            status if matches!(status.as_u16(), 401 | 403) => {
                Err(match auth::credential(&registry) {
                    Ok(None) => self.login_needed(),
                    _ => self.refused(),
                })
            }
            status if status.as_u16() == 404 => Err(RegistryError::NotFound { registry, what }),
            status => Err(RegistryError::Status {
                registry,
                status: status.to_string(),
                what,
            }),
        }
    }

    fn login_needed(&self) -> RegistryError {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        RegistryError::LoginNeeded {
            registry,
            repository,
        }
    }

    fn refused(&self) -> RegistryError {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        RegistryError::Refused {
            registry,
            repository,
        }
    }
}

/// True if the request may be repeated: a broken transfer, 429 or 5xx.
pub(super) fn is_transient(error: &RegistryError) -> bool {
    match error {
        RegistryError::Broken { .. } => true,
        RegistryError::Status { status, .. } => {
            status.starts_with('5') || status.starts_with("429")
        }
        _ => false,
    }
}

/// 0.2 s, 0.4 s, 0.8 s, up to 5 s.
pub(super) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis((100 << attempt.min(6)).min(5000))
}
