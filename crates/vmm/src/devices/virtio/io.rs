//! Vectored I/O between host descriptors and guest memory without an intermediate copy.

use std::borrow::Borrow;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions, VolatileSlice};

use super::{RingError, Segment};
use crate::memory::GuestMemory;

/// IOV_MAX: the most vectors per call.
const MAX_VECTORS: usize = 1024;

/// Host slices of `len` bytes of `segments` from offset `skip`; fewer if the segments are shorter.
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
        // A segment lies in guest memory, so the sum cannot overflow.
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

/// Copies `data` into `segments` at offset `skip`, as far as it fits.
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

/// Copies from `segments` at offset `skip`. Returns the number of bytes, at most `data.len()`.
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
            // The guard of a plain mmap holds no mapping, so the address outlives the guard.
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

/// `readv` into guest memory: reads one frame from a TAP.
pub fn readv(fd: BorrowedFd, views: &[VolatileSlice]) -> io::Result<usize> {
    let iov = vectors(views);
    // SAFETY: each vector is a VolatileSlice of mapped guest memory that `views` keeps alive, and MAX_VECTORS bounds
    // their number. Guest memory is volatile, so that concurrent access by the guest is allowed.
    retry(|| unsafe { libc::readv(fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32) })
}

/// `writev` of `head`, which is host memory, and then guest memory: writes one frame to a TAP.
pub fn writev(fd: BorrowedFd, head: &[u8], views: &[VolatileSlice]) -> io::Result<usize> {
    let mut iov = Vec::with_capacity(views.len() + 1);
    iov.push(libc::iovec {
        iov_base: head.as_ptr().cast_mut().cast(),
        iov_len: head.len(),
    });
    iov.extend(vectors(views));
    iov.truncate(MAX_VECTORS);
    // SAFETY: `head` and each VolatileSlice of mapped guest memory outlive the call, which only reads them.
    retry(|| unsafe { libc::writev(fd.as_raw_fd(), iov.as_ptr(), iov.len() as i32) })
}

fn message(iov: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: msghdr is plain data, and all bytes zero are a valid empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = iov.as_mut_ptr();
    message.msg_iovlen = iov.len();
    message
}

/// Receives from a stream socket into guest memory without blocking.
pub fn receive(fd: BorrowedFd, views: &[VolatileSlice]) -> io::Result<usize> {
    let mut iov = vectors(views);
    let mut message = message(&mut iov);
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the message points to `iov`, whose vectors are mapped guest memory that `views` keeps alive.
    retry(|| unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) })
}

/// Sends guest memory on a stream socket without blocking and without SIGPIPE.
pub fn send(fd: BorrowedFd, views: &[VolatileSlice]) -> io::Result<usize> {
    let mut iov = vectors(views);
    let message = message(&mut iov);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as in `receive`; the call only reads the vectors.
    retry(|| unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) })
}

/// Sends host memory on a stream socket without blocking and without SIGPIPE.
pub fn send_bytes(fd: BorrowedFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` outlives the call, which only reads it.
    retry(|| unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}
