//! Files: whether one was replaced, its digest, its allocated bytes, and a second open file description.

mod allocated;
mod digest;
mod identity;
mod reopen;

pub use allocated::allocated_bytes;
pub use digest::{Digests, digest_of};
pub use identity::FileIdentity;
pub use reopen::reopen;
