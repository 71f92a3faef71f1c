//! Open files: whether one was replaced, its digest, and a second descriptor with a position of its own.

mod digest;
mod identity;
mod reopen;

pub use digest::{Digests, digest_of};
pub use identity::FileIdentity;
pub use reopen::reopen;
