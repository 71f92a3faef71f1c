//! Turns an OCI image, or Debian packages, into the initramfs that a micro-VM boots with.
//!
//! No file of the image is created on the host. Each layer is read once ([`layer`]): metadata into memory, file
//! contents into an unlinked temporary file. The layers are merged in memory ([`tree`]) and written as one sorted,
//! reproducible newc archive ([`archive`]).
//!
//! [`pipeline::build`] does all of it: it resolves a [`source::Source`], reads its layers and stores the image with
//! its metadata in a [`store::Store`].
#![deny(missing_docs)]

// From layers to an archive.
pub mod archive;
pub mod boot_segment;
pub mod cpio;
pub mod layer;
pub mod limits;
pub mod tree;

mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod platform;
mod progress;

// Sources of layers, and the store of built images.
pub mod cache;
pub mod debian;
pub mod pipeline;
pub mod registry;
pub mod sbom;
pub mod source;
pub mod store;
