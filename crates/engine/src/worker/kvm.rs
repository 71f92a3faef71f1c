//! The device /dev/kvm.

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::OnceLock;

use crate::error::Failure;

/// The device once it is open. It has no state of its own, so that all workers can have a duplicate of one descriptor.
static DEVICE: OnceLock<File> = OnceLock::new();

/// Opens /dev/kvm for this process, if it is not open. A process that gives up root's rights calls this before, on a host
/// where only root may open the device.
pub fn open_device() -> io::Result<()> {
    if DEVICE.get().is_none() {
        let device = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
        // Another thread may have been faster.
        let _ = DEVICE.set(device);
    }
    Ok(())
}

/// A descriptor of /dev/kvm for a worker.
pub(super) fn open_kvm() -> Result<File, Failure> {
    let duplicate = open_device().and_then(|()| match DEVICE.get() {
        Some(device) => device.try_clone(),
        None => Err(io::ErrorKind::NotFound.into()),
    });
    duplicate.map_err(|error| {
        Failure::infrastructure(format!(
            "opening /dev/kvm: {error}; `cloude doctor` names what this host lacks"
        ))
    })
}
