//! Turns an OCI image, or Debian packages, into the initramfs that a micro-VM boots with.
//!
//! The image never touches the host's file system. Each layer is read once ([`layer`]): its metadata
//! into memory, its files' contents into an unlinked temporary file. The layers are merged in memory
//! ([`tree`]), and the result is written as one sorted, reproducible cpio archive ([`archive`]).
#![deny(missing_docs)]

// The merge core and the writer.
pub mod archive;
pub mod boot_segment;
pub mod cpio;
pub mod layer;
pub mod limits;
pub mod tree;

mod error;
mod image;
mod platform;
mod progress;

// Sources of layers, and what is made of them.
pub mod cache;
pub mod debian;
pub mod pipeline;
pub mod registry;
pub mod source;
pub mod store;
