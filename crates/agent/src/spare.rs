//! Reads into the uninitialized capacity of a vector.

use std::mem::MaybeUninit;

/// Appends at most `max` bytes to `buffer` with `read`, which wraps read(2) or recv(2). Returns their number.
///
/// The capacity is not zeroed before: in a fork, each page that is written is a copy-on-write fault.
pub fn read_spare(
    buffer: &mut Vec<u8>,
    max: usize,
    read: impl FnOnce(&mut [MaybeUninit<u8>]) -> isize,
) -> std::io::Result<usize> {
    buffer.reserve(max);
    let spare = buffer.spare_capacity_mut();
    let wanted = spare.len().min(max);
    let room = &mut spare[..wanted];
    let length = usize::try_from(read(room)).map_err(|_| std::io::Error::last_os_error())?;
    assert!(
        length <= wanted,
        "read returned more bytes than the buffer has"
    );
    // SAFETY: the system call has initialized `length` bytes.
    unsafe { buffer.set_len(buffer.len() + length) };
    Ok(length)
}
