//! The state of a whole machine: vCPUs, what they share, and devices.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

use super::{SnapshotError, StateKind, Trace, VcpuState};

/// Everything but the memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineState {
    /// By the vCPU's index.
    pub vcpus: Vec<VcpuState>,
    /// What the vCPUs share.
    pub vm: VmState,
    /// In the order in which they were attached, which is that of the key.
    pub devices: Vec<DeviceState>,
}

/// The state of one device, as the device gave it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceState {
    /// Its name.
    pub name: String,
    /// JSON.
    pub state: String,
}

/// The interrupt controllers' number in KVM's interface, in the order of [`VmState::irqchips`].
const IRQCHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// What the vCPUs share: the clock, both PICs and the I/O APIC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmState {
    /// Nanoseconds of the guest's clock.
    clock: u64,
    irqchips: [kvm_irqchip; 3],
}

impl VmState {
    /// Reads the state while the vCPUs are paused.
    pub fn save(vm: &VmFd) -> Result<Self, SnapshotError> {
        // After the vCPUs stopped: no guest has read a later time.
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

    /// Sets the clock to the time at which it was read, after the vCPUs' own time.
    pub fn restore_time(&self, vm: &VmFd) -> Result<(), SnapshotError> {
        // Without KVM_CLOCK_REALTIME and KVM_CLOCK_HOST_TSC: the guest's monotonic time goes on from
        // where it stood, neither back nor ahead by how long the snapshot lay. Whoever runs the guest
        // tells it the time of day.
        let clock = kvm_clock_data {
            clock: self.clock,
            flags: 0,
            ..Default::default()
        };
        vm.set_clock(&clock)
            .map_err(SnapshotError::set(StateKind::Clock))
    }

    /// Sets the state but for the time, after that of the vCPUs. What `now` has already is not set again.
    pub fn restore(&self, vm: &VmFd, now: &Self, trace: &mut Trace) -> Result<(), SnapshotError> {
        // The I/O APIC last and after the local APICs: it delivers at once what is pending in it.
        for (chip, now) in self.irqchips.iter().zip(&now.irqchips) {
            if !same_chip(chip, now) {
                trace
                    .ioctl(|| vm.set_irqchip(chip))
                    .map_err(SnapshotError::set(StateKind::Irqchip))?;
            }
        }
        trace.step("VM: IRQCHIP");
        Ok(())
    }
}

/// Whether two states of one controller are the same, byte for byte.
fn same_chip(a: &kvm_irqchip, b: &kvm_irqchip) -> bool {
    // SAFETY: both are fully initialised: they start as zero, and the kernel writes within them.
    let bytes = |chip: &kvm_irqchip| unsafe { chip.chip.dummy };
    a.chip_id == b.chip_id && bytes(a) == bytes(b)
}
