//! Reading into the room that a vector has and that nobody has cleared.

use std::mem::MaybeUninit;

/// Has `read`, a system call of that kind, put at most `max` bytes behind what `buffer` holds. Gives how many.
///
/// The room is not cleared before: in a fork each of its pages would be one more to copy, for nothing.
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
        "a system call gave more than it had room for"
    );
    // SAFETY: so many bytes were just written there.
    unsafe { buffer.set_len(buffer.len() + length) };
    Ok(length)
}
