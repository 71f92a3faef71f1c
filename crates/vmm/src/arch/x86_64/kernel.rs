//! Loads a kernel: an ELF `vmlinux` with a PVH note, or a `bzImage`.

use std::fs::File;
use std::io;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{self, BzImage, Elf, KernelLoader};
use vm_memory::GuestAddress;

use super::layout;
use super::reader::Reader;
use crate::memory::{self, GuestMemory};

/// A kernel in guest memory.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// The entry point and boot protocol.
    pub entry: Entry,
    /// The end of the memory that the kernel uses before it has read the memory map.
    pub end: u64,
}

/// The entry point of a kernel, by boot protocol.
#[derive(Clone, Copy)]
pub enum Entry {
    /// PVH: this address, in 32-bit protected mode (Xen, docs/misc/pvh.pandoc).
    Pvh(u64),
    /// Linux's 64-bit boot protocol, in long mode (Documentation/arch/x86/boot.rst).
    Linux64 {
        /// The address.
        rip: u64,
        /// The header of the bzImage, for the zero page.
        header: setup_header,
    },
    /// This address, in long mode, without boot parameters: a guest that is not Linux.
    Long(u64),
}

/// A kernel that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Use an uncompressed `vmlinux` or a `bzImage` for x86-64.
    #[error(
        "the kernel is neither an ELF vmlinux nor a bzImage (it starts with {start:02x?}); \
         give an uncompressed vmlinux or a bzImage for x86-64"
    )]
    UnknownFormat {
        /// The file's first bytes.
        start: Vec<u8>,
    },
    /// Build the kernel with `CONFIG_PVH=y`, or use its bzImage.
    #[error(
        "the kernel is an ELF file without a PVH entry point; \
         build it with CONFIG_PVH=y, or give its bzImage"
    )]
    NoPvhNote,
    /// Use a 64-bit bzImage.
    #[error("the bzImage has no 64-bit entry point; use a kernel for x86-64")]
    No64BitEntry,
    /// The file is truncated: fetch or build it again.
    #[error("the kernel file is truncated: it has {have} bytes, its headers say {need}")]
    Truncated {
        /// The file's size in bytes.
        have: u64,
        /// The size according to its headers, in bytes.
        need: u64,
    },
    /// Use more guest memory.
    #[error(
        "the kernel occupies memory up to {need_mib} MiB and the guest has {have_mib} MiB; \
         give it more memory"
    )]
    DoesNotFit {
        /// End of the kernel in MiB, rounded up.
        need_mib: u64,
        /// Guest memory in MiB.
        have_mib: u64,
    },
    /// The file is damaged or for another architecture.
    #[error("cannot load the kernel: {0}")]
    Invalid(String),
    /// Reading the file failed.
    #[error("cannot read the kernel: {0}")]
    Read(#[from] io::Error),
}

const ELF_MAGIC: &[u8] = b"\x7fELF";
/// `HdrS`, at [`BZIMAGE_MAGIC_AT`].
const BZIMAGE_MAGIC: &[u8] = b"HdrS";
const BZIMAGE_MAGIC_AT: u64 = 0x202;
/// `XLF_KERNEL_64` of `xloadflags`: a 64-bit entry point at 0x200.
const XLF_KERNEL_64: u16 = 1;
const BZIMAGE_64_ENTRY: u64 = 0x200;

/// Loads the kernel in `file` into `memory`.
pub fn load(memory: &GuestMemory, file: &File) -> Result<Kernel, KernelError> {
    let mut reader = Reader::new(file)?;
    let mut start = vec![0; 4.min(reader.len() as usize)];
    reader.read_at(&mut start, 0)?;
    if start == ELF_MAGIC {
        return load_elf(memory, &mut reader);
    }
    let mut magic = [0; 4];
    if reader.len() > BZIMAGE_MAGIC_AT + 4 {
        reader.read_at(&mut magic, BZIMAGE_MAGIC_AT)?;
    }
    if magic == BZIMAGE_MAGIC {
        return load_bzimage(memory, &mut reader);
    }
    Err(KernelError::UnknownFormat { start })
}

fn load_elf(memory: &GuestMemory, reader: &mut Reader) -> Result<Kernel, KernelError> {
    let end = check_elf(reader, memory::size(memory))?;
    let loaded = Elf::load(
        memory,
        None,
        reader,
        Some(GuestAddress(layout::HIGH_MEMORY)),
    )
    .map_err(invalid)?;
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Ok(Kernel {
            entry: Entry::Pvh(entry.0),
            end,
        }),
        _ => Err(KernelError::NoPvhNote),
    }
}

/// Checks the program headers against the sizes of file and memory, and backs the segments with pages. Returns the end
/// of the kernel.
fn check_elf(reader: &Reader, memory_size: u64) -> Result<u64, KernelError> {
    // Offsets in Elf64_Ehdr: e_phoff 32 (8 bytes), e_phentsize 54, e_phnum 56 (2 bytes each).
    let mut header = [0; 64];
    require(reader, 64)?;
    reader.read_at(&mut header, 0)?;
    let table = u64_at(&header, 32);
    let count = u64::from(u16::from_le_bytes([header[56], header[57]]));
    // Offsets in Elf64_Phdr, 56 bytes: p_type 0 (4), p_offset 8, p_paddr 24, p_filesz 32, p_memsz 40.
    const ENTRY: u64 = 56;
    require(reader, table.saturating_add(count * ENTRY))?;
    let mut end = 0;
    for index in 0..count {
        let mut entry = [0; ENTRY as usize];
        reader.read_at(&mut entry, table + index * ENTRY)?;
        const PT_LOAD: [u8; 4] = [1, 0, 0, 0];
        if entry[..4] != PT_LOAD {
            continue;
        }
        require(reader, u64_at(&entry, 8).saturating_add(u64_at(&entry, 32)))?;
        let size = u64_at(&entry, 32).max(u64_at(&entry, 40));
        end = end.max(u64_at(&entry, 24).saturating_add(size));
    }
    fits(end, memory_size)?;
    Ok(end)
}

fn load_bzimage(memory: &GuestMemory, reader: &mut Reader) -> Result<Kernel, KernelError> {
    let header = read_setup_header(reader)?;
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(KernelError::No64BitEntry);
    }
    // The kernel decompresses to this address unless it relocates itself.
    let start = header.pref_address;
    let end = start.saturating_add(u64::from(header.init_size).max(reader.len()));
    fits(end, memory::size(memory))?;
    memory::populate(memory, GuestAddress(start), reader.len());
    BzImage::load(
        memory,
        Some(GuestAddress(start)),
        reader,
        Some(GuestAddress(layout::HIGH_MEMORY)),
    )
    .map_err(invalid)?;
    Ok(Kernel {
        entry: Entry::Linux64 {
            rip: start + BZIMAGE_64_ENTRY,
            header,
        },
        end,
    })
}

fn read_setup_header(reader: &Reader) -> Result<setup_header, KernelError> {
    const AT: u64 = 0x1f1;
    let mut bytes = [0; size_of::<setup_header>()];
    require(reader, AT + bytes.len() as u64)?;
    reader.read_at(&mut bytes, AT)?;
    // SAFETY: `setup_header` is a packed struct of integers: every bit pattern is valid, and the array has its size.
    Ok(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

fn require(reader: &Reader, need: u64) -> Result<(), KernelError> {
    let have = reader.len();
    if have < need {
        return Err(KernelError::Truncated { have, need });
    }
    Ok(())
}

fn fits(end: u64, memory_size: u64) -> Result<(), KernelError> {
    if end > memory_size.min(layout::GAP_START) {
        return Err(KernelError::DoesNotFit {
            need_mib: end.div_ceil(1 << 20),
            have_mib: memory_size >> 20,
        });
    }
    Ok(())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn invalid(error: loader::Error) -> KernelError {
    KernelError::Invalid(error.to_string())
}
