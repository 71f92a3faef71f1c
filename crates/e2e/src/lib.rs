//! Shared code of the end-to-end tests and benchmarks: paths of the real binaries, a `clouded` for each test,
//! guests booted without it, an OCI registry, and checks for leftovers.
//!
//! Functions panic on every error, with a message that names the way out: the callers are tests.
#![deny(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a library of tests")]

pub mod backend;
pub mod binaries;
pub mod cloude;
pub mod corpus;
pub mod curl;
pub mod guest;
pub mod host;
pub mod oci;
pub mod registry;
