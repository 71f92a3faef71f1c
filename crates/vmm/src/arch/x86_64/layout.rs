//! The guest's physical address space and I/O ports.
//!
//! ```text
//! 0x0000_0500  GDT                      0x0000_7000  zero page (64-bit Linux boot)
//! 0x0000_6000  PVH start info           0x0000_9000  page tables (64-bit Linux boot)
//! 0x0000_6100  PVH module list          0x0002_0000  command line
//! 0x0000_6400  PVH memory map           0x000e_0000  ACPI tables, RSDP first
//! 0x000d_f040  VM generation ID
//! 0x0010_0000  kernel …                 … initramfs, at the end of low memory
//! 0xc000_0000  the MMIO gap             0xd000_0000  virtio-mmio windows
//! 0xfec0_0000  I/O APIC                 0xfee0_0000  local APICs
//! 0x1_0000_0000  the rest of memory
//! ```

/// Start of the MMIO gap and end of low memory.
pub const GAP_START: u64 = 0xc000_0000;
/// End of the MMIO gap.
pub const GAP_END: u64 = 0x1_0000_0000;

/// The boot GDT.
pub const GDT: u64 = 0x500;
/// `struct hvm_start_info` (Xen, public/arch-x86/hvm/start_info.h).
pub const PVH_START_INFO: u64 = 0x6000;
/// `struct hvm_modlist_entry`.
pub const PVH_MODULES: u64 = 0x6100;
/// An array of `struct hvm_memmap_table_entry`.
pub const PVH_MEMMAP: u64 = 0x6400;
/// `struct boot_params` (Linux, arch/x86/include/uapi/asm/bootparam.h).
pub const ZERO_PAGE: u64 = 0x7000;
/// The PML4 of the 64-bit boot; the lower levels follow.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// The most bytes of a command line without its terminating zero (Linux: COMMAND_LINE_SIZE is 2048).
pub const CMDLINE_MAX: usize = 2047;
/// End of conventional memory: the extended BIOS data area.
pub const EBDA: u64 = 0x9_fc00;
/// The VM generation ID: in reserved memory, in a page without other data, and not at a multiple of 2 KiB, where
/// kernels look for option ROMs.
pub const VMGENID: u64 = 0xd_f040;
/// The RSDP; the other ACPI tables follow. Linux searches here if the boot protocol passes no address.
pub const ACPI: u64 = 0xe_0000;
/// End of the area for ACPI tables.
pub const ACPI_END: u64 = 0x10_0000;
/// The lowest address of a kernel.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// The first virtio-mmio window.
pub const VIRTIO_MMIO: u64 = 0xd000_0000;
/// The size of a virtio-mmio window.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// The I/O APIC's registers.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs' registers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM needs on hosts with VMX (KVM_SET_TSS_ADDR).
pub const KVM_TSS: u64 = 0xfffb_d000;
/// A page that KVM needs on hosts with VMX (KVM_SET_IDENTITY_MAP_ADDR).
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// COM1.
pub const SERIAL_PORT: u16 = 0x3f8;
/// The GSI of COM1.
pub const SERIAL_GSI: u32 = 4;
/// The GSI of the first virtio-mmio device; the others follow.
pub const VIRTIO_GSI: u32 = 5;
/// The last GSI for a virtio-mmio device.
pub const LAST_VIRTIO_GSI: u32 = 22;
/// The GSI of the ACPI generic event device: the last of the I/O APIC.
pub const EVENT_GSI: u32 = 23;
/// The sleep and reset registers of the FADT.
pub const POWER_PORT: u16 = 0x600;
/// pvpanic (QEMU, docs/specs/pvpanic.rst).
pub const PVPANIC_PORT: u16 = 0x505;

/// The ranges of RAM, as (base, length), for a guest with `size` bytes.
pub fn ram_ranges(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let low = size.min(GAP_START);
    let high = size - low;
    [(0, low), (GAP_END, high)]
        .into_iter()
        .filter(|(_, len)| *len > 0)
}

/// The type of a range in the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Usable RAM.
    Ram,
    /// Reserved: the guest must not use it.
    Reserved,
}

/// The memory map for a guest with `size` bytes, as (base, length, type).
pub fn memory_map(size: u64) -> Vec<(u64, u64, MemoryKind)> {
    let mut map = vec![
        (0, EBDA, MemoryKind::Ram),
        (EBDA, ACPI_END - EBDA, MemoryKind::Reserved),
    ];
    for (base, len) in ram_ranges(size) {
        let start = base.max(HIGH_MEMORY);
        map.push((start, base + len - start, MemoryKind::Ram));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_below_the_gap_is_one_range() {
        let ranges: Vec<_> = ram_ranges(512 << 20).collect();
        assert_eq!(ranges, [(0, 512 << 20)]);
    }

    #[test]
    fn memory_past_the_gap_continues_at_4_gib() {
        let ranges: Vec<_> = ram_ranges(5 << 30).collect();
        assert_eq!(ranges, [(0, 3 << 30), (4 << 30, 2 << 30)]);
    }

    #[test]
    fn the_memory_map_covers_all_but_the_hole_below_1_mib() {
        let map = memory_map(5 << 30);
        let ram: u64 = map
            .iter()
            .filter(|(_, _, kind)| *kind == MemoryKind::Ram)
            .map(|(_, len, _)| len)
            .sum();
        assert_eq!(ram, (5 << 30) - (HIGH_MEMORY - EBDA));
        assert!(
            map.windows(2)
                .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0)
        );
    }
}
