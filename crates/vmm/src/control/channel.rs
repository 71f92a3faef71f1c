//! [`Channel`]: JSON messages with file descriptors over a SOCK_SEQPACKET socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most bytes of a message.
pub const MAX_MESSAGE: usize = 64 << 10;
/// The most descriptors per message (Linux allows 253).
pub const MAX_DESCRIPTORS: usize = 64;

/// One end of a control socket.
///
/// [`Channel::send`] and [`Channel::recv`] block; [`Channel::try_send`] and [`Channel::try_recv`] do not. An event loop
/// waits for the descriptor of [`AsFd`]. The socket stays in blocking mode.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A message that cannot be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end has closed the socket.
    #[error("the other end of the control socket is closed")]
    Closed,
    /// The socket's queue is full: the other end does not read.
    #[error("the control socket is full: the other end does not read its messages")]
    Full,
    /// The message is larger than [`MAX_MESSAGE`] or has more than [`MAX_DESCRIPTORS`] descriptors.
    #[error(
        "a control message has {bytes} bytes and {descriptors} descriptors; the limits are {MAX_MESSAGE} and \
         {MAX_DESCRIPTORS}"
    )]
    TooLarge {
        /// Size of the message in bytes.
        bytes: usize,
        /// Number of descriptors.
        descriptors: usize,
    },
    /// The message is not valid JSON or has unknown fields: the other end has another version.
    #[error("a control message does not parse: {0}")]
    Format(#[from] serde_json::Error),
    /// sendmsg or recvmsg failed.
    #[error("the control socket failed: {0}")]
    Socket(#[from] io::Error),
}

impl Channel {
    /// Two connected ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(a), Self(b)))
    }

    /// A channel over `socket`, a connected SOCK_SEQPACKET socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends a message with duplicates of `descriptors`. Blocks while the socket is full.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.send_with(message, descriptors, SendFlags::empty())
    }

    /// [`Channel::send`] that returns [`ChannelError::Full`] instead of blocking, and then has sent nothing. For
    /// threads that must not wait for another process.
    pub fn try_send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.send_with(message, descriptors, SendFlags::DONTWAIT)
    }

    fn send_with<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(ChannelError::TooLarge {
                bytes: bytes.len(),
                descriptors: descriptors.len(),
            });
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            let pushed = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            debug_assert!(pushed, "the buffer holds MAX_DESCRIPTORS");
        }
        let data = [IoSlice::new(&bytes)];
        loop {
            let flags = flags | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.0, &data, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(ChannelError::Full),
                Ok(_) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// Receives a message and its descriptors. Blocks until one arrives.
    pub fn recv<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        loop {
            if let Some(message) = self.receive(RecvFlags::empty())? {
                return Ok(message);
            }
        }
    }

    /// Receives a message and its descriptors, or `None` if none has arrived.
    pub fn try_recv<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        self.receive(RecvFlags::DONTWAIT)
    }

    fn receive<M: DeserializeOwned>(
        &self,
        flags: RecvFlags,
    ) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        // Zeroed by the kernel: a short message touches only the first page.
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut data = [IoSliceMut::new(&mut bytes)];
            let flags = flags | RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.0, &mut data, &mut ancillary, flags) {
                // If the other end closed with unread messages, ECONNRESET is returned once, before the messages
                // that it had sent (net/unix/af_unix.c, `unix_release_sock`).
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(io::Error::from(error).into()),
                Ok(received) => break received,
            }
        };
        let descriptors = collect(&mut ancillary);
        if received.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(ChannelError::TooLarge {
                bytes: received.bytes,
                descriptors: descriptors.len(),
            });
        }
        let message = serde_json::from_slice(&bytes[..received.bytes])?;
        Ok(Some((message, descriptors)))
    }
}

fn collect(ancillary: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    descriptors
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Event, Request};

    #[test]
    fn a_message_arrives_with_its_descriptors_in_order() {
        let (host, worker) = Channel::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let sent = Request::Connect { id: 7, port: 1024 };
        host.send(&sent, &[write.as_fd(), read.as_fd()]).unwrap();

        let (got, fds) = worker.recv::<Request>().unwrap();

        assert_eq!(got, sent);
        rustix::io::write(&fds[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&fds[1], &mut byte).unwrap(), 1);
    }

    #[test]
    fn received_descriptors_do_not_survive_an_exec() {
        let (host, worker) = Channel::pair().unwrap();
        let sent = Request::Connect { id: 7, port: 1024 };
        host.send(&sent, &[host.as_fd()]).unwrap();
        let (_, fds) = worker.recv::<Request>().unwrap();
        let flags = rustix::io::fcntl_getfd(&fds[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn no_message_is_none_and_a_closed_socket_an_error() {
        let (host, worker) = Channel::pair().unwrap();
        assert!(worker.try_recv::<Request>().unwrap().is_none());
        drop(host);
        assert!(matches!(
            worker.try_recv::<Request>(),
            Err(ChannelError::Closed)
        ));
        assert!(matches!(
            worker.send(&Event::Started, &[]),
            Err(ChannelError::Closed)
        ));
    }

    #[test]
    fn try_send_to_a_full_socket_is_an_error() {
        let (host, _worker) = Channel::pair().unwrap();
        let request = Request::ConsoleInput {
            bytes: vec![0; 4096],
        };
        // A socket holds a bounded number of bytes, so the loop ends.
        let error = loop {
            if let Err(error) = host.try_send(&request, &[]) {
                break error;
            }
        };
        assert!(matches!(error, ChannelError::Full), "{error}");
    }

    #[test]
    fn a_message_that_is_too_large_is_not_sent() {
        let (host, worker) = Channel::pair().unwrap();
        let bytes = vec![0; MAX_MESSAGE];
        let error = host
            .send(&Request::ConsoleInput { bytes }, &[])
            .unwrap_err();
        assert!(matches!(error, ChannelError::TooLarge { .. }));
        assert!(worker.try_recv::<Request>().unwrap().is_none());
    }

    #[test]
    fn messages_from_an_end_that_closed_unread_arrive() {
        let (host, worker) = Channel::pair().unwrap();
        host.send(&"connect", &[]).unwrap();
        worker.send(&"exited", &[]).unwrap();
        drop(worker);
        assert_eq!(host.recv::<String>().unwrap().0, "exited");
        assert!(matches!(host.recv::<String>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn the_channel_survives_a_message_that_does_not_parse() {
        let (host, worker) = Channel::pair().unwrap();
        host.send(&"nonsense", &[]).unwrap();
        host.send(&Request::ConsoleInput { bytes: vec![1] }, &[])
            .unwrap();
        assert!(matches!(
            worker.try_recv::<Request>(),
            Err(ChannelError::Format(_))
        ));
        assert!(worker.try_recv::<Request>().unwrap().is_some());
    }
}
