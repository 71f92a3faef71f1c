//! A pseudo-terminal (pty(7)) for an interactive program.

use std::ffi::{c_int, c_ulong};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use cloude_protocol::agent::TerminalSize;
use nix::unistd::{Uid, fchown};

use crate::user::User;

/// TIOCSPTLCK and TIOCGPTPEER of include/uapi/asm-generic/ioctls.h.
const TIOCSPTLCK: c_ulong = 0x4004_5431;
const TIOCGPTPEER: c_ulong = 0x5441;

/// Opens a terminal of `size`: the agent's end, which does not block, and the program's, which belongs to `user`.
pub fn open(user: &User, size: TerminalSize) -> io::Result<(File, OwnedFd)> {
    let master = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open("/dev/ptmx")?;
    let unlocked: c_int = 0;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the kernel reads one integer for the first request, and takes flags for the second.
    let slave = unsafe {
        check(libc::ioctl(
            master.as_raw_fd(),
            TIOCSPTLCK,
            &raw const unlocked,
        ))?;
        check(libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags))?
    };
    // SAFETY: the kernel made this descriptor for us just now.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    // The group stays that of terminals, a mount option of devpts.
    fchown(&slave, Some(Uid::from_raw(user.uid)), None)?;
    resize(&master, size)?;
    Ok((master, slave))
}

/// Sets the size. The kernel sends SIGWINCH to the foreground process group.
pub fn resize(master: &File, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel reads one `winsize`.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// The end-of-file character, `VEOF` of termios(3): ^D unless the program has set another one.
pub fn end_of_file(master: &File) -> io::Result<u8> {
    let attributes = nix::sys::termios::tcgetattr(master)?;
    Ok(attributes.control_chars[libc::VEOF])
}

/// The foreground process group, as an id of the agent's PID namespace.
pub fn foreground(master: &File) -> Option<i32> {
    let mut group: c_int = 0;
    // SAFETY: the kernel writes one integer.
    let got = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPGRP, &raw mut group) };
    (got == 0 && group > 1).then_some(group)
}

fn check(result: c_int) -> io::Result<c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
