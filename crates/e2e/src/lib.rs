//! What end-to-end tests and benchmarks share: the real binaries, a backend of one's own, guests
//! booted by hand, a registry, and a look at what is left behind.
//!
//! Everything here panics with a message that says what to do: its callers are tests.
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
