//! What processes hold for themselves.

use std::path::PathBuf;

/// A `cloude-vmm` process.
pub struct Worker(PathBuf);

impl Worker {
    /// Pages of its own, swapped ones included (proc(5), smaps_rollup); none if it has ended. `Private_*` there
    /// counts also pages of the template that this process alone happens to map.
    pub fn private_mib(&self) -> Option<f64> {
        let text = std::fs::read_to_string(self.0.join("smaps_rollup")).ok()?;
        let kib: u64 = text
            .lines()
            .filter(|line| line.starts_with("Anonymous:") || line.starts_with("Swap:"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        Some(kib as f64 / 1024.0)
    }

    /// Is it gone?
    pub fn has_ended(&self) -> bool {
        !self.0.exists()
    }
}

/// The workers of a `clouded`.
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

/// `MemAvailable` of proc(5), meminfo.
pub fn available_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .unwrap();
    let kib: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
    kib / 1024.0
}
