//! Where everything lies in the guest's physical address space and among its ports.
//!
//! ```text
//! 0x0000_0500  GDT                      0x0000_7000  zero page (64-bit Linux boot)
//! 0x0000_6000  PVH start info           0x0000_9000  page tables (64-bit Linux boot)
//! 0x0000_6100  PVH module list          0x0002_0000  command line
//! 0x0000_6400  PVH memory map           0x000e_0000  ACPI tables, RSDP first
//! 0x000d_f040  VM generation ID
//! 0x0010_0000  kernel …                 … initramfs, as high as it goes
//! 0xc000_0000  the MMIO gap             0xd000_0000  virtio-mmio windows
//! 0xfec0_0000  I/O APIC                 0xfee0_0000  local APICs
//! 0x1_0000_0000  the rest of the memory
//! ```

/// The start of the MMIO gap, and so the end of low memory.
pub const GAP_START: u64 = 0xc000_0000;
/// The end of the MMIO gap.
pub const GAP_END: u64 = 0x1_0000_0000;

/// The boot GDT.
pub const GDT: u64 = 0x500;
/// `struct hvm_start_info` (Xen, public/arch-x86/hvm/start_info.h).
pub const PVH_START_INFO: u64 = 0x6000;
/// `struct hvm_modlist_entry`.
pub const PVH_MODULES: u64 = 0x6100;
/// `struct hvm_memmap_table_entry`, several.
pub const PVH_MEMMAP: u64 = 0x6400;
/// `struct boot_params` (Linux, arch/x86/include/uapi/asm/bootparam.h).
pub const ZERO_PAGE: u64 = 0x7000;
/// The top page table of the 64-bit boot; its lower levels follow.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// How long the command line may be, without its terminating zero (Linux: COMMAND_LINE_SIZE is 2048).
pub const CMDLINE_MAX: usize = 2047;
/// The end of conventional memory, where a BIOS would keep its extended data.
pub const EBDA: u64 = 0x9_fc00;
/// The VM generation ID, in memory that the map calls reserved: a page that nothing else is in, and in it a
/// place where no kernel looks for an option ROM.
pub const VMGENID: u64 = 0xd_f040;
/// The RSDP; the other ACPI tables follow. Linux looks here when it is not told.
pub const ACPI: u64 = 0xe_0000;
/// The end of the ACPI tables' room.
pub const ACPI_END: u64 = 0x10_0000;
/// The start of memory that a kernel may lie in.
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
/// COM1's interrupt.
pub const SERIAL_GSI: u32 = 4;
/// The first interrupt of a virtio-mmio device; each takes the next.
pub const VIRTIO_GSI: u32 = 5;
/// The last interrupt that a virtio-mmio device may have.
pub const LAST_VIRTIO_GSI: u32 = 22;
/// The interrupt of the ACPI event device: the last of the I/O APIC.
pub const EVENT_GSI: u32 = 23;
/// The registers for sleeping and reset that the FADT names.
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

/// What a range of the memory map is to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Free to use.
    Ram,
    /// Not to be touched.
    Reserved,
}

/// The memory map that the guest is told, as (base, length, kind), for `size` bytes.
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
    fn the_memory_map_covers_all_memory_but_the_hole_below_1_mib() {
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
