//! Devices. Each is a folder of its own, owns its state, describes itself to the guest, and knows
//! nothing of who uses the VM.
//!
//! Two threads' worlds meet here: a vCPU thread reaches a device through [`BusDevice`], and the one
//! event-loop thread through [`event_manager::MutEventSubscriber`] when a descriptor of the device is
//! ready. A device stands behind one `Arc<Mutex<…>>` that both take. Under that lock a device makes no call
//! that can block, so that a vCPU waits for a device's work and never for the outside world.

pub mod power;
pub mod pvpanic;
pub mod serial;
pub mod virtio;
pub mod vmgenid;

use serde_json::Value;

/// What every device does, whoever it is attached to. The defaults are those of a device without state that
/// ACPI does not describe.
///
/// Called by the VM's owner, never by a vCPU thread. The order is
/// `start (pause (save)? resume)*`, or `restore` in place of the first `start`, followed by `resume`.
pub trait Device: Send {
    /// A short unique name, such as `serial` or `net`: the key of its state in a snapshot.
    fn name(&self) -> &'static str;

    /// The vCPUs are about to run for the first time.
    fn start(&mut self) {}

    /// The vCPUs have stopped. After this the device touches guest memory no more and raises no
    /// interrupt until [`Device::resume`]; what it holds of the outside world it keeps.
    fn pause(&mut self) {}

    /// The vCPUs are about to run again. Work that came up while paused is done now.
    fn resume(&mut self) {}

    /// The state, while paused, as JSON. Host descriptors are not part of it.
    fn save(&self) -> Result<Value, StateError> {
        Ok(Value::Null)
    }

    /// Takes a state that [`Device::save`] gave, in place of [`Device::start`].
    fn restore(&mut self, state: &Value) -> Result<(), StateError> {
        expect_no_state(self.name(), state)
    }

    /// The device's node for the DSDT's `\_SB_`, as AML bytes; empty if the guest finds it otherwise.
    fn acpi_node(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A device that a vCPU reads and writes.
pub trait BusDevice: Device {
    /// A read of `data.len()` bytes at `offset` from the device's base. Fills all of `data`.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// A write at `offset` from the device's base.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// Takes the state of a device that keeps none: anything in it is another device's.
fn expect_no_state(device: &'static str, state: &Value) -> Result<(), StateError> {
    if state.is_null() {
        return Ok(());
    }
    let what = "it keeps no state, and the record has some".to_owned();
    Err(StateError::Invalid { device, what })
}

/// A device state that cannot be taken or given.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The record does not have the shape this version writes: it is from another version or damaged.
    /// Set the snapshot aside and build it anew.
    #[error("state of device {device} does not fit this version: {source}")]
    Format {
        /// The device's name.
        device: &'static str,
        /// What did not fit.
        source: serde_json::Error,
    },
    /// The record has the right shape and an impossible value.
    #[error("state of device {device} is impossible: {what}")]
    Invalid {
        /// The device's name.
        device: &'static str,
        /// Which value.
        what: String,
    },
}
