//! TAP devices that live as long as their descriptor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `TUNSETIFF` of include/uapi/linux/if_tun.h; declared with an int, it takes a `struct ifreq`.
const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);

/// Makes a TAP and attaches the returned descriptor to it. It vanishes when the last copy of the
/// descriptor closes. The name is new: a device that exists is refused.
pub fn create(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let request = ifreq(name)?;
    // SAFETY: TUNSETIFF reads (and writes back into) a `struct ifreq`, which `request` is; the
    // setter passes a pointer to a copy of it that outlives the call.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, libc::ifreq>::new(request)) }?;
    debug_assert!(file.as_raw_fd() >= 0);
    Ok(file)
}

fn ifreq(name: &str) -> io::Result<libc::ifreq> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "interface name over 15 bytes",
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
