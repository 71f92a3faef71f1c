//! `clouded`: the HTTP API that runs each execution in a fresh micro-VM.
//!
//! A request is admitted and queued ([`scheduler`]), run in a machine of its own ([`vm`], [`agent`],
//! [`network`]), and remembered ([`store`]); [`jobs`] ties these together and [`http`] speaks to
//! clients. See docs/backend.md.
#![deny(missing_docs)]

pub mod agent;
pub mod config;
pub mod http;
pub mod images;
pub mod jobs;
pub mod languages;
pub mod metrics;
pub mod network;
pub mod scheduler;
pub mod server;
mod stamp;
pub mod store;
pub mod vm;
