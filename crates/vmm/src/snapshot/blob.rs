//! Bytes of a kernel structure, saved without trailing zeros.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes without their trailing zeros. Most of an XSAVE area and of a local APIC page is zero.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob(Vec<u8>);

impl Blob {
    /// Drops the trailing zeros of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let len = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        Self(bytes[..len].to_vec())
    }

    /// From little-endian words.
    pub fn from_words(words: impl Iterator<Item = u32>) -> Self {
        Self::new(&words.flat_map(u32::to_le_bytes).collect::<Vec<_>>())
    }

    /// The bytes without trailing zeros.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The words up to the last that is not zero.
    pub fn words(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.chunks(4).map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(word)
        })
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lose_only_their_trailing_zeros() {
        let blob = Blob::from_words([1, 0, 0x100, 0, 0].into_iter());
        assert_eq!(blob.bytes().len(), 10);
        assert_eq!(blob.words().collect::<Vec<_>>(), [1, 0, 0x100]);
    }
}
