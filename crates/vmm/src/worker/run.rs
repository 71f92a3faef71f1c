//! The first request decides whether the worker boots a VM or waits as a blank one.

use std::fs::File;
use std::sync::Arc;

use super::error::WorkerError;
use super::{blank, boot};
use crate::control::{Channel, ChannelError, Event, ExitReason, Request};

/// Serves one VM over `channel` until it ends. An error was already sent to the host as [`Event::Failed`].
///
/// `pagemap` is the `/proc/self/pagemap` of this process, for [`Request::WorkingSet`].
///
/// The caller must exit the process afterwards, which frees the VM's memory.
pub fn run(channel: Channel, pagemap: Option<File>) -> Result<ExitReason, WorkerError> {
    let channel = Arc::new(channel);
    match serve_first_request(&channel, pagemap) {
        Ok(reason) => Ok(reason),
        Err(WorkerError::Channel(ChannelError::Closed)) => Ok(ExitReason::Stopped),
        Err(error) => {
            let message = error.to_string();
            // If the host is gone too, the process's exit code is all that is left.
            let _ = channel.send(&Event::Failed { message }, &[]);
            Err(error)
        }
    }
}

fn serve_first_request(
    channel: &Arc<Channel>,
    pagemap: Option<File>,
) -> Result<ExitReason, WorkerError> {
    match channel.recv::<Request>()? {
        (Request::Boot(spec), descriptors) => boot::serve(channel, &spec, descriptors, pagemap),
        (Request::Blank(spec), descriptors) => blank::serve(channel, &spec, descriptors, pagemap),
        (request, _) => Err(WorkerError::order(&request, "as the first message")),
    }
}
