//! TAP devices, which exist as long as their descriptor is open.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `TUNSETIFF` of include/uapi/linux/if_tun.h. The macro has `int`, but the argument is a `struct ifreq`.
const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);

/// Creates a TAP and returns its descriptor. The kernel removes the TAP when the last copy of the descriptor is closed.
/// Fails with EBUSY if a device of that name exists (IFF_TUN_EXCL).
pub fn create(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let request = ifreq(name)?;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`. The setter passes a pointer to a copy of `request` that
    // outlives the call.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, libc::ifreq>::new(request)) }?;
    Ok(file)
}

fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name of a network interface has at most 15 bytes (IFNAMSIZ)",
        ));
    }
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    Ok(libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags as libc::c_short,
        },
    })
}
