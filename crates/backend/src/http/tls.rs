//! TLS with a certificate that is read again when its files change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::config::Tls;

/// Minimum time between two looks at the files. Only handshakes need the certificate, so only they look.
const LOOK: Duration = Duration::from_secs(1);

/// A certificate or a private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or unreadable.
    #[error("cannot read `{path}` of `{key}`: {source}")]
    Read {
        key: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file has no PEM section of its kind.
    #[error("`{path}` of `{key}` must be in PEM format: {source}")]
    Pem {
        key: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("cannot use `tls.certificate` with `tls.key`: {0}")]
    Pair(#[from] rustls::Error),
}

/// The files, and the configuration made from them.
#[derive(Debug)]
pub struct TlsFiles {
    paths: Tls,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    /// The files that were read last, also if they could not be used.
    read: [Option<Fingerprint>; 2],
    looked: Instant,
}

/// Device, inode, size and time of modification of a file.
type Fingerprint = (u64, u64, u64, i64, i64);

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

fn fingerprints(paths: &Tls) -> [Option<Fingerprint>; 2] {
    [fingerprint(&paths.certificate), fingerprint(&paths.key)]
}

impl TlsFiles {
    /// Reads the files.
    pub fn load(paths: &Tls) -> Result<Self, TlsError> {
        let read = fingerprints(paths);
        let state = State {
            config: server_config(paths)?,
            read,
            looked: Instant::now(),
        };
        Ok(TlsFiles {
            paths: paths.clone(),
            state: Mutex::new(state),
        })
    }

    /// Begins a handshake, with the files as they are now.
    pub fn accept(&self, stream: TcpStream) -> TlsTransport {
        let accept = TlsAcceptor::from(self.config()).accept(stream);
        TlsTransport::Handshake(Box::new(accept))
    }

    fn config(&self) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            self.look(&mut state);
        }
        Arc::clone(&state.config)
    }

    /// Reads changed files. If they cannot be used, for example because one of them is not written yet, the earlier ones
    /// stay until the next change.
    fn look(&self, state: &mut State) {
        let now = fingerprints(&self.paths);
        if now == state.read {
            return;
        }
        state.read = now;
        match server_config(&self.paths) {
            Ok(config) => {
                state.config = config;
                tracing::info!("the files of the TLS certificate were read again");
            }
            Err(error) => tracing::error!(%error, "the earlier TLS certificate stays in use"),
        }
    }
}

fn server_config(paths: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let certificate = read("tls.certificate", &paths.certificate)?;
    let certificates = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.and_then(|certificates| match certificates.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(certificates),
    });
    let failed = |key, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { key, path, source }
    };
    let certificates = certificates.map_err(failed("tls.certificate", &paths.certificate))?;
    let key = PrivateKeyDer::from_pem_slice(&read("tls.key", &paths.key)?)
        .map_err(failed("tls.key", &paths.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        key,
        path: path.to_owned(),
        source,
    })
}

/// A connection whose handshake is part of its first read or write, so that the time-out for headers limits it.
pub enum TlsTransport {
    Handshake(Box<Accept<TcpStream>>),
    Open(Box<TlsStream<TcpStream>>),
    /// The handshake failed.
    Failed,
}

impl TlsTransport {
    /// The connection below TLS; `None` after a failed handshake.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            TlsTransport::Handshake(accept) => accept.get_ref(),
            TlsTransport::Open(stream) => Some(stream.get_ref().0),
            TlsTransport::Failed => None,
        }
    }

    /// The stream after the handshake.
    pub fn poll_open(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let TlsTransport::Handshake(accept) = self {
            match ready!(Pin::new(&mut **accept).poll(context)) {
                Ok(stream) => *self = TlsTransport::Open(Box::new(stream)),
                Err(error) => {
                    *self = TlsTransport::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        match self {
            TlsTransport::Open(stream) => Poll::Ready(Ok(Pin::new(&mut **stream))),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}
