//! Vectored reads and writes between a host descriptor and guest memory, without a copy in between.

use std::borrow::Borrow;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions, VolatileSlice};

use super::{RingError, Segment};
use crate::memory::GuestMemory;

/// `IOV_MAX`: what one call takes.
const MAX_VECTORS: usize = 1024;

/// The host's view of `len` bytes of `segments`, `skip` bytes into them; shorter if they are.
pub fn slices<'m>(
    memory: &'m GuestMemory,
    segments: impl IntoIterator<Item = impl Borrow<Segment>>,
    skip: usize,
    len: usize,
    access: Permissions,
) -> Result<Vec<VolatileSlice<'m>>, RingError> {
    let mut views = Vec::new();
    let (mut skip, mut left) = (skip, len);
    for segment in segments {
        let segment = segment.borrow();
        let size = segment.len as usize;
        if skip >= size {
            skip -= size;
            continue;
        }
        let take = left.min(size - skip);
        if take == 0 || views.len() >= MAX_VECTORS {
            break;
        }
        // In range by construction of a segment, so the sum cannot overflow.
        let start = GuestAddress(segment.address.0 + skip as u64);
        for view in memory.get_slices(start, take, access)? {
            views.push(view?);
        }
        skip = 0;
        left -= take;
    }
    views.truncate(MAX_VECTORS);
    Ok(views)
}

/// Copies `data` into `segments`, `skip` bytes into them. What does not fit is left out.
pub fn copy_in(
    memory: &GuestMemory,
    segments: impl IntoIterator<Item = impl Borrow<Segment>>,
    skip: usize,
    data: &[u8],
) -> Result<usize, RingError> {
    let mut done = 0;
    for view in slices(memory, segments, skip, data.len(), Permissions::Write)? {
        view.copy_from(&data[done..done + view.len()]);
        done += view.len();
    }
    Ok(done)
}

/// Copies from `segments`, `skip` bytes into them. Returns how much there was, up to `data.len()`.
pub fn copy_out(
    memory: &GuestMemory,
    segments: impl IntoIterator<Item = impl Borrow<Segment>>,
    skip: usize,
    data: &mut [u8],
) -> Result<usize, RingError> {
    let mut done = 0;
    for view in slices(memory, segments, skip, data.len(), Permissions::Read)? {
        done += view.read(&mut data[done..], 0).unwrap_or(0);
    }
    Ok(done)
}

fn vectors(views: &[VolatileSlice]) -> Vec<libc::iovec> {
    views
        .iter()
        .map(|view| libc::iovec {
            // Plain mmap: the guard holds no mapping of its own, so the address outlives it.
            iov_base: view.ptr_guard_mut().as_ptr().cast(),
            iov_len: view.len(),
        })
        .collect()
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(done) => return Ok(done),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// `readv` into guest memory: one frame of a TAP.
pub fn readv(fd: BorrowedFd, views: &[VolatileSlice]) -> io::Result<usize> {
    let iov = vectors(views);
    // SAFETY: each vector is a VolatileSlice of mapped guest memory, alive through `views`, and the
    // count is bounded by MAX_VECTORS. That the guest may see the bytes change is volatile memory's nature.
    retry(|| unsafe { libc::readv(fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32) })
}

/// `writev` of `head`, which is ours, then guest memory: one frame to a TAP.
pub fn writev(fd: BorrowedFd, head: &[u8], views: &[VolatileSlice]) -> io::Result<usize> {
    let mut iov = Vec::with_capacity(views.len() + 1);
    iov.push(libc::iovec {
        iov_base: head.as_ptr().cast_mut().cast(),
        iov_len: head.len(),
    });
    iov.extend(vectors(views));
    iov.truncate(MAX_VECTORS);
    // SAFETY: `head` and each VolatileSlice of mapped guest memory live through the call, which only
    // reads them.
    retry(|| unsafe { libc::writev(fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32) })
}

fn message(iov: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: msghdr is plain data for which all zeros means "nothing there".
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iov.as_mut_ptr();
    message.msg_iovlen = iov.len();
    message
}

/// Receives from a stream socket into guest memory without waiting.
pub fn receive(fd: BorrowedFd, views: &[VolatileSlice]) -> io::Result<usize> {
    let mut iov = vectors(views);
    let mut message = message(&mut iov);
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the message points to `iov`, whose vectors are mapped guest memory alive through `views`.
    retry(|| unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) })
}

/// Sends guest memory on a stream socket without waiting, and without SIGPIPE.
pub fn send(fd: BorrowedFd, views: &[VolatileSlice]) -> io::Result<usize> {
    let mut iov = vectors(views);
    let message = message(&mut iov);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as in `receive`; the call only reads the vectors.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) })
}

/// Sends bytes of our own on a stream socket without waiting, and without SIGPIPE.
pub fn send_bytes(fd: BorrowedFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` lives through the call, which only reads it.
    retry(|| unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}
