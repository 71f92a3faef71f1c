//! Finds out whether this host can give a worker its walls.

use std::path::Path;

use rustix::net::Shutdown;

use super::spawn::{SpawnOptions, spawn};
use super::{Event, channel::ChannelError};

/// Starts a worker with these options and ends it before its first request. The error says which step failed.
pub fn probe(binary: &Path, options: &SpawnOptions) -> Result<(), String> {
    let (mut process, channel) = spawn(binary, options).map_err(|error| error.to_string())?;
    // The worker reads the end of the socket once it is jailed, and can still send an error.
    let shut = rustix::net::shutdown(&channel, Shutdown::Write);
    let answer = match shut {
        Ok(()) => channel.recv::<Event>(),
        Err(error) => Err(std::io::Error::from(error).into()),
    };
    if shut.is_err() {
        let _ = process.kill();
    }
    let code = process.wait().map_err(|error| error.to_string())?;
    match (answer, code) {
        (Err(ChannelError::Closed), Some(0)) => Ok(()),
        (Ok((Event::Failed { message }, _)), _) => Err(message),
        (Ok((Event::Exited(report), _)), _) => Err(report.reason.to_string()),
        (_, Some(code)) => Err(format!("the worker ended with exit code {code}")),
        (_, None) => Err("a signal ended the worker".to_owned()),
    }
}
