//! The client of the agent in a guest.

mod check;
mod client;
mod client_error;
mod exchange;
mod identity;
mod input;

pub use client::{Connection, WarmConnection, execute, warm};
pub use client_error::AgentError;
pub use exchange::{ExchangeError, exchange, wall_time};
pub use identity::{hostname, new_identity, new_token};
pub use input::{InputError, InputSender};
