//! The socket device (spec section 5.10), entirely in user space: stream connections between a Unix socket of
//! the host and a port of the guest.
//!
//! The host connects ([`VsockHandle::connect`]). The guest cannot: the device answers each of its requests with
//! RST. A request to the ready port on CID 2 is also reported as [`VsockEvent::Ready`], once, and releases the
//! host's waiting connects.
//!
//! Both directions obey the spec's credit. Guest to host: the payload goes from guest memory to the host's stream
//! in one `sendmsg`; bytes that the stream refuses are buffered, at most the [`BUFFER_SIZE`] that the device
//! advertises as `buf_alloc`. Host to guest: the stream is read straight into the guest's buffers, at most as
//! many bytes as the guest's credit allows.
//!
//! Connections are part of the state. After a restore a connection has no stream until [`Vsock::attach`]; guest
//! data that arrives meanwhile is buffered within the same bound.

mod connection;
mod device;
#[cfg(fuzzing)]
mod fuzzing;
mod handle;
mod header;
mod host;
mod rx;
mod state;
#[cfg(test)]
mod tests;
mod tx;

use std::time::Duration;

pub use device::{AttachError, ConnectionInfo, Vsock, VsockConfig};
pub use handle::{VsockEvent, VsockHandle};

/// The host's context id (spec section 5.10.4).
pub const HOST_CID: u64 = 2;

/// `buf_alloc` of each connection in bytes: four packets of the largest size.
pub const BUFFER_SIZE: u32 = 256 * 1024;

/// The first host port, above the well-known ports.
const FIRST_PORT: u32 = 1 << 30;
/// How long the guest may take to answer a connect, or the end of a connection.
const TIMEOUT: Duration = Duration::from_secs(5);

const RXQ: usize = 0;
const TXQ: usize = 1;
