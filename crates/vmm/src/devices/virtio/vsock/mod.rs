//! The socket device (spec section 5.10), entirely in user space: stream sockets between a descriptor
//! of the host and a port of the guest.
//!
//! The host is the one that connects ([`VsockHandle::connect`]). The guest may try one connection: to
//! the ready port on CID 2. It is answered with a reset, reported once as [`VsockEvent::Ready`], and
//! releases the connects that wait. All else that the guest tries to connect to is reset.
//!
//! Both directions are bounded by credit. What the guest sends goes from its memory to the host's
//! stream in one call; what the stream does not take is kept, up to the [`BUFFER_SIZE`] that the guest was told.
//! What the host sends is read from the stream straight into the guest's buffers, and only as much as
//! the guest has said that it takes.
//!
//! A connection is part of the state: after a restore it has no stream until [`Vsock::attach`] gives
//! it one, and what the guest sends meanwhile is kept within the same bound.

mod connection;
mod device;
mod handle;
mod header;
mod host;
mod rx;
mod state;
#[cfg(test)]
mod tests;
mod tx;

pub use device::{AttachError, ConnectionInfo, Vsock, VsockConfig};
pub use handle::{VsockEvent, VsockHandle};
pub use state::{ConnectionState, VsockState};

/// The host's context id (spec section 5.10.4).
pub const HOST_CID: u64 = 2;

/// What the guest may have under way to one stream, in bytes: four of its largest packets.
pub const BUFFER_SIZE: u32 = 256 * 1024;

const RXQ: usize = 0;
const TXQ: usize = 1;
