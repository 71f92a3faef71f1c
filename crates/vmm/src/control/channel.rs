//! Messages with descriptors, over a seqpacket socket.

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

/// How long a message may be, in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;
/// How many descriptors travel with one message (Linux allows 253).
pub const MAX_DESCRIPTORS: usize = 64;

/// One end of a control socket.
///
/// The socket itself stays blocking; [`Channel::send`] and [`Channel::recv`] wait, and [`Channel::try_send`]
/// and [`Channel::try_recv`] do not, so that one end can serve both a plain program and an event loop.
/// For the latter, [`AsFd`] gives what to wait for.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A message that cannot travel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is gone.
    #[error("the other end of the control socket is closed")]
    Closed,
    /// The other end does not read: its queue is full.
    #[error("the other end of the control socket does not read its messages")]
    Full,
    /// The message is larger than [`MAX_MESSAGE`], or brings more than [`MAX_DESCRIPTORS`].
    #[error("a control message of {bytes} bytes with {descriptors} descriptors is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Its descriptors.
        descriptors: usize,
    },
    /// The other end speaks another version.
    #[error("a control message does not parse: {0}")]
    Format(#[from] serde_json::Error),
    /// The socket failed.
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

    /// The end that `socket` is: a connected seqpacket socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends a message and copies of `descriptors`. Waits while the other end's queue is full.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.send_with(message, descriptors, SendFlags::empty())
    }

    /// As [`Channel::send`], but [`ChannelError::Full`] instead of waiting: for threads that must not wait
    /// for a process which may have stopped reading. Nothing was sent then.
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
            debug_assert!(pushed, "the space is for MAX_DESCRIPTORS");
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

    /// Receives a message and its descriptors. Waits for one.
    pub fn recv<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        loop {
            if let Some(message) = self.receive(RecvFlags::empty())? {
                return Ok(message);
            }
        }
    }

    /// Receives a message and its descriptors if one is there.
    pub fn try_recv<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        self.receive(RecvFlags::DONTWAIT)
    }

    fn receive<M: DeserializeOwned>(
        &self,
        flags: RecvFlags,
    ) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        // Zero pages from the kernel: a short message touches only the first.
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut data = [IoSliceMut::new(&mut bytes)];
            let flags = flags | RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.0, &mut data, &mut ancillary, flags) {
                // Told once, and before what the other end had sent, where it closed without having
                // read everything (net/unix/af_unix.c, `unix_release_sock`).
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
    fn nothing_to_receive_is_none_and_a_closed_end_an_error() {
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
    fn a_full_queue_is_an_error_where_sending_must_not_wait() {
        let (host, _worker) = Channel::pair().unwrap();
        let request = Request::ConsoleInput {
            bytes: vec![0; 4096],
        };
        // A queue holds a bounded number of bytes, so that this ends.
        let error = loop {
            if let Err(error) = host.try_send(&request, &[]) {
                break error;
            }
        };
        assert!(matches!(error, ChannelError::Full), "{error}");
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_sent() {
        let (host, worker) = Channel::pair().unwrap();
        let bytes = vec![0; MAX_MESSAGE];
        let error = host
            .send(&Request::ConsoleInput { bytes }, &[])
            .unwrap_err();
        assert!(matches!(error, ChannelError::TooLarge { .. }));
        assert!(worker.try_recv::<Request>().unwrap().is_none());
    }

    #[test]
    fn the_last_words_of_an_end_that_did_not_listen_arrive() {
        let (host, worker) = Channel::pair().unwrap();
        host.send(&"connect", &[]).unwrap();
        worker.send(&"exited", &[]).unwrap();
        drop(worker);
        assert_eq!(host.recv::<String>().unwrap().0, "exited");
        assert!(matches!(host.recv::<String>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn what_does_not_parse_is_an_error_and_the_channel_goes_on() {
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
