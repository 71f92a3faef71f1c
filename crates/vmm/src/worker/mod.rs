//! `cloude-vmm worker`: a VM for whoever holds the other end of the control socket.

use std::sync::Arc;

use crate::control::{Channel, ChannelError, Event, ExitReason, MAX_CONSOLE_INPUT, Request};
use crate::devices::virtio::net::NetError;
use crate::snapshot::SnapshotError;
use crate::vm::VmError;

mod boot;
mod handed;
mod outbox;
mod serve;
mod shell;
mod vsock;

/// A worker that cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The VM cannot be made or run.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The VM cannot be saved or restored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The TAP that was handed over cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The host has no descriptors left for the vsock device.
    #[error("the vsock device cannot be made: {0}")]
    Vsock(std::io::Error),
    /// The VM's vsock connection does not go into a snapshot, or come out of one. Save when the guest
    /// has answered and before it is asked again.
    #[error("the vsock connection: {0}")]
    Connection(String),
    /// The control socket failed or spoke nonsense.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The first message has to be [`Request::Boot`] or [`Request::Shell`], and what follows has to fit:
    /// see [`Request`].
    #[error("a request to {request} is not possible {when}")]
    Order {
        /// What was asked.
        request: &'static str,
        /// In which state.
        when: &'static str,
    },
    /// Send fewer bytes in one message.
    #[error("{bytes} bytes of console input came in one message; at most {MAX_CONSOLE_INPUT} may")]
    ConsoleInput {
        /// How many came.
        bytes: usize,
    },
    /// The request names other descriptors than came with it.
    #[error("the request needs {need} descriptors and came with {have}")]
    Descriptors {
        /// What it names.
        need: usize,
        /// What came.
        have: usize,
    },
}

impl WorkerError {
    fn order(request: &Request, when: &'static str) -> Self {
        let request = match request {
            Request::Boot(_) => "boot",
            Request::Shell(_) => "make a shell",
            Request::Save { .. } => "save",
            Request::Restore { .. } => "restore",
            Request::Resume => "resume",
            Request::WorkingSet => "tell the working set",
            Request::Connect { .. } => "connect",
            Request::ConsoleInput { .. } => "type at the console",
        };
        Self::Order { request, when }
    }
}

/// Serves one VM over `channel` to its end. Gives an error only after it was reported there too.
///
/// The caller ends the process afterwards: the VM's memory goes with it.
pub fn run(channel: Channel) -> Result<ExitReason, WorkerError> {
    let channel = Arc::new(channel);
    match make_and_serve(&channel) {
        Ok(reason) => Ok(reason),
        Err(WorkerError::Channel(ChannelError::Closed)) => Ok(ExitReason::Stopped),
        Err(error) => {
            let message = error.to_string();
            // The other end may be gone; there is nobody else to tell.
            let _ = channel.send(&Event::Failed { message }, &[]);
            Err(error)
        }
    }
}

fn make_and_serve(channel: &Arc<Channel>) -> Result<ExitReason, WorkerError> {
    match channel.recv::<Request>()? {
        (Request::Boot(spec), descriptors) => boot::boot_and_serve(channel, &spec, descriptors),
        (Request::Shell(spec), descriptors) => shell::serve(channel, &spec, descriptors),
        (request, _) => Err(WorkerError::order(&request, "first")),
    }
}
