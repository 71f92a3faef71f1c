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
    /// How it wants to be entered.
    pub entry: Entry,
    /// The end of what it occupies before it knows its memory.
    pub end: u64,
}

/// How a kernel wants to be entered.
#[derive(Clone, Copy)]
pub enum Entry {
    /// At this address, in 32-bit protected mode (Xen, docs/misc/pvh.pandoc).
    Pvh(u64),
    /// In long mode (Linux, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    Linux64 {
        /// Where.
        rip: u64,
        /// To be handed back in the zero page.
        header: setup_header,
    },
    /// In long mode, with nothing handed over: a guest that is no Linux.
    Long(u64),
}

/// A kernel that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Give an uncompressed `vmlinux` or a `bzImage` for x86-64.
    #[error(
        "the kernel is neither an ELF vmlinux nor a bzImage (it starts with {start:02x?}); \
         give an uncompressed vmlinux or a bzImage for x86-64"
    )]
    UnknownFormat {
        /// The file's first bytes.
        start: Vec<u8>,
    },
    /// Build the kernel with `CONFIG_PVH=y`, or give its bzImage.
    #[error(
        "the kernel is an ELF file without a PVH entry point; \
         build it with CONFIG_PVH=y, or give its bzImage"
    )]
    NoPvhNote,
    /// Give a 64-bit bzImage.
    #[error("the bzImage has no 64-bit entry point; give a kernel for x86-64")]
    No64BitEntry,
    /// The file is cut short: fetch or build it again.
    #[error("the kernel file has {have} bytes and its headers promise {need}; it is cut short")]
    Truncated {
        /// The file's size.
        have: u64,
        /// What its headers promise.
        need: u64,
    },
    /// Give the guest more memory.
    #[error(
        "the kernel occupies memory up to {need_mib} MiB and the guest has {have_mib} MiB; \
         give it more memory"
    )]
    DoesNotFit {
        /// Where the kernel ends, rounded up.
        need_mib: u64,
        /// What the guest has.
        have_mib: u64,
    },
    /// The file is damaged or made for another kind of machine.
    #[error("the kernel cannot be loaded: {0}")]
    Invalid(String),
    /// The file cannot be read.
    #[error("the kernel cannot be read: {0}")]
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

/// Checks what the program headers promise against the file and the memory, for exact errors, and
/// backs the segments with pages. Gives the kernel's end.
fn check_elf(reader: &Reader, memory_size: u64) -> Result<u64, KernelError> {
    // Offsets in Elf64_Ehdr: e_phoff 32 (8 bytes), e_phentsize 54, e_phnum 56 (2 bytes each).
    let mut header = [0; 64];
    require(reader, 64)?;
    reader.read_at(&mut header, 0)?;
    let table = u64_at(&header, 32);
    let count = u64::from(u16::from_le_bytes([header[56], header[57]]));
    // Of Elf64_Phdr, 56 bytes: p_type 0 (4), p_offset 8, p_paddr 24, p_filesz 32, p_memsz 40.
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
    // Where the kernel decompresses to when it does not move itself.
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
    // SAFETY: `setup_header` is a packed struct of integers, of which any bytes are a value, and
    // the array has its size.
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
