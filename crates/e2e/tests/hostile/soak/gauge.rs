//! The resources that a server holds at one moment.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cloude_e2e::host;

/// The names of the gauges, in the order of [`Gauges::values`].
pub const NAMES: [&str; 7] = [
    "memory of clouded (MiB)",
    "descriptors of clouded",
    "processes below clouded",
    "TAP devices",
    "cgroups",
    "namespaces",
    "memory that the host has free (MiB)",
];

/// One reading.
#[derive(Clone, Copy, Debug)]
pub struct Gauges {
    values: [f64; NAMES.len()],
}

/// Indexes of the gauges that are no counts.
const MEMORY: usize = 0;
const FREE: usize = NAMES.len() - 1;

impl Gauges {
    /// Reads the gauges of the `clouded` with this process id.
    pub fn read(clouded: u32) -> Self {
        let links = host::links();
        let taps = links.iter().filter(|name| is_tap(name)).count();
        let values = [
            mib(&format!("/proc/{clouded}/status"), "VmRSS:"),
            entries(&format!("/proc/{clouded}/fd")) as f64,
            host::children_of(clouded).len() as f64,
            taps as f64,
            directories(Path::new("/sys/fs/cgroup")) as f64,
            namespaces() as f64,
            mib("/proc/meminfo", "MemAvailable:"),
        ];
        Gauges { values }
    }

    /// The values, in the order of [`NAMES`].
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// True if all counts are equal. Memory is no count.
    pub fn same_counts(&self, other: &Gauges) -> bool {
        (0..NAMES.len())
            .filter(|index| ![MEMORY, FREE].contains(index))
            .all(|index| self.values[index] == other.values[index])
    }

    /// Panics if a count is larger than it was, or the memory of `clouded` by more than this.
    pub fn assert_no_more_than(&self, before: &Gauges, growth_mib: f64) {
        for (index, name) in NAMES.iter().enumerate() {
            let (now, then) = (self.values[index], before.values[index]);
            let allowed = if index == MEMORY { growth_mib } else { 0.0 };
            assert!(
                index == FREE || now <= then + allowed,
                "{name}: {then:.0} before, {now:.0} after"
            );
        }
    }
}

impl fmt::Display for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in NAMES.iter().zip(self.values).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name} {value:.0}")?;
        }
        Ok(())
    }
}

/// A TUN/TAP device has the attribute `tun_flags` (drivers/net/tun.c).
fn is_tap(name: &str) -> bool {
    Path::new("/sys/class/net")
        .join(name)
        .join("tun_flags")
        .exists()
}

/// 0 for a process that has ended.
fn mib(path: &str, key: &str) -> f64 {
    host::kib(path, key).unwrap_or(0.0) / 1024.0
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

fn directories(path: &Path) -> usize {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + directories(&entry.path()))
        .sum()
}

/// Different namespaces of all processes.
fn namespaces() -> usize {
    let mut found = HashSet::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0;
    };
    for process in processes.flatten() {
        if !process.file_name().as_bytes()[0].is_ascii_digit() {
            continue;
        }
        let links = fs::read_dir(process.path().join("ns"));
        for link in links.into_iter().flatten().flatten() {
            // `net:[4026531840]`. Links such as `pid_for_children` name the same namespaces.
            if let Ok(namespace) = fs::read_link(link.path()) {
                found.insert(namespace);
            }
        }
    }
    found.len()
}
