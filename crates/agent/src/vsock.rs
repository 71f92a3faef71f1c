//! vsock sockets (vsock(7)): the listener, and the ready signal to the host.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, listen, socket,
};

use crate::uevent;

/// How long to wait for the virtio driver to probe the device.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(5);

/// Stack of the thread that waits for the device, in bytes of address space.
const WAIT_STACK_BYTES: usize = 64 * 1024;

fn stream() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

/// Listens on `port` of any CID.
pub fn listener(port: u32) -> nix::Result<OwnedFd> {
    let listener = stream()?;
    bind(
        listener.as_raw_fd(),
        &VsockAddr::new(libc::VMADDR_CID_ANY, port),
    )?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

/// Signals the host by a connect to its `port`, which the host refuses. Without a device yet, a thread waits for it,
/// so that the server starts at once.
pub fn signal_host(port: u32) {
    if let Some(result) = attempt(port) {
        return log(result);
    }
    let wait = move || match uevent::wait_for(DEVICE_TIMEOUT, || attempt(port)) {
        Ok(Some(result)) => log(result),
        Ok(None) => log(Err(Errno::ENODEV)),
        Err(errno) => log(Err(errno)),
    };
    let _ = std::thread::Builder::new()
        .stack_size(WAIT_STACK_BYTES)
        .spawn(wait);
}

/// Connects once. None while there is no device.
fn attempt(port: u32) -> Option<nix::Result<()>> {
    let host = VsockAddr::new(libc::VMADDR_CID_HOST, port);
    match stream().and_then(|socket| connect(socket.as_raw_fd(), &host)) {
        Err(Errno::ENODEV | Errno::ENETUNREACH | Errno::EADDRNOTAVAIL) => None,
        Ok(()) | Err(Errno::ECONNRESET | Errno::ECONNREFUSED) => Some(Ok(())),
        Err(errno) => Some(Err(errno)),
    }
}

/// A failure is not fatal: a VM that is booted by hand may have no vsock device.
fn log(result: nix::Result<()>) {
    if let Err(errno) = result {
        println!(
            "cloude-agent: connect to vsock port of the host: {errno}; the host gets no ready signal"
        );
    }
}
