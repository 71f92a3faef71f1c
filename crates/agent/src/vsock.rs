//! The agent's end of the VM's vsock device (vsock(7)).

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, listen, socket,
};

use crate::uevent;

/// The virtio driver may still be looking at the device when the agent wants it.
const DEVICE_PATIENCE: Duration = Duration::from_secs(5);

fn stream() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

/// Listen on `port`, for whoever reaches this VM.
pub fn listener(port: u32) -> nix::Result<OwnedFd> {
    let listener = stream()?;
    bind(
        listener.as_raw_fd(),
        &VsockAddr::new(libc::VMADDR_CID_ANY, port),
    )?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

/// Tell the host by an attempt to connect to its `port`. It refuses, having understood.
pub fn signal_host(port: u32) -> nix::Result<()> {
    let attempt = || {
        let result = stream().and_then(|socket| {
            connect(
                socket.as_raw_fd(),
                &VsockAddr::new(libc::VMADDR_CID_HOST, port),
            )
        });
        match result {
            // No transport yet.
            Err(Errno::ENODEV | Errno::ENETUNREACH | Errno::EADDRNOTAVAIL) => None,
            result => Some(result),
        }
    };
    match uevent::wait_for(DEVICE_PATIENCE, attempt)? {
        Some(Ok(()) | Err(Errno::ECONNRESET | Errno::ECONNREFUSED)) => Ok(()),
        Some(Err(error)) => Err(error),
        None => Err(Errno::ENODEV),
    }
}
