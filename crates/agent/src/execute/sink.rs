//! The consumer of a stage's events.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use cloude_protocol::agent::Event;

/// A client that reads no byte of pending events for this long counts as gone.
pub const CLIENT_STALL: Duration = Duration::from_secs(30);

/// Consumes events and never blocks. A stage reads more output only while [`Sink::has_room`] is true, so that a
/// slow client slows the program down instead of filling the agent's memory.
pub trait Sink {
    /// Takes one event, even without room. Returns the buffer of its data for reuse.
    fn event(&mut self, event: Event) -> Option<Vec<u8>>;

    /// True if more output may be read from the program.
    fn has_room(&self) -> bool;

    /// True if bytes are pending for the client.
    fn wants_write(&self) -> bool;

    /// Sends pending bytes as far as that does not block.
    fn flush_some(&mut self);

    /// True if the client disconnected or stopped reading: the stage is then killed.
    fn is_gone(&self) -> bool;

    /// Marks the client as disconnected.
    fn set_gone(&mut self);

    /// The client's connection, for `poll`.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}
