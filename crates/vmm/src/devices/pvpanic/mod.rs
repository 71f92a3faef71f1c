//! pvpanic: a guest's kernel reports its panic here (QEMU, docs/specs/pvpanic.rst).

use acpi_tables::{Aml, aml};

use crate::arch::layout;
use crate::control::ExitReason;
use crate::devices::{BusDevice, Device};
use crate::exit::ExitSignal;

/// `PVPANIC_PANICKED`: the kernel panicked.
const PANICKED: u8 = 1;
/// `PVPANIC_CRASH_LOADED`: the kernel panicked and a crash kernel takes over. We end the VM all the same.
const CRASH_LOADED: u8 = 1 << 1;

/// Ends the VM when the guest's kernel panics. Has no state.
pub struct PvPanic(ExitSignal);

impl PvPanic {
    /// Number of ports.
    pub const SIZE: u64 = 1;

    /// A device that raises `exit` with [`ExitReason::Panic`].
    pub fn new(exit: ExitSignal) -> Self {
        Self(exit)
    }
}

impl Device for PvPanic {
    fn name(&self) -> &'static str {
        "pvpanic"
    }

    fn acpi_node(&self) -> Vec<u8> {
        let port = layout::PVPANIC_PORT;
        let mut node = Vec::new();
        aml::Device::new(
            "PEVT".into(),
            vec![
                &aml::Name::new("_HID".into(), &"QEMU0001"),
                // Present and working, not shown to the user.
                &aml::Name::new("_STA".into(), &0xfu8),
                &aml::Name::new(
                    "_CRS".into(),
                    &aml::ResourceTemplate::new(vec![&aml::IO::new(port, port, 1, 1)]),
                ),
            ],
        )
        .to_aml_bytes(&mut node);
        node
    }
}

impl BusDevice for PvPanic {
    /// The events that the device supports.
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(PANICKED | CRASH_LOADED);
    }

    fn write(&mut self, _: u64, data: &[u8]) {
        let events = data.first().copied().unwrap_or(0);
        if events & (PANICKED | CRASH_LOADED) != 0 {
            self.0.raise(ExitReason::Panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_vm() {
        let exit = ExitSignal::new().unwrap();
        let mut device = PvPanic::new(exit.clone());
        device.write(0, &[0]);
        assert_eq!(exit.reason(), None);
        device.write(0, &[PANICKED]);
        assert_eq!(exit.reason(), Some(ExitReason::Panic));
    }

    #[test]
    fn the_node_names_the_device() {
        let node = PvPanic::new(ExitSignal::new().unwrap()).acpi_node();
        assert!(node.windows(8).any(|window| window == b"QEMU0001"));
    }
}
