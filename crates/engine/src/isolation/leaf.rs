//! A worker's cgroup: its limits, and its removal.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloude_vmm::control::CgroupEntry;

/// The limits of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory that the worker may use, in bytes. It gets no swap.
    pub memory: u64,
    /// Threads.
    pub threads: u32,
    /// Its share of a busy host, and the CPUs that it may use at once.
    pub vcpus: u8,
}

/// Memory of a worker besides its guest's: code, heap, device buffers, and the state of KVM.
const WORKER: u64 = 64 << 20;
/// Page tables of the worker and of the guest, and KVM's arrays for each page, take less than this part of guest memory.
const PER_PAGE: u64 = 32;
/// The event loop, one thread of KVM's, and some to spare.
const OTHER_THREADS: u32 = 8;

impl Limits {
    /// The limits of a VM. One that will be saved needs its memory twice: once for the guest, and once for the
    /// snapshot, a memfd.
    pub fn of(vcpus: u8, memory_mib: u64, saved: bool) -> Self {
        let guest = memory_mib << 20;
        let copies = if saved { 2 } else { 1 };
        Limits {
            memory: guest * copies + guest / PER_PAGE + WORKER,
            threads: u32::from(vcpus) + OTHER_THREADS,
            vcpus,
        }
    }

    /// CPU time in microseconds for each period of [`Limits::PERIOD`]: one CPU for each vCPU, and one for the event
    /// loop, so that a device never stops a vCPU.
    pub(super) fn quota(&self) -> u64 {
        (u64::from(self.vcpus) + 1) * Self::PERIOD
    }

    /// Microseconds.
    pub(super) const PERIOD: u64 = 100_000;
}

/// The cgroup of one worker: a directory, or one in each hierarchy of version 1. Dropping it kills what is left in it
/// and removes it.
#[derive(Debug)]
pub struct Leaf {
    directories: Vec<PathBuf>,
    /// Version 2: a process is created in the directory, and killed by a file.
    unified: bool,
}

impl Leaf {
    pub(super) fn new(directories: Vec<PathBuf>, unified: bool) -> Self {
        Leaf {
            directories,
            unified,
        }
    }

    /// Where [`cloude_vmm::control::spawn`] puts the worker.
    pub fn entry(&self) -> io::Result<CgroupEntry> {
        if self.unified {
            let directory = self.directories.first().map(File::open).transpose()?;
            return Ok(CgroupEntry {
                directory,
                procs: Vec::new(),
            });
        }
        let open = |directory: &PathBuf| File::options().write(true).open(directory.join(PROCS));
        Ok(CgroupEntry {
            directory: None,
            procs: self
                .directories
                .iter()
                .map(open)
                .collect::<io::Result<_>>()?,
        })
    }
}

impl Leaf {
    /// True if the kernel has killed a process of the cgroup for reaching its memory limit.
    pub fn was_out_of_memory(&self) -> bool {
        // Version 2, and version 1 since Linux 4.13.
        let files = ["memory.events", "memory.oom_control"];
        let paths = self
            .directories
            .iter()
            .flat_map(|directory| files.map(|file| directory.join(file)));
        let mut texts = paths.filter_map(|path| std::fs::read_to_string(path).ok());
        texts.any(|text| {
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count.is_some_and(|count| count.trim() != "0")
        })
    }
}

const PROCS: &str = "cgroup.procs";

/// A dead process leaves its cgroup shortly after it was waited for.
const POLLS: u32 = 200;
const POLL: Duration = Duration::from_millis(5);

impl Drop for Leaf {
    fn drop(&mut self) {
        for directory in &self.directories {
            if let Err(error) = remove(directory, self.unified) {
                tracing::warn!(cgroup = %directory.display(), %error, "removing a worker's cgroup");
            }
        }
    }
}

fn remove(directory: &Path, unified: bool) -> io::Result<()> {
    let mut polls = 0;
    loop {
        match std::fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && polls < POLLS => {}
            removed => return removed,
        }
        kill(directory, unified);
        polls += 1;
        std::thread::sleep(POLL);
    }
}

/// Kills every process of the cgroup. What fails here fails to remove the cgroup, which is reported.
fn kill(directory: &Path, unified: bool) {
    if unified && std::fs::write(directory.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let processes = std::fs::read_to_string(directory.join(PROCS)).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_that_is_saved_may_hold_its_memory_twice() {
        let (fork, template) = (Limits::of(2, 512, false), Limits::of(2, 512, true));
        assert_eq!(fork.memory, (512 + 16 + 64) << 20);
        assert_eq!(template.memory - fork.memory, 512 << 20);
        assert_eq!((fork.threads, fork.quota()), (10, 300_000));
    }
}
