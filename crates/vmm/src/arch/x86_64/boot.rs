//! Loads a guest into memory: kernel, initramfs, command line, ACPI tables, and the structures of the boot protocol.

use std::fs::File;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::initramfs::{self, InitramfsError};
use super::kernel::{self, Entry, KernelError};
use super::{acpi, layout, linux64, pvh};
use crate::memory::GuestMemory;

/// A guest that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Use another kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Use a smaller initramfs or more memory.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// Use a shorter command line.
    #[error("the kernel command line has {len} bytes; the limit is {max}", max = layout::CMDLINE_MAX)]
    CmdlineTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Use printable ASCII only.
    #[error(
        "the kernel command line has the byte {byte:#04x} at offset {at}; only printable ASCII is allowed"
    )]
    CmdlineNotAscii {
        /// The first byte that is not printable ASCII.
        byte: u8,
        /// Its offset in bytes.
        at: usize,
    },
    /// Attach fewer devices: their ACPI nodes do not fit.
    #[error("the ACPI tables have {len} bytes; the limit is {max}", max = layout::ACPI_END - layout::ACPI)]
    AcpiTooLarge {
        /// Their size in bytes.
        len: usize,
    },
    /// Guest memory is smaller than the boot layout needs.
    #[error("cannot write to guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// Loads a guest and returns the entry point of vCPU 0.
///
/// `dsdt` has the AML nodes of the devices; the MADT lists `vcpus` CPUs.
pub fn load(
    memory: &GuestMemory,
    kernel: &File,
    initramfs: &[File],
    cmdline: &str,
    vcpus: u8,
    dsdt: &[u8],
) -> Result<Entry, BootError> {
    write_cmdline(memory, cmdline)?;
    let tables = acpi::tables(vcpus, dsdt);
    if tables.len() as u64 > layout::ACPI_END - layout::ACPI {
        return Err(BootError::AcpiTooLarge { len: tables.len() });
    }
    memory.write_slice(&tables, GuestAddress(layout::ACPI))?;

    let kernel = kernel::load(memory, kernel)?;
    let limit = match &kernel.entry {
        Entry::Pvh(_) | Entry::Long(_) => u64::MAX,
        Entry::Linux64 { header, .. } => u64::from(header.initrd_addr_max) + 1,
    };
    let initramfs = initramfs::load(memory, initramfs, kernel.end, limit)?;
    match &kernel.entry {
        Entry::Pvh(_) => pvh::write(memory, initramfs)?,
        Entry::Linux64 { header, .. } => linux64::write(memory, header, initramfs)?,
        Entry::Long(_) => linux64::write_page_tables(memory)?,
    }
    Ok(kernel.entry)
}

fn write_cmdline(memory: &GuestMemory, cmdline: &str) -> Result<(), BootError> {
    let len = cmdline.len();
    if len > layout::CMDLINE_MAX {
        return Err(BootError::CmdlineTooLong { len });
    }
    let bad = cmdline
        .bytes()
        .position(|byte| !(b' '..=b'~').contains(&byte));
    if let Some(at) = bad {
        let byte = cmdline.as_bytes()[at];
        return Err(BootError::CmdlineNotAscii { byte, at });
    }
    memory.write_slice(cmdline.as_bytes(), GuestAddress(layout::CMDLINE))?;
    memory.write_obj(0u8, GuestAddress(layout::CMDLINE + len as u64))?;
    Ok(())
}
