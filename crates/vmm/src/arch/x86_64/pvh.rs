//! The start info of a PVH kernel (Xen, public/arch-x86/hvm/start_info.h).

use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::initramfs::Initramfs;
use super::layout::{self, MemoryKind};
use crate::memory::{self, GuestMemory};

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The first version of the start info with a memory map.
const VERSION: u32 = 1;
/// `XEN_HVM_MEMMAP_TYPE_RAM` and `_RESERVED`, with the same values as in e820.
const RAM: u32 = 1;
const RESERVED: u32 = 2;

pub(super) fn write(
    guest: &GuestMemory,
    initramfs: Option<Initramfs>,
) -> Result<(), GuestMemoryError> {
    let map = layout::memory_map(memory::size(guest));
    let mut address = layout::PVH_MEMMAP;
    for (addr, size, kind) in &map {
        let entry = hvm_memmap_table_entry {
            addr: *addr,
            size: *size,
            type_: e820_type(*kind),
            reserved: 0,
        };
        guest.write_obj(entry, GuestAddress(address))?;
        address += size_of::<hvm_memmap_table_entry>() as u64;
    }
    if let Some(initramfs) = initramfs {
        let module = hvm_modlist_entry {
            paddr: initramfs.address,
            size: initramfs.size,
            ..Default::default()
        };
        guest.write_obj(module, GuestAddress(layout::PVH_MODULES))?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: initramfs.is_some().into(),
        modlist_paddr: initramfs.map_or(0, |_| layout::PVH_MODULES),
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: layout::ACPI,
        memmap_paddr: layout::PVH_MEMMAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    guest.write_obj(info, GuestAddress(layout::PVH_START_INFO))
}

/// The e820 type of a memory range.
pub(super) fn e820_type(kind: MemoryKind) -> u32 {
    match kind {
        MemoryKind::Ram => RAM,
        MemoryKind::Reserved => RESERVED,
    }
}
