//! The VM generation ID: 16 bytes in guest memory that differ in each fork, and an interrupt that announces a change
//! (Microsoft, "Virtual Machine Generation ID"; QEMU, docs/specs/vmgenid.rst). On the interrupt Linux
//! (drivers/virt/vmgenid.c) mixes the ID into its random number generator and reseeds it.
//!
//! The device has no registers. It consists of two nodes in the DSDT, 16 bytes of guest memory and a GSI.

use std::io;

use acpi_tables::{Aml, aml};
use kvm_ioctls::VmFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::arch::layout;
use crate::memory::GuestMemory;

/// The device's name in a snapshot's key.
pub const NAME: &str = "vmgenid";

/// Bytes of an ID.
pub const SIZE: usize = 16;

/// The ACPI notification for a changed ID.
const CHANGED: u8 = 0x80;

/// A generation ID that could not be written or announced.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// getrandom failed.
    #[error("getrandom for the VM generation ID failed: {0}")]
    Random(#[source] io::Error),
    /// The guest has no memory at the address of the ID.
    #[error("cannot write the VM generation ID to guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    /// KVM_IRQ_LINE failed.
    #[error("KVM_IRQ_LINE for the VM generation ID failed: {0}")]
    Interrupt(kvm_ioctls::Error),
}

/// Writes a new random ID to [`layout::VMGENID`].
pub fn write_fresh(memory: &GuestMemory) -> Result<(), GenerationError> {
    let id = fresh().map_err(GenerationError::Random)?;
    memory.write_slice(&id, GuestAddress(layout::VMGENID))?;
    Ok(())
}

/// Raises the interrupt that announces a changed ID. Returns the number of ioctls.
///
/// KVM_IRQ_LINE rather than an irqfd: when it returns, the interrupt is pending in the local APIC, and so before the
/// vCPU's first instruction. An irqfd injects from a work queue.
pub fn notify(vm: &VmFd) -> Result<u32, GenerationError> {
    for level in [true, false] {
        vm.set_irq_line(layout::EVENT_GSI, level)
            .map_err(GenerationError::Interrupt)?;
    }
    Ok(2)
}

fn fresh() -> io::Result<[u8; SIZE]> {
    let mut id = [0; SIZE];
    // SAFETY: the pointer and length are those of a live, exclusive array.
    let got = unsafe { libc::getrandom(id.as_mut_ptr().cast(), id.len(), 0) };
    // getrandom returns up to 256 bytes whole or fails.
    match usize::try_from(got) {
        Ok(SIZE) => Ok(id),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The AML nodes for `\_SB_` in the DSDT: the ID, and a generic event device (ACPI 6.5, section 5.6.9), which is how
/// hardware-reduced ACPI turns an interrupt into a notification.
pub fn acpi_nodes() -> Vec<u8> {
    let mut nodes = id_node();
    nodes.extend(event_node());
    nodes
}

fn id_node() -> Vec<u8> {
    let (low, high) = (layout::VMGENID as u32, (layout::VMGENID >> 32) as u32);
    let mut node = Vec::new();
    aml::Device::new(
        "VGEN".into(),
        vec![
            // QEMU's id, as for pvpanic. Drivers match the compatible id, which ACPICA converts to upper case.
            &aml::Name::new("_HID".into(), &"QEMUVGID"),
            &aml::Name::new("_CID".into(), &"VM_Gen_Counter"),
            &aml::Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &aml::Name::new("ADDR".into(), &aml::Package::new(vec![&low, &high])),
        ],
    )
    .to_aml_bytes(&mut node);
    node
}

fn event_node() -> Vec<u8> {
    let mut node = Vec::new();
    aml::Device::new(
        "GED_".into(),
        vec![
            &aml::Name::new("_HID".into(), &"ACPI0013"),
            &aml::Name::new("_UID".into(), &0u8),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![&aml::Interrupt::new(
                    true,
                    true,
                    false,
                    false,
                    layout::EVENT_GSI,
                )]),
            ),
            // The argument is the GSI; the device has only one.
            &aml::Method::new(
                "_EVT".into(),
                1,
                true,
                vec![&aml::Notify::new(&aml::Path::new("VGEN"), &CHANGED)],
            ),
        ],
    )
    .to_aml_bytes(&mut node);
    node
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{KVM_IRQCHIP_IOAPIC, kvm_irqchip};

    use super::*;

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn the_nodes_have_the_ids_address_and_interrupt() {
        let nodes = acpi_nodes();
        assert!(contains(&nodes, b"_CID\x0dVM_Gen_Counter\0"));
        // Name ADDR, a package of 2 elements: a double word with the address, and zero.
        let mut address = b"ADDR\x12\x08\x02\x0c".to_vec();
        address.extend((layout::VMGENID as u32).to_le_bytes());
        address.push(0);
        assert!(contains(&nodes, &address), "{nodes:02x?}");
        assert!(contains(&nodes, b"ACPI0013"));
        // Extended interrupt, 6 bytes: consumer, edge, active high, exclusive; one interrupt.
        let mut interrupt = b"\x89\x06\x00\x03\x01".to_vec();
        interrupt.extend(layout::EVENT_GSI.to_le_bytes());
        assert!(contains(&nodes, &interrupt), "{nodes:02x?}");
        // Notify VGEN of 0x80.
        assert!(contains(&nodes, b"\x86VGEN\x0a\x80"), "{nodes:02x?}");
    }

    #[test]
    fn each_write_gives_another_id() {
        let memory = crate::memory::allocate(32).unwrap();
        let mut ids = Vec::new();
        for _ in 0..3 {
            write_fresh(&memory).unwrap();
            let id: [u8; SIZE] = memory.read_obj(GuestAddress(layout::VMGENID)).unwrap();
            assert!(!ids.contains(&id) && id != [0; SIZE]);
            ids.push(id);
        }
    }

    #[test]
    fn the_interrupt_is_pending_before_the_guest_runs() {
        const VECTOR: u8 = 0x31;
        let vm = crate::probe::open_kvm().unwrap().create_vm().unwrap();
        vm.create_irq_chip().unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        let mut lapic = vcpu.get_lapic().unwrap();
        // The spurious-interrupt vector register, which switches the local APIC on.
        lapic.regs[0xf0] = 0xff_u8 as _;
        lapic.regs[0xf1] = 1;
        vcpu.set_lapic(&lapic).unwrap();
        let mut chip = kvm_irqchip {
            chip_id: KVM_IRQCHIP_IOAPIC,
            ..Default::default()
        };
        vm.get_irqchip(&mut chip).unwrap();
        // SAFETY: the chip is the I/O APIC, and all of its entry is set: to vCPU 0, by edge, not masked.
        unsafe { chip.chip.ioapic.redirtbl[layout::EVENT_GSI as usize].bits = VECTOR.into() };
        vm.set_irqchip(&chip).unwrap();

        notify(&vm).unwrap();

        // The interrupt request register: a bit for each vector, 4 bytes of 16.
        let lapic = vcpu.get_lapic().unwrap();
        let at = 0x200 + usize::from(VECTOR / 32) * 16 + usize::from(VECTOR % 32 / 8);
        assert_eq!(lapic.regs[at] as u8, 1 << (VECTOR % 8));
    }

    #[test]
    fn the_id_is_in_reserved_memory_outside_option_roms() {
        let id = layout::VMGENID..layout::VMGENID + SIZE as u64;
        let reserved = layout::EBDA..layout::ACPI;
        assert!(reserved.contains(&id.start) && id.end <= reserved.end);
        assert_eq!(id.start % 8, 0, "as the specification asks");
        // Every 2 KiB a kernel may look for an option ROM's signature.
        assert_ne!(id.start % 2048, 0);
    }
}
