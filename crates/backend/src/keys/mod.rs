//! API keys. All are held in memory, so that a request is authenticated without the store.

mod caller;
mod key;
mod registry;
mod secret;

pub use caller::Caller;
pub use key::{Key, Rejected};
pub use registry::{KeyError, Keys};
