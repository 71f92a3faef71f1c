//! The record: a header with a version and a checksum, then the key and the state.
//!
//! ```text
//! 0   8   magic "CLOUDEVM"
//! 8   4   format version, little endian
//! 12  8   length of the body in bytes, little endian
//! 20  32  SHA-256 of the first 20 bytes and the body
//! 52  …   the body: postcard of the key, the memory's digest and the state
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Key, MachineState};

/// The version of the format. To be counted up with every change of what is saved.
pub const FORMAT_VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"CLOUDEVM";
const PREFIX: usize = 20;
const HEADER: usize = PREFIX + 32;

/// A record that cannot be used. In every case: set it aside and build the snapshot anew.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// It is something else, or its first bytes are damaged.
    #[error("this is not a snapshot's record")]
    NotARecord,
    /// It ends too early: its writer was interrupted, or the disk was full.
    #[error("the record ends after {have} of {need} bytes")]
    Truncated {
        /// Its length in bytes.
        have: u64,
        /// What it should have.
        need: u64,
    },
    /// There is something behind its end.
    #[error("the record has {have} bytes and should have {need}")]
    TooLong {
        /// Its length in bytes.
        have: u64,
        /// What it should have.
        need: u64,
    },
    /// Its checksum does not match: bits of it have changed.
    #[error("the record is damaged: its checksum does not match")]
    Damaged,
    /// Another version wrote it.
    #[error("the record has format {found}, and this version reads {FORMAT_VERSION}")]
    OtherVersion {
        /// Its version.
        found: u32,
    },
    /// The checksum matches and the content does not parse: another build of the same version wrote it.
    #[error("the record does not parse: {0}")]
    Format(#[from] postcard::Error),
}

/// What a record holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What it fits to.
    pub key: Key,
    /// SHA-256 of the memory's pages ([`super::memory_digest`]).
    pub memory_digest: [u8; 32],
    /// The state.
    pub state: MachineState,
}

impl Record {
    /// The bytes of the record. Fails only for want of memory.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
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

    /// The record that `bytes` are. Whatever they are, it is a record or an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let have = bytes.len() as u64;
        let magic = &bytes[..bytes.len().min(MAGIC.len())];
        if magic != &MAGIC[..magic.len()] {
            return Err(RecordError::NotARecord);
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER) else {
            return Err(RecordError::Truncated {
                have,
                need: HEADER as u64,
            });
        };
        let (prefix, sum) = header.split_at(PREFIX);
        let found = u32::from_le_bytes(array(&prefix[8..12]));
        if found != FORMAT_VERSION {
            return Err(RecordError::OtherVersion { found });
        }
        let need = u64::from_le_bytes(array(&prefix[12..])).saturating_add(HEADER as u64);
        if have < need {
            return Err(RecordError::Truncated { have, need });
        }
        if have > need {
            return Err(RecordError::TooLong { have, need });
        }
        if checksum(prefix, body) != sum {
            return Err(RecordError::Damaged);
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
