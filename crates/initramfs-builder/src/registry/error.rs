//! Why a registry did not give an image.

use std::error::Error;
use std::io;

use crate::source::manifest::ManifestError;

/// Why a registry did not give an image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection: the name does not resolve, nobody listens, or nobody answers.
    #[error("{registry} cannot be reached: {reason}")]
    Unreachable {
        /// The registry's host.
        registry: String,
        /// The innermost cause.
        reason: String,
    },
    /// Its certificate was not accepted, or it speaks no TLS.
    #[error(
        "no trusted connection to {registry}: {reason}. Set SSL_CERT_FILE if its certificate is private; \
         for a registry without TLS, --allow-http {registry}"
    )]
    Tls {
        /// The registry's host.
        registry: String,
        /// The innermost cause.
        reason: String,
    },
    /// It wants to know who asks.
    #[error("{registry} refuses {repository} without a password; run `docker login {registry}`")]
    LoginNeeded {
        /// The registry's host.
        registry: String,
        /// What was asked for.
        repository: String,
    },
    /// It knows who asks, and refuses.
    #[error(
        "{registry} refuses {repository} with the stored password; run `docker login {registry}` again, \
         or ask for access"
    )]
    Refused {
        /// The registry's host.
        registry: String,
        /// What was asked for.
        repository: String,
    },
    /// Not there.
    #[error(
        "{registry} has no {what}; check its name and tag (a private one needs `docker login {registry}`)"
    )]
    NotFound {
        /// The registry's host.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// Some other answer.
    #[error("{registry} answered {status} to {what}")]
    Status {
        /// The registry's host.
        registry: String,
        /// The status.
        status: String,
        /// What was asked for.
        what: String,
    },
    /// Plain http to a host that is neither loopback nor allowed.
    #[error(
        "{0} would be asked over plain http, where anyone can read and change what passes; use https, or allow it with --allow-http {0}"
    )]
    PlainHttp(String),
    /// A URL that makes no sense.
    #[error("`{0}` is no URL of a registry; write https://HOST[:PORT]")]
    Url(String),
    /// docker's config.json or a credential helper.
    #[error(
        "the password for {registry}: {reason}; run `docker login {registry}`, or correct ~/.docker/config.json"
    )]
    Credentials {
        /// The registry's host.
        registry: String,
        /// What went wrong.
        reason: String,
    },
    /// Its way of asking for a password is not known.
    #[error("{registry} asks for a password in a way that is not known: `{challenge}`")]
    Challenge {
        /// The registry's host.
        registry: String,
        /// What it sent.
        challenge: String,
    },
    /// A manifest or configuration that makes no sense.
    #[error("{reference}: {source}")]
    Manifest {
        /// The image.
        reference: String,
        /// Why.
        source: ManifestError,
    },
    /// Not the bytes of the digest.
    #[error("the {what} is not the one that was asked for: {actual} instead of {expected}")]
    Mismatch {
        /// `manifest`, `configuration` or `layer`.
        what: &'static str,
        /// The digest asked for.
        expected: String,
        /// The digest received.
        actual: String,
    },
    /// More bytes than it may have.
    #[error("the {what} has {size} bytes, more than it may have")]
    TooLarge {
        /// `manifest`, `configuration` or `layer`.
        what: &'static str,
        /// How many.
        size: u64,
    },
    /// Indexes in indexes.
    #[error("{0} is an index of indexes of indexes without end")]
    TooManyIndexes(String),
    /// A transfer that broke more often than it was worth trying.
    #[error(
        "the transfer from {registry} broke off {attempts} times: {reason}; what has come is kept, try again"
    )]
    Broken {
        /// The registry's host.
        registry: String,
        /// How often.
        attempts: u32,
        /// The last cause.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("preparing for https: {0}")]
    Client(#[source] reqwest::Error),
}

impl RegistryError {
    /// Whether nobody was there to ask. A registry that answers, whatever it answers, was reached.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, RegistryError::Unreachable { .. })
    }

    /// Sorts a failed request.
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
        // An I/O error that wraps another skips it in its own list of causes.
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
