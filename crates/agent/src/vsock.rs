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

/// Address space for the thread that waits for the device.
const WAIT_STACK_BYTES: usize = 64 * 1024;

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
///
/// Where the driver has no device yet, a thread waits for it, so that serving does not.
pub fn signal_host(port: u32) {
    if let Some(result) = attempt(port) {
        return tell(result);
    }
    let wait = move || match uevent::wait_for(DEVICE_PATIENCE, || attempt(port)) {
        Ok(Some(result)) => tell(result),
        Ok(None) => tell(Err(Errno::ENODEV)),
        Err(errno) => tell(Err(errno)),
    };
    let _ = std::thread::Builder::new()
        .stack_size(WAIT_STACK_BYTES)
        .spawn(wait);
}

/// None while there is no device.
fn attempt(port: u32) -> Option<nix::Result<()>> {
    let host = VsockAddr::new(libc::VMADDR_CID_HOST, port);
    match stream().and_then(|socket| connect(socket.as_raw_fd(), &host)) {
        Err(Errno::ENODEV | Errno::ENETUNREACH | Errno::EADDRNOTAVAIL) => None,
        Ok(()) | Err(Errno::ECONNRESET | Errno::ECONNREFUSED) => Some(Ok(())),
        Err(errno) => Some(Err(errno)),
    }
}

/// Not fatal: a VM started by hand may have no vsock device, and others see the console.
fn tell(result: nix::Result<()>) {
    if let Err(errno) = result {
        println!("cloude-agent: the host could not be told over vsock: {errno}");
    }
}
