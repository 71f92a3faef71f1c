//! Templates: their keys, their builds, and the disk store.

mod builder;
mod disk_store;
mod folder;
mod key;
mod keys;
mod warm;

pub use builder::{TemplateBuilder, TemplateSource};
pub use disk_store::DiskStore;
pub use key::TemplateKey;
pub use keys::TemplateKeys;
