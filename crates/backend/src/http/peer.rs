//! Detects that a client closed its connection. A FIN has two meanings: the client closed its sending half and waits
//! for the answer, or it closed the connection. In the second case it answers data with a RST.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

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
    stream: TcpStream,
    loopback: bool,
    /// True if the last write was short, so that a part of the response is still to be sent.
    backlog: AtomicBool,
}

impl Peer {
    /// The client of `stream`. Enables TCP keep-alive (tcp(7)).
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, IDLE)?;
        sockopt::set_tcp_keepintvl(stream, IDLE)?;
        sockopt::set_tcp_keepcnt(stream, PROBES)?;
        let duplicate = stream.as_fd().try_clone_to_owned()?;
        Ok(Peer {
            loopback: stream.peer_addr()?.ip().to_canonical().is_loopback(),
            stream: TcpStream::from_std(duplicate.into())?,
            backlog: AtomicBool::new(false),
        })
    }

    /// True if the client has a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Waits for the FIN: the client closed its sending half, or the connection.
    pub async fn read_closed(&self) {
        loop {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                _ => return,
            }
            // Clears the readiness and waits for the next event. The data belongs to the reader.
            let _ = self.stream.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
    }

    /// Sends an interim response, which a client that closed its connection answers with a RST. Call it before the
    /// response begins.
    pub fn probe(&self) {
        // Not inside the previous response. The rest of that response has the same effect.
        if !self.backlog.load(Ordering::Relaxed) {
            let _ = self.stream.try_write(INTERIM);
        }
    }

    /// Waits until the connection is reset by the client or by keep-alive.
    pub async fn reset(&self) {
        let _ = self.stream.ready(Interest::ERROR).await;
    }
}

/// A connection that records whether its last write was short, for [`Peer::probe`].
#[derive(Debug)]
pub struct WatchedStream {
    stream: TcpStream,
    peer: Arc<Peer>,
}

impl WatchedStream {
    pub fn new(stream: TcpStream, peer: Arc<Peer>) -> Self {
        WatchedStream { stream, peer }
    }

    fn wrote(&self, bytes: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let all = matches!(written, Poll::Ready(Ok(written)) if written == bytes);
        self.peer.backlog.store(!all, Ordering::Relaxed);
        written
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
        self.wrote(bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(slices.iter().map(|slice| slice.len()).sum(), written)
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
