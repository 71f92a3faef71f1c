//! The types that cross a boundary in Cloude, and default paths for all programs. No logic beyond encoding and paths.
//!
//! - [`agent`][]: requests of the backend to the agent in a VM, and the events of its response.
//! - [`api`][]: the backend's HTTP API.
//! - [`boot`][]: the files of an initramfs for the agent.
//! - [`keys`][]: API keys.
//! - [`language`][]: a language's description; [`languages`][] reads `languages/NAME/language.toml`.
//! - [`network`][]: the dropped traffic in a result.
//! - [`data`][]: bytes that are usually text.
//! - [`paths`][]: default directories and files.
//! - [`secret`][]: a text that no log shows.
#![deny(missing_docs)]

pub mod agent;
pub mod api;
pub mod boot;
pub mod data;
pub mod keys;
pub mod language;
pub mod languages;
pub mod network;
pub mod paths;
pub mod secret;

pub use data::Data;
pub use secret::Secret;
