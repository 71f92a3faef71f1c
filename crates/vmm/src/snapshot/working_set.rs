//! The working set: the pages that one fork has touched, so that the next fork has them before it runs.
//!
//! The host copies each page at a fork's first write to it, and maps each page at its first read. Each is
//! an exit and a page fault that the vCPU waits for, and every fork of a template touches nearly the same
//! pages until its program answers. The list changes nothing that a guest can see: every page has the
//! template's content, whether it is on the list or not.

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

/// More than the list of a fork has; a longer one is not taken.
const LONGEST: usize = 1 << 20;

/// Pages by what a fork did with them, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// Those that it wrote to.
    pub written: Vec<Run>,
    /// Those that it only read, with neighbours that the host mapped along with them.
    pub read: Vec<Run>,
}

/// Pages of the memory one behind the other, counted as in the file that the memory is saved in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The first, in pages of 4 KiB.
    pub first: u32,
    /// How many: 1 or more.
    pub count: u32,
}

/// A list of pages that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum WorkingSetError {
    /// The file is not this process's /proc/PID/pagemap.
    #[error("the page map cannot be read: {0}")]
    Pagemap(#[source] io::Error),
    /// The list cannot be read.
    #[error("the list of pages cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The list is damaged, or of something else.
    #[error("the list of pages does not parse: {0}")]
    Format(#[from] postcard::Error),
    /// The list is of another machine.
    #[error("the list has pages {first} to {last}, which are not of one stretch of the memory")]
    Outside {
        /// The first.
        first: u64,
        /// The one behind the last.
        last: u64,
    },
    /// The host does not copy the pages: it has no memory left.
    #[error("the pages cannot be copied: {0}")]
    Copy(#[source] io::Error),
}

impl WorkingSet {
    /// What a fork has touched so far. `pagemap` is this process's own `/proc/PID/pagemap`, opened by
    /// whoever may open paths.
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
            _ => runs.push(Run {
                first: page,
                count: 1,
            }),
        }
    }

    /// How many pages were written to.
    pub fn written_pages(&self) -> u64 {
        pages(&self.written)
    }

    /// How many pages were only read.
    pub fn read_pages(&self) -> u64 {
        pages(&self.read)
    }

    /// The list as bytes. Fails only for want of memory.
    pub fn encode(&self) -> Result<Vec<u8>, WorkingSetError> {
        Ok(postcard::to_stdvec(self)?)
    }

    /// The list that a file, or memfd, is.
    pub fn open(file: &File) -> Result<Self, WorkingSetError> {
        let read = WorkingSetError::Read;
        let len = file.metadata().map_err(read)?.len().min(LONGEST as u64);
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(read)?;
        Ok(postcard::from_bytes(&bytes)?)
    }

    /// Has KVM map the pages that were only read, where it can. They stay the template's, so that a fork that
    /// waits takes no memory for them. The memory has been mapped, and the vCPU has its state.
    pub fn map_read(&self, memory: &GuestMemory, vcpu: &VcpuFd) -> Result<(), WorkingSetError> {
        map_all(&self.read, memory, vcpu)
    }

    /// Copies the pages that were written to, and has KVM map the copies where it can. The memory has been
    /// mapped, and the vCPU has its state.
    ///
    /// KVM maps no page of these before its copy is there: the guest's write to it would exit to have it
    /// copied, which removes the mapping, and exit again to have the copy mapped.
    pub fn copy_written(&self, memory: &GuestMemory, vcpu: &VcpuFd) -> Result<(), WorkingSetError> {
        for run in &self.written {
            let (host, _) = place(memory, *run)?;
            copy(host, run.count as usize)?;
        }
        map_all(&self.written, memory, vcpu)
    }
}

fn pages(runs: &[Run]) -> u64 {
    runs.iter().map(|run| u64::from(run.count)).sum()
}

/// How many bytes an entry of a page map has, and how many entries are read at once.
const ENTRY: usize = 8;
const ENTRIES: usize = 8192;

// Linux, Documentation/admin-guide/mm/pagemap.rst. Of a private mapping of a file, the pages that were copied
// are no file's.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE: u64 = 1 << 61;

/// Where a run lies in this process and in the guest.
fn place(memory: &GuestMemory, run: Run) -> Result<(*mut u8, u64), WorkingSetError> {
    let (first, last) = (
        u64::from(run.first),
        u64::from(run.first) + u64::from(run.count),
    );
    let mut base = 0;
    for region in memory.iter() {
        let pages = region.size() as u64 / PAGE as u64;
        if (base..base + pages).contains(&first) && last <= base + pages {
            let offset = (first - base) * PAGE as u64;
            // Within the region, as was just checked.
            let host = region.as_ptr().wrapping_add(offset as usize);
            return Ok((host, region.start_addr().0 + offset));
        }
        base += pages;
    }
    Err(WorkingSetError::Outside { first, last })
}

fn copy(host: *mut u8, pages: usize) -> Result<(), WorkingSetError> {
    if pages == 0 {
        return Ok(());
    }
    // SAFETY: the range is within a region's mapping (`place`); populating changes no content.
    let result = unsafe { libc::madvise(host.cast(), pages * PAGE, libc::MADV_POPULATE_WRITE) };
    match result {
        0 => Ok(()),
        _ => Err(WorkingSetError::Copy(io::Error::last_os_error())),
    }
}

/// Has KVM map the pages of `runs`, where it can.
fn map_all(runs: &[Run], memory: &GuestMemory, vcpu: &VcpuFd) -> Result<(), WorkingSetError> {
    for run in runs {
        let (_, guest) = place(memory, *run)?;
        if !map(vcpu, guest, u64::from(run.count) * PAGE as u64) {
            break;
        }
    }
    Ok(())
}

/// Has KVM map a range in the guest; false where it cannot, which only costs the guest page faults.
fn map(vcpu: &VcpuFd, guest: u64, size: u64) -> bool {
    let mut range = kvm_pre_fault_memory {
        gpa: guest,
        size,
        ..Default::default()
    };
    while range.size > 0 {
        // SAFETY: the argument is the structure that this ioctl reads and writes.
        let result = unsafe { ioctl_with_mut_ref(vcpu, KVM_PRE_FAULT_MEMORY(), &mut range) };
        // What it did before a signal came is taken off the range.
        if result != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use vm_memory::{Bytes, GuestAddress};

    fn run(first: u32, count: u32) -> Run {
        Run { first, count }
    }

    fn fork_of(file: &File) -> GuestMemory {
        let fork = memory::reserve(32).unwrap();
        memory::map_private(&fork, file).unwrap();
        fork
    }

    fn of(memory: &GuestMemory) -> WorkingSet {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        WorkingSet::of(memory, &pagemap).unwrap()
    }

    #[test]
    fn what_was_written_and_what_was_read_is_told_apart() {
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
        let covers = |run: &Run| (run.first..run.first + run.count).contains(&100);
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
    fn pages_that_were_read_are_mapped_and_not_copied() {
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
