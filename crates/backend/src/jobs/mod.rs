//! Executions: admission, queue, run in a fresh VM, result.

mod about;
mod admission;
mod artifacts;
mod attempt;
mod batch;
mod cache;
mod compile;
mod dialect;
mod find;
mod follower;
mod input;
mod job;
mod list;
mod outcome;
mod pins;
mod program;
mod ready;
mod recovery;
mod refused;
mod run;
mod service;
mod submit;
mod transcript;

/// Private functions that the fuzz targets call (`fuzz/targets/execution_body.rs`).
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::jobs::admission::admit;
}

pub use about::About;
pub use admission::check_size;
pub use dialect::{Translated, merged_output};
pub use find::{Content, Found};
pub use follower::Follower;
pub use input::{Control, InputPort};
pub use job::{Client, Job, Stop};
pub use list::MAX_PAGE;
pub use outcome::{StatusView, status_of};
pub use pins::{Pin, Pins};
pub use refused::Refused;
pub use service::{BuildError, Health, Parts, Service, SubmitError};
pub use submit::{IdempotencyKey, Submitted};
pub use transcript::EventId;
