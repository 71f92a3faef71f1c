//! Waits for a device with the kernel's uevents (NETLINK_KOBJECT_UEVENT) instead of polling.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The multicast group of the kernel's events (lib/kobject_uevent.c).
const KERNEL_GROUP: u32 = 1;

/// Calls `attempt` now and after each uevent, until it returns a value or `timeout` has passed.
pub fn wait_for<T>(
    timeout: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> nix::Result<Option<T>> {
    if let Some(found) = attempt() {
        return Ok(Some(found));
    }
    let events = subscribe()?;
    let deadline = Instant::now() + timeout;
    loop {
        // After the subscription, so that a device that appeared before it is not missed.
        if let Some(found) = attempt() {
            return Ok(Some(found));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let ms = left.as_millis().clamp(1, i32::MAX as u128) as i32;
        match poll(
            &mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)],
            PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        let mut scratch = [0; 4096];
        while recv(events.as_raw_fd(), &mut scratch, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

fn subscribe() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    let events = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_present_device_is_found_at_once() {
        assert_eq!(wait_for(Duration::ZERO, || Some(7)).unwrap(), Some(7));
    }

    #[test]
    fn an_absent_device_times_out() {
        assert_eq!(
            wait_for(Duration::from_millis(1), || None::<()>).unwrap(),
            None
        );
    }
}
