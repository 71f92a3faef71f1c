//! Errors of registries.

use std::error::Error;
use std::io;

use crate::source::manifest::ManifestError;

/// An image could not be fetched from a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection: the name does not resolve, or nothing answers.
    #[error("cannot connect to {registry}: {reason}")]
    Unreachable {
        /// The registry's host.
        registry: String,
        /// The innermost cause.
        reason: String,
    },
    /// The certificate is not trusted, or the server does not use TLS.
    #[error(
        "no TLS connection to {registry}: {reason}; set SSL_CERT_FILE for a private certificate, or give \
         --allow-http {registry} for a registry without TLS"
    )]
    Tls {
        /// The registry's host.
        registry: String,
        /// The innermost cause.
        reason: String,
    },
    /// 401 or 403 without a credential.
    #[error("{registry} refuses {repository} without a password: run `docker login {registry}`")]
    LoginNeeded {
        /// The registry's host.
        registry: String,
        /// The repository or path.
        repository: String,
    },
    /// 401 or 403 with a credential.
    #[error(
        "{registry} refuses {repository} with the stored password: run `docker login {registry}` again, \
         or request access"
    )]
    Refused {
        /// The registry's host.
        registry: String,
        /// The repository or path.
        repository: String,
    },
    /// 404.
    #[error(
        "{registry} has no {what}: check name and tag; a private repository needs `docker login {registry}`"
    )]
    NotFound {
        /// The registry's host.
        registry: String,
        /// The repository or path.
        what: String,
    },
    /// Another status.
    #[error("{registry} answered {status} to {what}")]
    Status {
        /// The registry's host.
        registry: String,
        /// The status, or what is wrong with the body.
        status: String,
        /// The repository or path.
        what: String,
    },
    /// Plain HTTP to a host that is neither loopback nor allowed.
    #[error(
        "refusing plain HTTP to {0}, which anybody on the way can read and change: use https, or allow it with --allow-http {0}"
    )]
    PlainHttp(String),
    /// A malformed URL.
    #[error("invalid registry URL `{0}`: write https://HOST[:PORT]")]
    Url(String),
    /// docker's config.json or a credential helper failed.
    #[error(
        "cannot read the password for {registry}: {reason}; run `docker login {registry}`, or correct ~/.docker/config.json"
    )]
    Credentials {
        /// The registry's host.
        registry: String,
        /// The reason.
        reason: String,
    },
    /// An authentication scheme other than Basic and Bearer.
    #[error(
        "{registry} wants an authentication that is not supported: WWW-Authenticate: {challenge}"
    )]
    Challenge {
        /// The registry's host.
        registry: String,
        /// The value of `WWW-Authenticate`.
        challenge: String,
    },
    /// A malformed manifest or configuration.
    #[error("{reference}: {source}")]
    Manifest {
        /// The image.
        reference: String,
        /// The reason.
        source: ManifestError,
    },
    /// A wrong digest.
    #[error(
        "the {what} has digest {actual} instead of {expected}: it was changed or damaged on the way; try again"
    )]
    Mismatch {
        /// `manifest`, `configuration` or `layer`.
        what: &'static str,
        /// The digest asked for.
        expected: String,
        /// The digest received.
        actual: String,
    },
    /// More bytes than announced or allowed.
    #[error("the {what} has {size} bytes or more, which is more than announced or allowed")]
    TooLarge {
        /// `manifest`, `configuration` or `layer`.
        what: &'static str,
        /// Bytes so far.
        size: u64,
    },
    /// Too many nested indexes.
    #[error("{0} has too many nested indexes")]
    TooManyIndexes(String),
    /// A transfer broke on every attempt.
    #[error(
        "the transfer from {registry} broke {attempts} times: {reason}; try again to resume it"
    )]
    Broken {
        /// The registry's host.
        registry: String,
        /// Number of attempts.
        attempts: u32,
        /// The last cause.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[source] reqwest::Error),
}

impl RegistryError {
    /// True if no connection was made. A registry that answers with an error was reached.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, RegistryError::Unreachable { .. })
    }

    /// Classifies a failed request.
    pub(super) fn from_request(registry: &str, error: &reqwest::Error) -> Self {
        let (registry, reason) = (registry.to_owned(), innermost(error));
        if let Some(host) = plain_http_host(error) {
            return RegistryError::PlainHttp(host);
        }
        if is_tls(error) {
            return RegistryError::Tls { registry, reason };
        }
        RegistryError::Unreachable { registry, reason }
    }
}

/// A redirect from https to http, which [`super::transport`] refuses.
#[derive(Debug, thiserror::Error)]
#[error("a redirect to plain http")]
pub(super) struct PlainRedirect(pub String);

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        // `io::Error::source` skips the error that it wraps.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

fn is_tls(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<rustls::Error>())
}

fn plain_http_host(error: &(dyn Error + 'static)) -> Option<String> {
    causes(error)
        .find_map(|cause| cause.downcast_ref::<PlainRedirect>())
        .map(|it| it.0.clone())
}
