//! The byte stream of a connection: TCP, TLS over TCP, or a Unix socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::tls::TlsTransport;

/// An accepted connection.
pub enum Transport {
    Tcp(TcpStream),
    Tls(TlsTransport),
    Unix(UnixStream),
}

impl Transport {
    /// The TCP stream; `None` for a Unix socket.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Transport::Tcp(stream) => Some(stream),
            Transport::Tls(stream) => stream.tcp(),
            Transport::Unix(_) => None,
        }
    }
}

/// Calls a method of the stream inside, for TLS after the handshake.
macro_rules! forward {
    ($self:ident.$method:ident($context:ident $(, $argument:expr)*)) => {
        match $self.get_mut() {
            Transport::Tcp(stream) => Pin::new(stream).$method($context $(, $argument)*),
            Transport::Tls(stream) => ready!(stream.poll_open($context))?.$method($context $(, $argument)*),
            Transport::Unix(stream) => Pin::new(stream).$method($context $(, $argument)*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self.poll_read(context, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_shutdown(context))
    }
}
