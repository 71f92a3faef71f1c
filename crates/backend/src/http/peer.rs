//! The client of a connection: whether it takes its response, and whether it closed the connection. A FIN has two
//! meanings: the client closed its sending half and waits for the answer, or it closed the connection. In the second
//! case it answers data with a RST. On a Unix socket the kernel tells the two apart: only closing sets EPOLLHUP. TLS has
//! no bytes to answer with, so there a FIN counts as closing the connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::transport::Transport;
use crate::bounds::Bounds;

/// Clients ignore an unexpected 100 (RFC 9110, 15.2.1), and all HTTP/1.1 clients know it, unlike other interim
/// responses.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// TCP_KEEPIDLE and TCP_KEEPINTVL: silence before the first keep-alive probe, and between probes.
const IDLE: Duration = Duration::from_secs(15);
/// TCP_KEEPCNT: unanswered probes after which the connection is reset.
const PROBES: u32 = 4;

/// The client of a connection.
#[derive(Debug)]
pub struct Peer {
    /// A duplicate descriptor with its own registration in epoll, so that waiting on it takes no event from the reader.
    socket: Socket,
    local: bool,
    /// True if the last write was short, so that a part of the response is still to be sent.
    backlog: AtomicBool,
    closer: CancellationToken,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Tls(TcpStream),
    Unix(UnixStream),
}

impl Peer {
    /// The client of `stream`. Enables TCP keep-alive (tcp(7)).
    pub fn of(stream: &Transport) -> io::Result<Self> {
        let (socket, local) = match stream {
            Transport::Tcp(stream) => (Socket::Tcp(watched(stream)?), is_loopback(stream)?),
            Transport::Tls(stream) => {
                let stream = stream.tcp().ok_or(io::ErrorKind::NotConnected)?;
                (Socket::Tls(watched(stream)?), is_loopback(stream)?)
            }
            Transport::Unix(stream) => {
                let stream = UnixStream::from_std(duplicate(stream.as_fd())?)?;
                (Socket::Unix(stream), true)
            }
        };
        Ok(Peer {
            socket,
            local,
            backlog: AtomicBool::new(false),
            closer: CancellationToken::new(),
        })
    }

    /// True if the client is on this host: it has a loopback address, or uses a Unix socket.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Waits for the FIN: the client closed its sending half, or the connection.
    pub async fn read_closed(&self) {
        self.wait_closed(Interest::READABLE, Ready::is_read_closed)
            .await;
    }

    /// Sends an interim response, which a client that closed its connection answers with a RST. Call it before the
    /// response begins.
    pub fn probe(&self) {
        // Not inside the previous response. The rest of that response has the same effect.
        if let Socket::Tcp(stream) = &self.socket
            && !self.backlog.load(Ordering::Relaxed)
        {
            let _ = stream.try_write(INTERIM);
        }
    }

    /// Closes the connection when it is cancelled.
    pub fn closer(&self) -> CancellationToken {
        self.closer.clone()
    }

    /// Waits until [`Peer::closer`] is cancelled. The connection is then reset when it is dropped, so that the kernel
    /// frees what the client has not taken.
    pub async fn closed(&self) {
        self.closer.cancelled().await;
        self.reset_on_close();
    }

    fn reset_on_close(&self) {
        // A Unix socket frees it in any case.
        if let Socket::Tcp(stream) | Socket::Tls(stream) = &self.socket {
            let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }

    /// Waits until the connection is reset by the client or by keep-alive.
    pub async fn reset(&self) {
        match self.socket {
            Socket::Tcp(_) => self.wait_closed(Interest::ERROR, |_| true).await,
            Socket::Tls(_) => self.read_closed().await,
            Socket::Unix(_) => {
                self.wait_closed(Interest::WRITABLE, Ready::is_write_closed)
                    .await
            }
        }
    }

    async fn wait_closed(&self, interest: Interest, is_closed: impl Fn(Ready) -> bool) {
        loop {
            match self.socket.ready(interest).await {
                Ok(ready) if !is_closed(ready) => self.socket.clear(interest),
                _ => return,
            }
        }
    }
}

impl Socket {
    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Socket::Tcp(stream) | Socket::Tls(stream) => stream.ready(interest).await,
            Socket::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// Clears the readiness, to wait for the next event. The data belongs to the reader.
    fn clear(&self, interest: Interest) {
        let clear = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = match self {
            Socket::Tcp(stream) | Socket::Tls(stream) => stream.try_io(interest, clear),
            Socket::Unix(stream) => stream.try_io(interest, clear),
        };
    }
}

/// A duplicate of a TCP stream, with keep-alive (tcp(7)).
fn watched(stream: &TcpStream) -> io::Result<TcpStream> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, IDLE)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    TcpStream::from_std(duplicate(stream.as_fd())?)
}

fn duplicate<T: From<OwnedFd>>(socket: BorrowedFd<'_>) -> io::Result<T> {
    Ok(socket.try_clone_to_owned()?.into())
}

fn is_loopback(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.peer_addr()?.ip().to_canonical().is_loopback())
}

/// A connection whose writes fail when the client takes no data for too long. It records whether its last write was
/// short, for [`Peer::probe`].
pub struct WatchedStream {
    stream: Transport,
    peer: Arc<Peer>,
    timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    bounds: Bounds,
}

impl WatchedStream {
    /// `timeout`: maximum time without progress of a write.
    pub fn new(stream: Transport, peer: Arc<Peer>, timeout: Duration, bounds: Bounds) -> Self {
        WatchedStream {
            stream,
            peer,
            timeout,
            stalled: None,
            bounds,
        }
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        bytes: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let all = matches!(written, Poll::Ready(Ok(written)) if written == bytes);
        self.peer.backlog.store(!all, Ordering::Relaxed);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.timeout;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if stalled.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.bounds.rejected("write_time");
        self.peer.reset_on_close();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.wrote(context, bytes, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
