//! The working set: the pages that one fork has touched. Later forks of the template prefault them.
//!
//! The first write to a page copies it, the first read maps it. Each is an exit and a page fault that the vCPU waits
//! for, and all forks of a template touch nearly the same pages until their program answers. The list does not change
//! what a guest sees: a page has the template's content whether it is on the list or not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use kvm_bindings::{KVMIO, kvm_pre_fault_memory};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use crate::memory::{GuestMemory, PAGE};

// Linux 6.12, include/uapi/linux/kvm.h.
ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);

/// The most bytes that are read of a list file.
const MAX_LIST_FILE: usize = 1 << 20;

/// The pages that a fork has touched, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// Pages that it has written.
    pub written: Vec<PageRange>,
    /// Pages that it has only read, and neighbours that the host mapped with them (fault-around).
    pub read: Vec<PageRange>,
}

/// Consecutive pages, numbered as in the memory file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRange {
    /// The first page: offset in the memory file divided by 4096.
    pub first: u32,
    /// The number of pages, 1 or more.
    pub count: u32,
}

/// A working set that cannot be read or prefaulted.
#[derive(Debug, thiserror::Error)]
pub enum WorkingSetError {
    /// Reading failed: the file is not the /proc/PID/pagemap of this process.
    #[error("cannot read /proc/PID/pagemap: {0}")]
    Pagemap(#[source] io::Error),
    /// Reading the list file failed.
    #[error("cannot read the working set file: {0}")]
    Read(#[source] io::Error),
    /// The list is damaged.
    #[error("the working set does not parse: {0}")]
    Format(#[from] postcard::Error),
    /// The list is damaged: a list of touched pages has each page once.
    #[error(
        "the working set does not parse: the range at page {first} is empty, or not after the one before it"
    )]
    Order {
        /// The first page of the range.
        first: u32,
    },
    /// The list belongs to a VM with another memory size.
    #[error("the working set has pages {first} to {end}, which are not in one memory region")]
    Outside {
        /// The first page.
        first: u64,
        /// The page after the last.
        end: u64,
    },
    /// MADV_POPULATE_WRITE failed: most often the host or the worker's cgroup has no memory left.
    #[error("cannot copy the pages of the working set: {0}")]
    Copy(#[source] io::Error),
}

impl WorkingSet {
    /// The pages touched so far in `memory`, a private mapping of a memory file. `pagemap` is the `/proc/PID/pagemap`
    /// of this process, which the host opens because a worker opens no path.
    pub fn of(memory: &GuestMemory, pagemap: &File) -> Result<Self, WorkingSetError> {
        let mut set = Self::default();
        let mut page = 0;
        let mut entries = vec![0; ENTRIES * ENTRY];
        for region in memory.iter() {
            let start = region.as_ptr() as usize / PAGE;
            let count = region.size() / PAGE;
            for chunk in (0..count).step_by(ENTRIES) {
                let bytes = &mut entries[..ENTRIES.min(count - chunk) * ENTRY];
                let at = (start + chunk) * ENTRY;
                pagemap
                    .read_exact_at(bytes, at as u64)
                    .map_err(WorkingSetError::Pagemap)?;
                for entry in bytes.chunks_exact(ENTRY) {
                    set.add(page, u64::from_le_bytes(std::array::from_fn(|i| entry[i])));
                    page += 1;
                }
            }
        }
        Ok(set)
    }

    fn add(&mut self, page: u32, entry: u64) {
        if entry & (PRESENT | SWAPPED) == 0 {
            return;
        }
        let runs = match entry & FILE {
            0 => &mut self.written,
            _ => &mut self.read,
        };
        match runs.last_mut() {
            Some(run) if run.first + run.count == page => run.count += 1,
            _ => runs.push(PageRange {
                first: page,
                count: 1,
            }),
        }
    }

    /// Number of pages that were written.
    pub fn written_pages(&self) -> u64 {
        pages(&self.written)
    }

    /// Number of pages that were only read.
    pub fn read_pages(&self) -> u64 {
        pages(&self.read)
    }

    /// Encodes the list (postcard). Fails only if memory runs out.
    pub fn encode(&self) -> Result<Vec<u8>, WorkingSetError> {
        Ok(postcard::to_stdvec(self)?)
    }

    /// Reads a list from a file or memfd.
    pub fn open(file: &File) -> Result<Self, WorkingSetError> {
        let read = WorkingSetError::Read;
        let len = file
            .metadata()
            .map_err(read)?
            .len()
            .min(MAX_LIST_FILE as u64);
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(read)?;
        let set: Self = postcard::from_bytes(&bytes)?;
        check_order(&set.written)?;
        check_order(&set.read)?;
        Ok(set)
    }

    /// Maps the pages that were only read into the guest (KVM_PRE_FAULT_MEMORY, if KVM has it). They stay shared with
    /// the template, so that a waiting fork needs no memory for them. Call it after the restore of memory and vCPU.
    pub fn map_read(&self, memory: &GuestMemory, vcpu: &VcpuFd) -> Result<(), WorkingSetError> {
        map_all(&self.read, memory, vcpu)
    }

    /// Copies the pages that were written (MADV_POPULATE_WRITE), then maps the copies into the guest
    /// (KVM_PRE_FAULT_MEMORY, if KVM has it). Call it after the restore of memory and vCPU.
    ///
    /// Mapping a page before it is copied would cost two exits at the guest's first write: one copies the page, which
    /// removes the mapping, and one maps the copy.
    pub fn copy_written(&self, memory: &GuestMemory, vcpu: &VcpuFd) -> Result<(), WorkingSetError> {
        for run in &self.written {
            let (host, _) = place(memory, *run)?;
            copy(host, run.count as usize)?;
        }
        map_all(&self.written, memory, vcpu)
    }
}

/// Each page is there once at most: a short list of large ranges would prefault the whole memory again and again.
fn check_order(runs: &[PageRange]) -> Result<(), WorkingSetError> {
    let mut end = 0;
    for run in runs {
        let first = u64::from(run.first);
        if run.count == 0 || first < end {
            return Err(WorkingSetError::Order { first: run.first });
        }
        end = first + u64::from(run.count);
    }
    Ok(())
}

fn pages(runs: &[PageRange]) -> u64 {
    runs.iter().map(|run| u64::from(run.count)).sum()
}

/// Bytes per pagemap entry, and entries per read.
const ENTRY: usize = 8;
const ENTRIES: usize = 8192;

// Linux, Documentation/admin-guide/mm/pagemap.rst. In a private file mapping, a copied page lacks the FILE bit.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE: u64 = 1 << 61;

/// The host address and the guest-physical address of a range.
fn place(memory: &GuestMemory, run: PageRange) -> Result<(*mut u8, u64), WorkingSetError> {
    let (first, end) = (
        u64::from(run.first),
        u64::from(run.first) + u64::from(run.count),
    );
    let mut base = 0;
    for region in memory.iter() {
        let pages = region.size() as u64 / PAGE as u64;
        if (base..base + pages).contains(&first) && end <= base + pages {
            let offset = (first - base) * PAGE as u64;
            // In range: checked above.
            let host = region.as_ptr().wrapping_add(offset as usize);
            return Ok((host, region.start_addr().0 + offset));
        }
        base += pages;
    }
    Err(WorkingSetError::Outside { first, end })
}

fn copy(host: *mut u8, pages: usize) -> Result<(), WorkingSetError> {
    if pages == 0 {
        return Ok(());
    }
    // SAFETY: the range lies in a region's mapping (`place`), and populating changes no content.
    let result = unsafe { libc::madvise(host.cast(), pages * PAGE, libc::MADV_POPULATE_WRITE) };
    match result {
        0 => Ok(()),
        _ => Err(WorkingSetError::Copy(io::Error::last_os_error())),
    }
}

/// Maps the pages of `runs` into the guest, if KVM can.
fn map_all(runs: &[PageRange], memory: &GuestMemory, vcpu: &VcpuFd) -> Result<(), WorkingSetError> {
    for run in runs {
        let (_, guest) = place(memory, *run)?;
        if !map(vcpu, guest, u64::from(run.count) * PAGE as u64) {
            break;
        }
    }
    Ok(())
}

/// Maps a range into the guest. Returns false if KVM cannot, which only costs page faults later.
fn map(vcpu: &VcpuFd, guest: u64, size: u64) -> bool {
    let mut range = kvm_pre_fault_memory {
        gpa: guest,
        size,
        ..Default::default()
    };
    while range.size > 0 {
        // SAFETY: the argument is the structure that this ioctl reads and writes.
        let result = unsafe { ioctl_with_mut_ref(vcpu, KVM_PRE_FAULT_MEMORY(), &mut range) };
        // KVM removes the part that it mapped before a signal from the range.
        if result != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::memory::map_private;
    use super::*;
    use crate::memory;
    use vm_memory::{Bytes, GuestAddress};

    fn run(first: u32, count: u32) -> PageRange {
        PageRange { first, count }
    }

    fn fork_of(file: &File) -> GuestMemory {
        let fork = memory::reserve(32).unwrap();
        map_private(&fork, file).unwrap();
        fork
    }

    fn of(memory: &GuestMemory) -> WorkingSet {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        WorkingSet::of(memory, &pagemap).unwrap()
    }

    #[test]
    fn written_and_read_pages_are_distinguished() {
        let template = memory::memfd(32 << 20).unwrap();
        let fork = fork_of(&template);
        assert_eq!(of(&fork), WorkingSet::default());
        for page in [7u64, 8, 9, 200] {
            fork.write_obj(1u8, GuestAddress(page * 4096)).unwrap();
        }
        let _: u8 = fork.read_obj(GuestAddress(100 * 4096)).unwrap();
        let set = of(&fork);
        assert_eq!(set.written, [run(7, 3), run(200, 1)]);
        assert_eq!(set.written_pages(), 4);
        let covers = |run: &PageRange| (run.first..run.first + run.count).contains(&100);
        assert!(set.read.iter().any(covers), "{set:?}");
    }

    #[test]
    fn a_list_survives_its_file_and_damage_is_an_error() {
        let set = WorkingSet {
            written: vec![run(1, 2), run(70_000, 1)],
            read: vec![run(3, 1)],
        };
        let bytes = set.encode().unwrap();
        let file = memory::sealed(&bytes).unwrap();
        assert_eq!(WorkingSet::open(&file).unwrap(), set);
        let cut = memory::sealed(&bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(
            WorkingSet::open(&cut),
            Err(WorkingSetError::Format(_))
        ));
    }

    #[test]
    fn a_list_that_repeats_a_page_is_refused() {
        for written in [
            vec![run(0, 8192); 1000],
            vec![run(7, 2), run(8, 1)],
            vec![run(7, 0)],
        ] {
            let set = WorkingSet {
                written,
                read: vec![],
            };
            let file = memory::sealed(&set.encode().unwrap()).unwrap();
            let opened = WorkingSet::open(&file);
            assert!(
                matches!(opened, Err(WorkingSetError::Order { .. })),
                "{opened:?}"
            );
        }
    }

    fn vcpu() -> VcpuFd {
        let vm = crate::probe::open_kvm().unwrap().create_vm().unwrap();
        vm.create_vcpu(0).unwrap()
    }

    fn set() -> WorkingSet {
        WorkingSet {
            written: vec![run(7, 3), run(200, 8)],
            read: vec![run(400, 2)],
        }
    }

    #[test]
    fn read_pages_are_mapped_and_not_copied() {
        let fork = fork_of(&memory::memfd(32 << 20).unwrap());
        set().map_read(&fork, &vcpu()).unwrap();
        assert_eq!(of(&fork).written_pages(), 0);
    }

    #[test]
    fn written_pages_are_copied_with_their_content() {
        let template = memory::memfd(32 << 20).unwrap();
        template.write_all_at(b"seven", 7 * 4096).unwrap();
        let fork = fork_of(&template);
        set().copy_written(&fork, &vcpu()).unwrap();
        assert_eq!(of(&fork).written, set().written);
        let mut content = [0; 5];
        fork.read_slice(&mut content, GuestAddress(7 * 4096))
            .unwrap();
        assert_eq!(&content, b"seven");
    }

    #[test]
    fn pages_outside_the_memory_are_refused() {
        let fork = fork_of(&memory::memfd(32 << 20).unwrap());
        let vcpu = vcpu();
        for bad in [run(8192, 1), run(8191, 2), run(u32::MAX, u32::MAX)] {
            let set = WorkingSet {
                written: vec![bad],
                read: vec![bad],
            };
            for result in [set.copy_written(&fork, &vcpu), set.map_read(&fork, &vcpu)] {
                let error = result.unwrap_err();
                assert!(matches!(error, WorkingSetError::Outside { .. }), "{error}");
            }
        }
    }
}
