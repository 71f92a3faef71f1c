//! The zero page and the page tables for a bzImage's 64-bit entry point (Linux, Documentation/arch/x86/boot.rst and
//! zero-page.rst).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::initramfs::Initramfs;
use super::{layout, pvh};
use crate::memory::{self, GuestMemory, PAGE};

/// `type_of_loader` without an assigned id.
const LOADER_UNDEFINED: u8 = 0xff;
/// `VIDEO_MODE` "normal".
const VIDEO_NORMAL: u16 = 0xffff;

pub(super) fn write(
    guest: &GuestMemory,
    header: &setup_header,
    initramfs: Option<Initramfs>,
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params {
        hdr: *header,
        acpi_rsdp_addr: layout::ACPI,
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.vid_mode = VIDEO_NORMAL;
    params.hdr.cmd_line_ptr = layout::CMDLINE as u32;
    if let Some(initramfs) = initramfs {
        params.hdr.ramdisk_image = initramfs.address as u32;
        params.hdr.ramdisk_size = initramfs.size as u32;
    }
    let map = layout::memory_map(memory::size(guest));
    params.e820_entries = map.len() as u8;
    for (slot, (addr, size, kind)) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry {
            addr,
            size,
            r#type: pvh::e820_type(kind),
        };
    }
    guest.write_obj(params, GuestAddress(layout::ZERO_PAGE))?;
    write_page_tables(guest)
}

/// Identity-maps the first 4 GiB with 2 MiB pages. The kernel makes its own mappings later.
pub fn write_page_tables(guest: &GuestMemory) -> Result<(), GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let level3 = layout::PAGE_TABLES + PAGE as u64;
    let level2 = level3 + PAGE as u64;
    guest.write_obj(level3 | PRESENT_WRITABLE, GuestAddress(layout::PAGE_TABLES))?;
    let mut entries = Vec::with_capacity(4 * 512 * 8);
    for gib in 0..4u64 {
        let table = level2 + gib * PAGE as u64;
        guest.write_obj(table | PRESENT_WRITABLE, GuestAddress(level3 + gib * 8))?;
    }
    for index in 0..4 * 512u64 {
        entries.extend_from_slice(&(index << 21 | PRESENT_WRITABLE | LARGE).to_le_bytes());
    }
    guest.write_slice(&entries, GuestAddress(level2))
}
