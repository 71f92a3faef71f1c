//! Errors that end a worker.

use std::io;

use crate::control::{ChannelError, MAX_CONSOLE_INPUT, Request};
use crate::devices::virtio::net::NetError;
use crate::snapshot::SnapshotError;
use crate::vm::VmError;

/// A request that a worker cannot carry out.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The VM cannot be created or run.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The VM cannot be saved or restored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The TAP of the request cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// epoll_create, eventfd or timerfd_create failed: see RLIMIT_NOFILE.
    #[error("cannot create the vsock device: {0}")]
    Vsock(io::Error),
    /// The vsock connections cannot be saved, or a restored one got no stream. Save after the guest has answered
    /// and before the next request to it.
    #[error("vsock: {0}")]
    Connection(String),
    /// The control socket failed, or a message did not parse.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The first message must be [`Request::Boot`] or [`Request::Blank`]; see [`Request`] for the order of the others.
    #[error("request {request} is not allowed {when}")]
    Order {
        /// The request's name on the wire.
        request: &'static str,
        /// The state of the worker.
        when: &'static str,
    },
    /// Send the input in several messages.
    #[error("{bytes} bytes of console input in one message; the limit is {MAX_CONSOLE_INPUT}")]
    ConsoleInput {
        /// The size of the message in bytes.
        bytes: usize,
    },
    /// Mount /proc where clouded runs.
    #[error("the worker has no /proc/self/pagemap: /proc is not mounted on the host")]
    NoPagemap,
    /// A system call filter or a resource limit could not be set for the VM.
    #[error("the jail of the worker: {0}")]
    Jail(#[source] io::Error),
    /// The number of descriptors does not fit the request.
    #[error("the request needs {need} descriptors and came with {have}")]
    Descriptors {
        /// The number that the request names.
        need: usize,
        /// The number that arrived.
        have: usize,
    },
}

impl WorkerError {
    pub(super) fn order(request: &Request, when: &'static str) -> Self {
        let request = match request {
            Request::Boot(_) => "boot",
            Request::Blank(_) => "blank",
            Request::Save { .. } => "save",
            Request::Restore { .. } => "restore",
            Request::Resume => "resume",
            Request::WorkingSet => "working_set",
            Request::Denied => "denied",
            Request::Connect { .. } => "connect",
            Request::ConsoleInput { .. } => "console_input",
        };
        Self::Order { request, when }
    }
}
