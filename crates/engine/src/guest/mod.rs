//! The client of the agent in a guest.

mod client;
mod exchange;
mod identity;

pub use client::{AgentError, Connection, WarmConnection, execute, warm};
pub use exchange::{ExchangeError, exchange, wall_time};
pub use identity::{hostname, new_identity, new_token};
