//! The state of a VM without its memory: vCPUs, VM-wide KVM state, and devices.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

use super::calls::CallCount;
use super::error::{SnapshotError, StateKind};
use super::vcpu_state::VcpuState;

/// Everything that a restore sets besides memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineState {
    /// By vCPU index.
    pub vcpus: Vec<VcpuState>,
    /// The clock and the interrupt controllers.
    pub vm: KvmVmState,
    /// In the order in which the devices were attached, as in the key.
    pub devices: Vec<DeviceState>,
}

/// The state of one device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceState {
    /// [`crate::devices::Device::name`].
    pub name: String,
    /// The bytes of [`crate::devices::Device::save`].
    pub state: Vec<u8>,
}

/// `chip_id` of the interrupt controllers, in the order of [`KvmVmState::irqchips`].
const IRQCHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// The VM-wide state in KVM: kvmclock, both PICs and the I/O APIC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KvmVmState {
    /// `kvm_clock_data.clock`, in nanoseconds.
    clock: u64,
    irqchips: [kvm_irqchip; 3],
}

impl KvmVmState {
    /// Reads the state. The vCPUs must be paused.
    pub fn save(vm: &VmFd) -> Result<Self, SnapshotError> {
        // After the vCPUs have stopped, so that the guest has not read a later time.
        let clock = vm
            .get_clock()
            .map_err(SnapshotError::get(StateKind::Clock))?;
        let mut irqchips = [kvm_irqchip::default(); 3];
        for (chip, id) in irqchips.iter_mut().zip(IRQCHIPS) {
            chip.chip_id = id;
            vm.get_irqchip(chip)
                .map_err(SnapshotError::get(StateKind::Irqchip))?;
        }
        Ok(Self {
            clock: clock.clock,
            irqchips,
        })
    }

    /// Sets kvmclock to the saved time. Call it after [`VcpuState::restore_time`].
    pub fn restore_time(&self, vm: &VmFd) -> Result<(), SnapshotError> {
        // Without KVM_CLOCK_REALTIME, so that guest time continues from the save and is not advanced by the age of
        // the snapshot. The wall clock is set by the agent.
        let clock = kvm_clock_data {
            clock: self.clock,
            flags: 0,
            ..Default::default()
        };
        vm.set_clock(&clock)
            .map_err(SnapshotError::set(StateKind::Clock))
    }

    /// Sets the interrupt controllers that differ from `blank`, the state of the blank VM. Call it after
    /// [`VcpuState::restore`].
    pub fn restore(
        &self,
        vm: &VmFd,
        blank: &Self,
        calls: &mut CallCount,
    ) -> Result<(), SnapshotError> {
        // The I/O APIC comes last and after the local APICs: it delivers its pending interrupts at once.
        for (chip, blank) in self.irqchips.iter().zip(&blank.irqchips) {
            if !same_chip(chip, blank) {
                calls
                    .ioctl(|| vm.set_irqchip(chip))
                    .map_err(SnapshotError::set(StateKind::Irqchip))?;
            }
        }
        Ok(())
    }
}

/// Compares two controller states byte for byte.
fn same_chip(a: &kvm_irqchip, b: &kvm_irqchip) -> bool {
    // SAFETY: all bytes are initialised: they start as zero, and the kernel writes within them.
    let bytes = |chip: &kvm_irqchip| unsafe { chip.chip.dummy };
    a.chip_id == b.chip_id && bytes(a) == bytes(b)
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EventFd;

    use super::super::FORMAT_VERSION;
    use super::*;
    use crate::devices::Device;
    use crate::devices::serial::{ConsoleSink, Serial};
    use crate::devices::virtio::vsock::{Vsock, VsockConfig};
    use crate::devices::virtio::{MmioSlot, MmioTransport, VirtioDevice};

    fn transport(device: impl VirtioDevice) -> Vec<u8> {
        let memory = crate::memory::allocate(32).unwrap();
        let slot = MmioSlot {
            base: 0xd000_0000,
            gsi: 5,
            uid: 0,
        };
        let transport = MmioTransport::new(device, memory, slot).unwrap();
        transport.save().unwrap()
    }

    /// A changed size means a changed layout: increase [`FORMAT_VERSION`], then adapt the numbers.
    #[test]
    fn the_layout_is_that_of_the_format_version() {
        let sink = ConsoleSink::new(None).unwrap();
        let serial = Serial::new(EventFd::new(0).unwrap(), sink);
        let config = VsockConfig {
            guest_cid: 3,
            ready_port: 1025,
        };
        let state = KvmVmState {
            clock: 0,
            irqchips: [kvm_irqchip::default(); 3],
        };
        let sizes = [
            postcard::to_stdvec(&VcpuState::default()).unwrap().len(),
            postcard::to_stdvec(&state).unwrap().len(),
            serial.save().unwrap().len(),
            transport(Vsock::new(config).unwrap()).len(),
        ];
        assert_eq!((FORMAT_VERSION, sizes), (3, [1058, 1567, 11, 44]));
    }
}
