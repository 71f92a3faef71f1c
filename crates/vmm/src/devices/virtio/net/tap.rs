//! The ioctls on the TAP. The host opens and names it.

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

/// TUNSETVNETHDRSZ: each frame starts with the header of virtio 1.0 and later.
pub fn set_header_size(tap: BorrowedFd) -> io::Result<()> {
    let size = HEADER_SIZE as libc::c_int;
    // SAFETY: the ioctl reads one int, which outlives the call. It fails on a descriptor that is not a TAP.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &size) })
}

/// TUNSETOFFLOAD: the offloads (`TUN_F_*`) that the guest accepts.
pub fn set_offload(tap: BorrowedFd, flags: u32) -> io::Result<()> {
    // SAFETY: the ioctl takes its argument by value.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// Sets O_NONBLOCK.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take and return integers only.
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
