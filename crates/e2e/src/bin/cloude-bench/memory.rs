//! Private memory and page faults of worker processes, and KVM's counters of their VMs.

use std::path::PathBuf;

use cloude_e2e::host;

/// A `cloude-vmm` process.
pub struct Worker(PathBuf);

impl Worker {
    /// Anonymous and swapped memory in MiB (proc(5), smaps_rollup); `None` after the process ended. `Private_*`
    /// would also count pages of the template that only this process maps at the moment.
    pub fn private_mib(&self) -> Option<f64> {
        let text = std::fs::read_to_string(self.0.join("smaps_rollup")).ok()?;
        let kib: u64 = text
            .lines()
            .filter(|line| line.starts_with("Anonymous:") || line.starts_with("Swap:"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        Some(kib as f64 / 1024.0)
    }

    /// A debugfs counter of the process's VM, summed over its vCPUs (virt/kvm/kvm_main.c, kvm_create_vm_debugfs);
    /// `None` if debugfs is not mounted or the VM has ended.
    pub fn counted(&self, name: &str) -> Option<f64> {
        let prefix = format!("{}-", self.0.file_name()?.to_str()?);
        let vm = std::fs::read_dir("/sys/kernel/debug/kvm")
            .ok()?
            .flatten()
            .find(|vm| vm.file_name().to_string_lossy().starts_with(&prefix))?;
        let text = std::fs::read_to_string(vm.path().join(name)).ok()?;
        text.trim().parse().ok()
    }

    /// Minor page faults (proc(5), `minflt` of stat) of the vCPU threads, for which the guest waited, and of all
    /// other threads; `None` after the process ended. The kernel counts each page that `MADV_POPULATE_WRITE` copies
    /// as a fault of the calling thread.
    pub fn minor_faults(&self) -> Option<(f64, f64)> {
        let (mut vcpus, mut others) = (0.0, 0.0);
        for thread in std::fs::read_dir(self.0.join("task")).ok()?.flatten() {
            let text = std::fs::read_to_string(thread.path().join("stat")).ok()?;
            // The name may contain `)`. After it: state, ppid, pgrp, session, tty_nr, tpgid, flags, minflt.
            let (name, fields) = text.rsplit_once(')')?;
            let faults: f64 = fields.split_whitespace().nth(7)?.parse().ok()?;
            match name.contains("(vcpu") {
                true => vcpus += faults,
                false => others += faults,
            }
        }
        Some((vcpus, others))
    }

    /// True once the process was reaped.
    pub fn has_ended(&self) -> bool {
        !self.0.exists()
    }
}

/// The worker processes of the `clouded` with this process id.
pub fn workers(clouded: u32) -> Vec<Worker> {
    let children = std::fs::read_dir(format!("/proc/{clouded}/task"))
        .unwrap()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .collect::<String>();
    children
        .split_whitespace()
        .map(|id| Worker(PathBuf::from(format!("/proc/{id}"))))
        .filter(|worker| {
            std::fs::read_to_string(worker.0.join("cmdline"))
                .is_ok_and(|line| line.contains("cloude-vmm"))
        })
        .collect()
}

/// `MemAvailable` of /proc/meminfo in MiB.
pub fn available_mib() -> f64 {
    host::kib("/proc/meminfo", "MemAvailable:").unwrap() / 1024.0
}
