//! The root directory of a worker: an empty, read-only tmpfs. The old root is detached.

use std::ffi::CStr;
use std::io;
use std::ptr::null;

use super::error::check;

/// A directory of every Linux, on which the empty file system is mounted before it becomes the root.
const PLACE: &CStr = c"/proc";
const HERE: &CStr = c".";
const ROOT: &CStr = c"/";

/// The failed step and its error.
type Failed = (&'static str, io::Error);

/// Replaces the root of this mount namespace by an empty directory. Needs CAP_SYS_ADMIN in the user namespace that
/// owns the mount namespace, and CAP_SYS_CHROOT where the root is the kernel's first one.
pub(super) fn leave() -> Result<(), Failed> {
    let private = libc::MS_REC | libc::MS_PRIVATE;
    mount(None, ROOT, None, private, None).map_err(|error| ("making mounts private", error))?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY;
    let options = Some(c"size=4k,nr_inodes=1,mode=0555");
    mount(Some(c"none"), PLACE, Some(c"tmpfs"), flags, options)
        .map_err(|error| ("mounting a tmpfs", error))?;
    change_directory(PLACE)?;
    // SAFETY: both arguments are NUL-terminated strings.
    let pivoted =
        check(unsafe { libc::syscall(libc::SYS_pivot_root, HERE.as_ptr(), HERE.as_ptr()) });
    match pivoted {
        Ok(()) => {
            // The old root lies above the new one at the same place.
            // SAFETY: the argument is a NUL-terminated string.
            check(unsafe { libc::umount2(HERE.as_ptr(), libc::MNT_DETACH) })
                .map_err(|error| ("detaching the old root", error))?;
        }
        // The kernel's first root file system (rootfs) cannot be left by pivot_root(2).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            mount(Some(HERE), ROOT, None, libc::MS_MOVE, None)
                .map_err(|error| ("moving the empty root to /", error))?;
            // SAFETY: the argument is a NUL-terminated string.
            check(unsafe { libc::chroot(HERE.as_ptr()) }).map_err(|error| ("chroot", error))?;
        }
        Err(error) => return Err(("pivot_root", error)),
    }
    change_directory(ROOT)
}

fn change_directory(path: &CStr) -> Result<(), Failed> {
    // SAFETY: the argument is a NUL-terminated string.
    check(unsafe { libc::chdir(path.as_ptr()) }).map_err(|error| ("chdir", error))
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    // SAFETY: each pointer is null, where mount(2) allows it, or a NUL-terminated string.
    check(unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(options).cast(),
        )
    })
}
