//! Fills the driver's buffers from the host kernel's generator.

use std::io;

use serde::Deserialize;
use serde_json::Value;

use super::{RngMetrics, RngState};
use crate::devices::StateError;
use crate::devices::virtio::{
    ActivateError, Chain, RingError, Rings, VirtioDevice, io as guest_io,
};

const NAME: &str = "rng";
/// Spec section 5.4.1.
const DEVICE_TYPE: u32 = 4;
const REQUESTQ: usize = 0;
/// Linux asks for one buffer at a time.
const QUEUE_SIZES: &[u16] = &[64];
/// Bytes given for one buffer. A driver takes less than it asked for and asks again.
const BUFFER_LIMIT: usize = 4096;
/// Bytes given in one turn of the event loop, so that no guest keeps it busy.
const TURN_LIMIT: usize = 64 * 1024;

/// A virtio-rng device.
#[derive(Debug, Default)]
pub struct Rng {
    metrics: RngMetrics,
}

impl Rng {
    /// An entropy device.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> RngMetrics {
        self.metrics
    }

    fn fill(&mut self, rings: &Rings, chain: &Chain) -> Result<usize, RingError> {
        let mut bytes = [0; BUFFER_LIMIT];
        let wanted = chain.writable_len().min(BUFFER_LIMIT);
        let Ok(given) = random(&mut bytes[..wanted]) else {
            self.metrics.failures += 1;
            return Ok(0);
        };
        let given = guest_io::copy_in(rings.memory(), &chain.writable, 0, &bytes[..given])?;
        self.metrics.buffers += 1;
        self.metrics.bytes += given as u64;
        Ok(given)
    }
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

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _features: u64) -> Result<(), ActivateError> {
        Ok(())
    }

    fn queue_ready(&mut self, rings: &mut Rings, _queue: usize) -> Result<(), RingError> {
        let mut given = 0;
        let mut chains = 0;
        rings.disable_notification(REQUESTQ)?;
        loop {
            // Empty buffers count as well: they cost a turn of this loop.
            if given >= TURN_LIMIT || chains >= TURN_LIMIT / BUFFER_LIMIT {
                self.metrics.turns_cut += 1;
                rings.kick(REQUESTQ);
                break;
            }
            let Some(chain) = rings.pop(REQUESTQ)? else {
                if rings.enable_notification(REQUESTQ)? {
                    continue;
                }
                break;
            };
            let len = self.fill(rings, &chain)?;
            rings.push_used(REQUESTQ, chain.head, len)?;
            given += len;
            chains += 1;
        }
        rings.flush(REQUESTQ)
    }

    fn reset(&mut self) {}

    fn save(&self) -> Result<Value, StateError> {
        serde_json::to_value(RngState {}).map_err(|source| StateError::Format {
            device: NAME,
            source,
        })
    }

    fn restore(&mut self, state: &Value) -> Result<(), StateError> {
        RngState::deserialize(state)
            .map(drop)
            .map_err(|source| StateError::Format {
                device: NAME,
                source,
            })
    }
}

/// `getrandom` once: up to 256 bytes it never returns less than asked, beyond that a signal may cut it.
fn random(bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live, exclusive slice.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}
