//! The entropy device (spec section 5.4): fills the driver's buffers with getrandom.

#[cfg(test)]
mod tests;

use std::io;

use super::{Chain, RingError, Rings, VirtioDevice, io as guest_io};

const NAME: &str = "rng";
/// Spec section 5.4.1.
const DEVICE_TYPE: u32 = 4;
const REQUESTQ: usize = 0;
/// Linux uses one buffer at a time.
const QUEUE_SIZES: &[u16] = &[64];
/// The most bytes per buffer. A driver requests more when it gets fewer than it asked for.
const BUFFER_LIMIT: usize = 4096;
/// The most bytes per call, so that other devices get their turn on the event loop.
const CALL_LIMIT: usize = 64 * 1024;

/// A virtio-rng device. It has no state.
#[derive(Debug, Default)]
pub struct Rng;

fn fill(rings: &Rings, chain: &Chain) -> Result<usize, RingError> {
    let mut bytes = [0; BUFFER_LIMIT];
    let wanted = chain.writable_len().min(BUFFER_LIMIT);
    // If getrandom fails the buffer is returned empty.
    let given = random(&mut bytes[..wanted]).unwrap_or(0);
    guest_io::copy_in(rings.memory(), &chain.writable, 0, &bytes[..given])
}

impl VirtioDevice for Rng {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn queue_ready(&mut self, rings: &mut Rings, _queue: usize) -> Result<(), RingError> {
        let mut given = 0;
        let mut chains = 0;
        rings.disable_notification(REQUESTQ)?;
        loop {
            // Empty buffers count too: each costs an iteration.
            if given >= CALL_LIMIT || chains >= CALL_LIMIT / BUFFER_LIMIT {
                rings.kick(REQUESTQ);
                break;
            }
            let Some(chain) = rings.pop(REQUESTQ)? else {
                if rings.enable_notification(REQUESTQ)? {
                    continue;
                }
                break;
            };
            let len = fill(rings, &chain)?;
            rings.push_used(REQUESTQ, chain.head, len)?;
            given += len;
            chains += 1;
        }
        rings.flush(REQUESTQ)
    }
}

/// Calls getrandom once. Above 256 bytes a signal may shorten the result.
fn random(bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live, exclusive slice.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}
