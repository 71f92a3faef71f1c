//! The events of an execution: relays its output.

mod lines;
mod relay;

pub use lines::follow;
