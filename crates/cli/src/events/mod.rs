//! The events of an execution: relays its output, from a stream of JSON lines or of server-sent events.

mod lines;
mod relay;
mod resume;
mod split;
mod sse;

pub use lines::follow;
pub use relay::{is_known, relay};
pub use resume::follow_by_id;
