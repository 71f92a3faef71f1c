//! [`Bus`]: dispatches vCPU accesses to devices by address. One bus is for I/O ports, one for MMIO.

use std::sync::{Arc, Mutex};

use crate::devices::BusDevice;
use crate::sync::lock;

/// A device that the buses, the event loop and the VM share.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// Two devices have overlapping address ranges.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("device {device} at {base:#x} overlaps another device")]
pub struct Overlap {
    /// The device that was inserted second.
    pub device: &'static str,
    /// Its first address.
    pub base: u64,
}

/// Devices by address: a sorted list, since a VM has only a few.
#[derive(Clone, Default)]
pub struct Bus {
    slots: Vec<Slot>,
}

#[derive(Clone)]
struct Slot {
    base: u64,
    len: u64,
    device: SharedDevice,
}

impl Bus {
    /// Inserts `device` at the addresses `base .. base + len`.
    pub fn insert(&mut self, base: u64, len: u64, device: SharedDevice) -> Result<(), Overlap> {
        let at = self.slots.partition_point(|slot| slot.base < base);
        let before = at.checked_sub(1).map(|i| &self.slots[i]);
        let free = before.is_none_or(|slot| slot.base + slot.len <= base)
            && self
                .slots
                .get(at)
                .is_none_or(|slot| base + len <= slot.base);
        if !free {
            let device = lock(&device).name();
            return Err(Overlap { device, base });
        }
        self.slots.insert(at, Slot { base, len, device });
        Ok(())
    }

    /// Serves a read by a vCPU. Without a device all bits are one, as on real hardware.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => lock(device).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Serves a write by a vCPU. Without a device it is ignored.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address, data.len()) {
            lock(device).write(offset, data);
        }
    }

    fn find(&self, address: u64, len: usize) -> Option<(&SharedDevice, u64)> {
        let at = self.slots.partition_point(|slot| slot.base <= address);
        let slot = &self.slots[at.checked_sub(1)?];
        let offset = address - slot.base;
        (offset + len as u64 <= slot.len).then_some((&slot.device, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Device;

    #[derive(Default)]
    struct Memory([u8; 16]);

    impl Device for Memory {
        fn name(&self) -> &'static str {
            "memory"
        }
    }

    impl BusDevice for Memory {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            let start = offset as usize;
            data.copy_from_slice(&self.0[start..start + data.len()]);
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            let start = offset as usize;
            self.0[start..start + data.len()].copy_from_slice(data);
        }
    }

    fn device() -> SharedDevice {
        Arc::new(Mutex::new(Memory::default()))
    }

    #[test]
    fn an_access_reaches_the_device_at_its_offset() {
        let mut bus = Bus::default();
        bus.insert(0x100, 16, device()).unwrap();
        bus.insert(0x200, 16, device()).unwrap();
        bus.write(0x204, &[1, 2]);
        let mut data = [0; 2];
        bus.read(0x204, &mut data);
        assert_eq!(data, [1, 2]);
        bus.read(0x104, &mut data);
        assert_eq!(data, [0, 0]);
    }

    #[test]
    fn an_access_outside_a_device_reads_all_ones() {
        let mut bus = Bus::default();
        bus.insert(0x100, 16, device()).unwrap();
        for address in [0, 0xff, 0x10f, 0x110] {
            let mut data = [0; 2];
            bus.write(address, &[5, 5]);
            bus.read(address, &mut data);
            assert_eq!(data, [0xff, 0xff], "at {address:#x}");
        }
    }

    #[test]
    fn overlapping_devices_are_refused() {
        let mut bus = Bus::default();
        bus.insert(0x100, 16, device()).unwrap();
        for base in [0xf1, 0x100, 0x10f] {
            assert!(bus.insert(base, 16, device()).is_err(), "at {base:#x}");
        }
        bus.insert(0xf0, 16, device()).unwrap();
        bus.insert(0x110, 16, device()).unwrap();
    }
}
