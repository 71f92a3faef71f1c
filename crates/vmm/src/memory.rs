//! Guest memory: one or two mappings around the MMIO gap below 4 GiB.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, VolatileSlice,
};

use crate::arch::layout;

/// The memory of a guest, indexed by guest-physical address.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// The smallest guest memory in MiB: enough for a small kernel and initramfs.
pub const MIN_MIB: u64 = 32;

/// Guest memory that could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Ask for at least [`MIN_MIB`].
    #[error("{mib} MiB of guest memory are too few: use at least {MIN_MIB} MiB")]
    TooSmall {
        /// The requested size in MiB.
        mib: u64,
    },
    /// Ask for no more than the host has.
    #[error("{mib} MiB of guest memory are more than the host has ({host_mib} MiB)")]
    TooLarge {
        /// The requested size in MiB.
        mib: u64,
        /// The host's memory in MiB.
        host_mib: u64,
    },
    /// mmap or mprotect failed: see RLIMIT_AS and vm.overcommit_memory.
    #[error("mmap of {mib} MiB of guest memory failed: {source}")]
    Map {
        /// The requested size in MiB.
        mib: u64,
        /// The error of the call.
        source: MmapRegionError,
    },
}

/// The mapping's name in `/proc/PID/smaps`, where the host's kernel has CONFIG_ANON_VMA_NAME.
const NAME: &std::ffi::CStr = c"guest-memory";

/// Maps `mib` MiB of zeroed guest memory that no pages back yet.
///
/// Each first touch of a page is an exit and a fault, so the mapping has MADV_HUGEPAGE: a boot then faults 2 MiB
/// at a time.
pub fn allocate(mib: u64) -> Result<GuestMemory, MemoryError> {
    check_size(mib)?;
    let memory = regions(mib << 20).map_err(|source| MemoryError::Map { mib, source })?;
    for region in memory.iter() {
        advise(region);
        keep_out_of_core_dumps(region);
    }
    Ok(memory)
}

/// Reserves address space (PROT_NONE) for `mib` MiB of guest memory. No access is possible before
/// [`crate::snapshot::map_private`] has mapped a snapshot's memory over it.
pub fn reserve(mib: u64) -> Result<GuestMemory, MemoryError> {
    check_size(mib)?;
    let map = |source| MemoryError::Map { mib, source };
    let memory = regions(mib << 20).map_err(map)?;
    for region in memory.iter() {
        let (start, len) = (region.as_ptr(), region.size());
        // SAFETY: the range is that of a region that was just mapped and that no code has accessed.
        if unsafe { libc::mprotect(start.cast(), len, libc::PROT_NONE) } != 0 {
            return Err(map(MmapRegionError::Mmap(io::Error::last_os_error())));
        }
    }
    Ok(memory)
}

fn check_size(mib: u64) -> Result<(), MemoryError> {
    if mib < MIN_MIB {
        return Err(MemoryError::TooSmall { mib });
    }
    let host_mib = host_memory_mib();
    if mib > host_mib {
        return Err(MemoryError::TooLarge { mib, host_mib });
    }
    Ok(())
}

/// A memfd whose size is sealed, so that access to a mapping of it can never raise SIGBUS.
pub(crate) fn memfd(size: u64) -> Result<File, rustix::io::Errno> {
    let fd = rustix::fs::memfd_create(
        "guest-memory",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    rustix::fs::ftruncate(&fd, size)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW;
    rustix::fs::fcntl_add_seals(fd.as_fd(), seals)?;
    Ok(fd.into())
}

/// A memfd with these bytes, sealed against writing and resizing.
pub(crate) fn sealed(bytes: &[u8]) -> io::Result<File> {
    let file = memfd(bytes.len() as u64)?;
    file.write_all_at(bytes, 0)?;
    rustix::fs::fcntl_add_seals(file.as_fd(), SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file)
}

/// The regions of `size` bytes of anonymous memory.
fn regions(size: u64) -> Result<GuestMemory, MmapRegionError> {
    let mut regions = Vec::with_capacity(2);
    for (base, len) in layout::ram_ranges(size) {
        let mapping = MmapRegionBuilder::new(len as usize)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .build()?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(base))
            .expect("a range of the layout ends below 2^64");
        regions.push(region);
    }
    Ok(GuestMemory::from_regions(regions).expect("the layout's ranges are sorted and apart"))
}

/// Both calls are hints, so their errors do not matter.
fn advise(region: &GuestRegionMmap) {
    let (start, len) = (region.as_ptr(), region.size());
    // SAFETY: the range is that of the region's mapping; neither call changes content.
    unsafe {
        libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE);
        libc::prctl(
            libc::PR_SET_VMA,
            libc::PR_SET_VMA_ANON_NAME,
            start,
            len,
            NAME.as_ptr(),
        );
    }
}

/// Keeps guest memory out of a worker's core dump (MADV_DONTDUMP). Mapping a file over a region undoes this.
pub(crate) fn keep_out_of_core_dumps(region: &GuestRegionMmap) {
    // SAFETY: the range is that of the region's mapping, and the call changes no content. It cannot fail for an
    // existing mapping.
    unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_DONTDUMP) };
}

/// The size of the guest's memory in bytes.
pub fn size(memory: &GuestMemory) -> u64 {
    memory.iter().map(|region| region.len()).sum()
}

/// Backs a range with pages in one call (MADV_POPULATE_WRITE), so that a long read into it does not fault page by
/// page. A hint: if it fails, pages are faulted in on access.
pub fn populate(memory: &GuestMemory, start: GuestAddress, len: u64) {
    if len == 0 {
        return;
    }
    for slice in memory.get_slices(start, len as usize).flatten() {
        populate_slice(&slice);
    }
}

fn populate_slice(slice: &VolatileSlice) {
    let guard = slice.ptr_guard_mut();
    let address = guard.as_ptr() as usize;
    let start = address & !(PAGE - 1);
    let end = (address + slice.len()).next_multiple_of(PAGE);
    // SAFETY: the range lies in the mapping of a region, which starts and ends at page bounds and
    // lives as long as the slice; populating changes no content.
    unsafe {
        libc::madvise(
            start as *mut libc::c_void,
            end - start,
            libc::MADV_POPULATE_WRITE,
        );
    }
}

/// The page size of x86-64, in bytes.
pub const PAGE: usize = 4096;

fn host_memory_mib() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) >> 20
}

/// True if each region has the VmFlag "dd" (do not dump).
#[cfg(test)]
pub(crate) fn kept_out_of_dumps(memory: &GuestMemory) -> bool {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    memory.iter().all(|region| {
        let start = format!("{:x}-", region.as_ptr() as usize);
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = lines
            .find_map(|line| line.strip_prefix("VmFlags:"))
            .unwrap();
        flags.split_whitespace().any(|flag| flag == "dd")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn less_than_the_minimum_is_refused() {
        let error = allocate(31).unwrap_err();
        assert_eq!(
            error.to_string(),
            "31 MiB of guest memory are too few: use at least 32 MiB"
        );
    }

    #[test]
    fn more_than_the_host_has_is_refused() {
        assert!(matches!(
            allocate(1 << 40),
            Err(MemoryError::TooLarge { .. })
        ));
    }

    #[test]
    fn memory_is_zeroed_writable_and_of_the_requested_size() {
        let memory = allocate(64).unwrap();
        assert_eq!(size(&memory), 64 << 20);
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1234)).unwrap(), 0);
        memory
            .write_obj(7u64, GuestAddress((64 << 20) - 8))
            .unwrap();
        assert!(memory.write_obj(7u64, GuestAddress(64 << 20)).is_err());
    }

    #[test]
    fn populated_pages_are_resident() {
        let memory = allocate(32).unwrap();
        populate(&memory, GuestAddress(0x10_0010), 3 * 4096);
        let start = memory.get_host_address(GuestAddress(0x10_0000)).unwrap();
        let mut resident = [0u8; 4];
        // SAFETY: the range is mapped, and the answer has a byte for each of its pages.
        let failed = unsafe { libc::mincore(start.cast(), 4 * PAGE, resident.as_mut_ptr()) };
        assert_eq!((failed, resident), (0, [1; 4]));
    }

    #[test]
    fn memory_is_kept_out_of_core_dumps() {
        assert!(kept_out_of_dumps(&allocate(32).unwrap()));
    }
}
