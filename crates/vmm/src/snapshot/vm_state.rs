//! The VM state file: a header with version and SHA-256, then key and state.
//!
//! ```text
//! 0   8   magic "CLOUDEVM"
//! 8   4   format version, little endian
//! 12  8   length of the body in bytes, little endian
//! 20  32  SHA-256 of the first 20 bytes and the body
//! 52  …   the body: postcard of key, memory digest and state
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::VmStateError;
use super::key::Key;
use super::machine_state::MachineState;

/// The one version of everything in a VM state file. Increase it with every change of a saved struct, a device's
/// state included, and with every change of the meaning of a field.
pub const FORMAT_VERSION: u32 = 3;

const MAGIC: &[u8; 8] = b"CLOUDEVM";
const PREFIX: usize = 20;
const HEADER: usize = PREFIX + 32;

/// The state of a VM without its memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmState {
    /// The key that must equal the key of the VM that restores it.
    pub key: Key,
    /// SHA-256 of the memory file ([`super::memory_digest`]).
    pub memory_digest: [u8; 32],
    /// vCPUs, interrupt controllers and devices.
    pub state: MachineState,
}

impl VmState {
    /// Encodes the file. Fails only if memory runs out.
    pub fn encode(&self) -> Result<Vec<u8>, VmStateError> {
        let body = postcard::to_stdvec(self)?;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let checksum = checksum(&bytes, &body);
        bytes.extend_from_slice(&checksum);
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Decodes a file. Any bytes give a state or an error, never a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, VmStateError> {
        let have = bytes.len() as u64;
        let magic = &bytes[..bytes.len().min(MAGIC.len())];
        if magic != &MAGIC[..magic.len()] {
            return Err(VmStateError::NotAStateFile);
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER) else {
            return Err(VmStateError::Truncated {
                have,
                need: HEADER as u64,
            });
        };
        let (prefix, sum) = header.split_at(PREFIX);
        let found = u32::from_le_bytes(array(&prefix[8..12]));
        if found != FORMAT_VERSION {
            return Err(VmStateError::OtherVersion {
                found,
                supported: FORMAT_VERSION,
            });
        }
        let need = u64::from_le_bytes(array(&prefix[12..])).saturating_add(HEADER as u64);
        if have < need {
            return Err(VmStateError::Truncated { have, need });
        }
        if have > need {
            return Err(VmStateError::TooLong { have, need });
        }
        if checksum(prefix, body) != sum {
            return Err(VmStateError::Damaged);
        }
        Ok(postcard::from_bytes(body)?)
    }
}

fn checksum(prefix: &[u8], body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(prefix);
    digest.update(body);
    digest.finalize().into()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
