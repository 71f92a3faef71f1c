//! The ACPI tables: RSDP, XSDT, FADT, MADT, and a DSDT with the devices' nodes.
//!
//! The machine is hardware-reduced (ACPI 6.5, section 4.1): no PM timer, no SCI and no legacy interrupt controller to
//! probe. Sleep and reset are one register each.

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};

use super::layout;
use crate::devices::power;

const OEM: [u8; 6] = *b"CLOUDE";
const OEM_TABLE: [u8; 8] = *b"CLOUDEVM";
const OEM_REVISION: u32 = 1;

/// IAPC_BOOT_ARCH (ACPI 6.5, section 5.2.9.3): no VGA and no CMOS RTC. The 8042 bit stays clear, so that the kernel
/// does not probe for a keyboard controller.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;

/// All tables as one block for the address [`layout::ACPI`], RSDP first.
pub fn tables(vcpus: u8, device_nodes: &[u8]) -> Vec<u8> {
    let mut block = Block::after(Rsdp::len());
    let dsdt = block.append(&dsdt(device_nodes));
    let fadt = block.append(&bytes(&fadt(dsdt)));
    let madt = block.append(&bytes(&madt(vcpus)));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = block.append(&bytes(&xsdt));
    block.finish(&bytes(&Rsdp::new(OEM, xsdt)))
}

/// Consecutive tables, with their guest addresses.
struct Block(Vec<u8>);

impl Block {
    fn after(head: usize) -> Self {
        Self(vec![0; head])
    }

    fn append(&mut self, table: &[u8]) -> u64 {
        // No table needs more than 8-byte alignment.
        self.0.resize(self.0.len().next_multiple_of(16), 0);
        let address = layout::ACPI + self.0.len() as u64;
        self.0.extend_from_slice(table);
        address
    }

    fn finish(mut self, head: &[u8]) -> Vec<u8> {
        self.0[..head.len()].copy_from_slice(head);
        self.0
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn dsdt(device_nodes: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 36;
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, 6, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&bytes(&aml::Scope::new(
        "_SB_".into(),
        vec![&Raw(device_nodes)],
    )));
    // SLP_TYP of S5 (soft off), the only sleep state.
    let s5 = aml::Name::new(
        "_S5_".into(),
        &aml::Package::new(vec![&power::S5_SLEEP_TYPE]),
    );
    dsdt.append_slice(&bytes(&s5));
    dsdt.as_slice().to_vec()
}

/// AML that is already encoded.
struct Raw<'a>(&'a [u8]);

impl Aml for Raw<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(self.0);
    }
}

fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = port(power::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = port(power::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(power::SLEEP_STATUS);
    fadt.finalize()
}

fn port(offset: u64) -> GAS {
    let address = u64::from(layout::POWER_PORT) + offset;
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        address,
    )
}

fn madt(vcpus: u8) -> MADT {
    let mut madt = MADT::new(
        OEM,
        OEM_TABLE,
        OEM_REVISION,
        LocalInterruptController::Address(layout::LOCAL_APIC),
    );
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    // Any id that no local APIC has.
    madt.add_structure(IoApic::new(vcpus, layout::IO_APIC, 0));
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn table_at(block: &[u8], address: u64) -> &[u8] {
        let start = (address - layout::ACPI) as usize;
        let len = u32::from_le_bytes(block[start + 4..start + 8].try_into().unwrap());
        &block[start..start + len as usize]
    }

    #[test]
    fn every_table_is_reachable_and_has_a_valid_checksum() {
        let block = tables(8, b"");
        assert_eq!(&block[..8], b"RSD PTR ");
        assert_eq!(checksum(&block[..Rsdp::len()]), 0);
        let xsdt = table_at(&block, u64_at(&block, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        assert_eq!(checksum(xsdt), 0);
        let fadt = table_at(&block, u64_at(xsdt, 36));
        assert_eq!(&fadt[..4], b"FACP");
        assert_eq!(checksum(fadt), 0);
        let dsdt = table_at(&block, u64_at(fadt, 140));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(checksum(dsdt), 0);
        let madt = table_at(&block, u64_at(xsdt, 44));
        assert_eq!(&madt[..4], b"APIC");
        assert_eq!(checksum(madt), 0);
        // 44 bytes of header, 8 for each local APIC, 12 for the I/O APIC.
        assert_eq!(madt.len(), 44 + 8 * 8 + 12);
    }

    #[test]
    fn device_nodes_are_in_the_dsdt() {
        let block = tables(1, b"the bytes of a device");
        let found = block
            .windows(21)
            .any(|window| window == b"the bytes of a device");
        assert!(found);
    }
}
