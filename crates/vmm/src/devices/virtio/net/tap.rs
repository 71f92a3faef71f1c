//! The TAP's settings. Opening and naming it is for whoever hands it over.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::HEADER_SIZE;

// linux/if_tun.h: _IOW('T', 208, unsigned int) and _IOW('T', 216, int).
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

// linux/if_tun.h.
pub const TUN_F_CSUM: u32 = 0x01;
pub const TUN_F_TSO4: u32 = 0x02;
pub const TUN_F_TSO6: u32 = 0x04;

/// Each frame starts with the header of virtio 1.0 and later.
pub fn set_header_size(tap: BorrowedFd) -> io::Result<()> {
    let size = HEADER_SIZE as libc::c_int;
    // SAFETY: the request reads one int, which lives through the call; a descriptor that is no TAP
    // answers with an error.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &size) })
}

/// Which unfinished frames (`TUN_F_*`) may be given to the guest.
pub fn set_offload(tap: BorrowedFd, flags: u32) -> io::Result<()> {
    // SAFETY: the request takes its argument by value.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// Reads and writes return instead of waiting.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take and give integers alone.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    check(flags)?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
