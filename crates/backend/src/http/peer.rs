//! Whether the client is still there. A FIN says only that it sends no more: it may have closed one half of
//! its connection and wait for the answer, or both. The second shows when something is sent to it, which it
//! answers with a RST.

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

/// RFC 9110, 15.2.1: a client that did not ask for it ignores it, and unlike other interim responses every
/// client knows it.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// A peer that is silent for so long is asked whether it is there.
const IDLE: Duration = Duration::from_secs(15);
/// It is gone when it does not answer so many times.
const PROBES: u32 = 4;

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// A duplicate with a registration of its own: waiting on it takes no event from whoever reads.
    stream: TcpStream,
    loopback: bool,
    /// Did the last write take less than it was given? The rest is still to be sent.
    backlog: AtomicBool,
}

impl Peer {
    /// The peer of a connection, which from now on is probed when it is silent (tcp(7), keep-alive).
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

    /// Is it a process of this host?
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Waits until the client sends no more: it closed its sending half, or the connection.
    pub async fn sends_no_more(&self) {
        loop {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                _ => return,
            }
            // Forgets that there is something to read, which is not ours, and waits for the next event.
            let _ = self.stream.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
    }

    /// Sends an interim response: a client that closed its connection answers with a RST. For a request whose
    /// response has not begun.
    pub fn probe(&self) {
        // Not into the response before it, whose rest shows as well whether the client is there.
        if !self.backlog.load(Ordering::Relaxed) {
            let _ = self.stream.try_write(INTERIM);
        }
    }

    /// Waits until the connection is reset, by the client or because keep-alive found no client.
    pub async fn reset(&self) {
        let _ = self.stream.ready(Interest::ERROR).await;
    }
}

/// A connection that knows whether everything that it was given to send is on its way.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    peer: Arc<Peer>,
}

impl Watched {
    pub fn new(stream: TcpStream, peer: Arc<Peer>) -> Self {
        Watched { stream, peer }
    }

    fn wrote(&self, bytes: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let all = matches!(written, Poll::Ready(Ok(written)) if written == bytes);
        self.peer.backlog.store(!all, Ordering::Relaxed);
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Watched {
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
