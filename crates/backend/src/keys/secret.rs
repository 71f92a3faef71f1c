//! The text of a key: `cloude_ID_SECRET`. ID is public: 12 hexadecimal digits. SECRET is 256 random bits in 64 digits, of
//! which the server keeps the SHA-256 hash. A slow hash is for passwords that people choose; nobody can guess 256 bits.

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "cloude_";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// The SHA-256 hash of a key's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    fn of(secret: &[u8]) -> Self {
        Hash(Sha256::digest(secret).into())
    }

    /// Compares in constant time, so that the time tells nothing about the hash.
    pub fn matches(&self, secret: &Secret) -> bool {
        self.0.ct_eq(&Hash::of(&secret.0).0).into()
    }
}

/// The secret that a client presents.
pub struct Secret([u8; SECRET_BYTES]);

/// A new key: its text, its id and the hash of its secret.
pub struct Generated {
    pub text: String,
    pub id: String,
    pub hash: Hash,
}

/// Creates a key from the kernel's random numbers.
pub fn generate() -> std::io::Result<Generated> {
    let mut bytes = [0; ID_BYTES + SECRET_BYTES];
    // Up to 256 bytes getrandom(2) is not interrupted and returns all.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    let (id, secret) = bytes.split_at(ID_BYTES);
    let id = const_hex::encode(id);
    Ok(Generated {
        text: format!("{PREFIX}{id}_{}", const_hex::encode(secret)),
        hash: Hash::of(secret),
        id,
    })
}

/// Splits a key into its id and its secret; `None` if it does not have the form of a key.
pub fn parse(text: &str) -> Option<(&str, Secret)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let mut bytes = [0; SECRET_BYTES];
    const_hex::decode_to_slice(secret, &mut bytes).ok()?;
    (id.len() == 2 * ID_BYTES && secret.len() == 2 * SECRET_BYTES).then_some((id, Secret(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_matches_its_hash_alone() {
        let (key, other) = (generate().unwrap(), generate().unwrap());

        let (id, secret) = parse(&key.text).unwrap();

        assert_eq!(id, key.id);
        assert!(key.hash.matches(&secret));
        assert!(!other.hash.matches(&secret));
        assert!(!key.text.contains(&const_hex::encode(key.hash.0)));
    }

    #[test]
    fn a_text_of_another_form_is_no_key() {
        let key = generate().unwrap().text;
        for text in [
            "",
            "cloude_",
            "cloude_a_b",
            &key[1..],
            &key[..key.len() - 1],
            &format!("{key}0"),
            &format!("{key} "),
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
