//! Where events go: to the client, as they happen.

use std::os::fd::BorrowedFd;

use cloude_protocol::agent::Event;

/// Takes events. Never blocks: a stage asks [`Sink::has_room`] before it reads more output, so that
/// a slow client slows the program down instead of filling the agent's memory.
pub trait Sink {
    /// Take one event, whatever [`Sink::has_room`] says. Gives back the buffer of an
    /// [`Event::Output`], for the next.
    fn event(&mut self, event: Event) -> Option<Vec<u8>>;

    /// Whether more output may be read from the program.
    fn has_room(&self) -> bool;

    /// Whether something waits for the client to take it.
    fn wants_write(&self) -> bool;

    /// Send what the client takes now.
    fn flush_some(&mut self);

    /// The client went away, or takes nothing any more: whatever runs for it is to end.
    fn is_gone(&self) -> bool;

    /// The client's connection was seen to be closed by the client.
    fn set_gone(&mut self);

    /// The client's connection, to be waited for.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}
