//! Devices, one folder each. A device owns its state, describes itself to the guest (ACPI), and does not know
//! who uses the VM.
//!
//! Two threads use a device: a vCPU thread through [`BusDevice`], and the event-loop thread through
//! [`event_manager::MutEventSubscriber`] when a descriptor of the device is ready. Both lock the same
//! `Arc<Mutex<…>>`. A device makes no blocking call under that lock, so that a vCPU waits at most for the
//! device's work and never for another process.

pub mod power;
pub mod pvpanic;
pub mod serial;
mod state;
pub mod virtio;
pub mod vmgenid;

pub use state::StateError;

/// The lifecycle of a device. The defaults fit a device that has no state and no ACPI node.
///
/// Only the VM's owner calls these methods, never a vCPU thread. The order is `start (pause (save)? resume)*`;
/// a restored device gets `restore` instead of `start`, and then `resume`.
pub trait Device: Send {
    /// A short unique name, such as `serial` or `net`. A snapshot identifies the device's state by it.
    fn name(&self) -> &'static str;

    /// Called before the vCPUs first run.
    fn start(&mut self) {}

    /// Called after the vCPUs have stopped. Until [`Device::resume`] the device must neither access guest
    /// memory nor raise an interrupt. It keeps its host descriptors.
    fn pause(&mut self) {}

    /// Called before the vCPUs run again. The device catches up on events that arrived while it was paused.
    fn resume(&mut self) {}

    /// Returns the state of the paused device: postcard bytes of a struct, without host descriptors. Empty for
    /// a device without state.
    fn save(&self) -> Result<Vec<u8>, StateError> {
        Ok(Vec::new())
    }

    /// Restores a state from [`Device::save`].
    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        state::expect_none(self.name(), state)
    }

    /// The device's AML node for `\_SB_` in the DSDT; empty if the guest needs none to find the device.
    fn acpi_node(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A device at I/O ports or in an MMIO window.
pub trait BusDevice: Device {
    /// Reads `data.len()` bytes at `offset` bytes from the device's base. Must fill all of `data`.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data` at `offset` bytes from the device's base.
    fn write(&mut self, offset: u64, data: &[u8]);
}
