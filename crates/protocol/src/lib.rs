//! The types that cross a boundary in Cloude: host and agent, client and backend,
//! image and guest, language file and whoever reads it; and where things lie, for all programs alike. No logic
//! beyond that and encoding.
//!
//! - [`agent`][]: what the backend asks of the agent in a VM, and the events it streams back.
//! - [`api`][]: the backend's HTTP API.
//! - [`boot`][]: the files that the boot segment of an initramfs carries for the agent.
//! - [`language`][]: a language's description; [`languages`][] reads `languages/NAME/language.toml`.
//! - [`data`][]: bytes that are usually text.
//! - [`paths`][]: default folders and files.
#![deny(missing_docs)]

pub mod agent;
pub mod api;
pub mod boot;
pub mod data;
pub mod language;
pub mod languages;
pub mod paths;

pub use data::Data;
