//! The listening socket: TCP with or without TLS, or a Unix socket.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::tls::TlsFiles;
use super::transport::Transport;
use super::unix_socket::UnixSocket;
use crate::config::{Api, Listen};

/// A listening socket. Dropping it closes it and removes a Unix socket's file.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, TlsFiles),
    Unix(UnixSocket),
}

impl Listener {
    /// Listens on the configured address. Needs a tokio runtime.
    pub async fn bind(listen: &Listen, api: &Api) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Listen::Unix(path) => UnixSocket::bind(path, &api.socket_group).map(Listener::Unix),
        }
    }

    /// Speaks TLS on TCP connections. A Unix socket stays as it is.
    pub fn with_tls(self, files: TlsFiles) -> Self {
        match self {
            Listener::Tcp(listener) => Listener::Tls(listener, files),
            other => other,
        }
    }

    /// The address, with the port that port 0 selected.
    pub fn address(&self) -> io::Result<Listen> {
        Ok(match self {
            Listener::Tcp(listener) | Listener::Tls(listener, _) => {
                Listen::Tcp(listener.local_addr()?)
            }
            Listener::Unix(socket) => Listen::Unix(socket.path().to_owned()),
        })
    }

    /// The next connection, and its client's address unless it is a Unix socket.
    pub async fn accept(&self) -> io::Result<(Transport, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = accept(listener).await?;
                Ok((Transport::Tcp(stream), Some(address)))
            }
            Listener::Tls(listener, files) => {
                let (stream, address) = accept(listener).await?;
                Ok((Transport::Tls(files.accept(stream)), Some(address)))
            }
            Listener::Unix(socket) => Ok((Transport::Unix(socket.accept().await?), None)),
        }
    }
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    // Small events are sent at once.
    let _ = stream.set_nodelay(true);
    Ok((stream, address))
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Listener::Tcp(listener)
    }
}
