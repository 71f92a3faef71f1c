//! The listening socket: TCP or a Unix socket.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::transport::Transport;
use super::unix_socket::UnixSocket;
use crate::config::{Api, Listen};

/// A listening socket. Dropping it closes it and removes a Unix socket's file.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
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

    /// The address, with the port that port 0 selected.
    pub fn address(&self) -> io::Result<Listen> {
        Ok(match self {
            Listener::Tcp(listener) => Listen::Tcp(listener.local_addr()?),
            Listener::Unix(socket) => Listen::Unix(socket.path().to_owned()),
        })
    }

    /// The next connection, and its client's address unless it is a Unix socket.
    pub async fn accept(&self) -> io::Result<(Transport, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small events are sent at once.
                let _ = stream.set_nodelay(true);
                Ok((Transport::Tcp(stream), Some(address)))
            }
            Listener::Unix(socket) => Ok((Transport::Unix(socket.accept().await?), None)),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Listener::Tcp(listener)
    }
}
