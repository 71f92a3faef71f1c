//! Bytes of a kernel structure in a record, without the zeros at their end.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes whose trailing zeros cost nothing: most of an XSAVE area and of a local APIC is zero.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blob(Vec<u8>);

impl Blob {
    /// Of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let len = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        Self(bytes[..len].to_vec())
    }

    /// Of these words, least significant byte first.
    pub fn from_words(words: impl Iterator<Item = u32>) -> Self {
        Self::new(&words.flat_map(u32::to_le_bytes).collect::<Vec<_>>())
    }

    /// The bytes, less their trailing zeros.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Words, as many as are not zero to the end.
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
    fn words_come_back_without_the_zeros_at_their_end() {
        let blob = Blob::from_words([1, 0, 0x100, 0, 0].into_iter());
        assert_eq!(blob.bytes().len(), 10);
        assert_eq!(blob.words().collect::<Vec<_>>(), [1, 0, 0x100]);
    }
}
