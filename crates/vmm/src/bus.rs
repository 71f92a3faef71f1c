//! Which device answers at which address. One bus holds the ports, another the MMIO windows.

use std::sync::{Arc, Mutex};

use crate::devices::BusDevice;
use crate::sync::lock;

/// A device as the bus, the event loop and the VM share it.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// Two devices want the same addresses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("device {device} at {base:#x} overlaps another device")]
pub struct Overlap {
    /// The one that came second.
    pub device: &'static str,
    /// Where it wanted to be.
    pub base: u64,
}

/// Devices by address. Few, so that a sorted list is the fastest map.
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
    /// Places `device` at `base .. base + len`.
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

    /// A read by a vCPU. Where no device answers, all bits are one, as on an undriven bus.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => lock(device).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A write by a vCPU. Where no device answers, it is lost.
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
    fn an_access_that_no_device_holds_whole_reads_ones_and_writes_nothing() {
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
