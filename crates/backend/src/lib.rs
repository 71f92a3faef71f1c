//! `clouded`: the HTTP API that runs each execution in a fresh micro-VM.
//!
//! A request is admitted and queued ([`scheduler`]), run in a fresh VM ([`cloude_engine`]), and stored
//! ([`store`]). [`jobs`] ties these together, and [`http`] is the interface to clients. See docs/backend.md.

pub mod allocator;
pub mod bounds;
pub mod callbacks;
pub mod config;
pub mod http;
pub mod jobs;
pub mod keys;
pub mod metrics;
pub mod privileges;
pub mod scheduler;
pub mod server;
pub mod store;
pub mod tenant;
