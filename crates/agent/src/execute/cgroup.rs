//! A control group (version 2) for each stage: what its process tree used, and whether the
//! out-of-memory killer took it. Where the kernel has none, a stage goes without.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A stage's group. Removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
    /// Open from the start, so that reading them costs little at a program's end; where the kernel has them.
    cpu_stat: Option<File>,
    memory_peak: Option<File>,
    memory_events: Option<File>,
}

impl Cgroup {
    /// Make `name` below `root`, a mounted cgroup2 file system.
    ///
    /// The whole group dies when memory runs out in it, at `memory_max` bytes: less than the guest
    /// has, so that the agent still finds memory to say so.
    pub fn create(root: &Path, name: &str, memory_max: Option<u64>) -> std::io::Result<Cgroup> {
        // One at a time: a kernel that lacks one refuses the whole line. Without either the group
        // still counts CPU time and confines what `cgroup.kill` reaches.
        for controller in ["+memory", "+cpu"] {
            let _ = fs::write(root.join("cgroup.subtree_control"), controller);
        }
        let path = root.join(name);
        fs::create_dir(&path)?;
        let directory = File::open(&path).inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        })?;
        let open = |file| File::open(path.join(file)).ok();
        let cgroup = Cgroup {
            cpu_stat: open("cpu.stat"),
            memory_peak: open("memory.peak"),
            memory_events: open("memory.events"),
            path,
            directory,
        };
        let _ = cgroup.write("memory.oom.group", "1");
        if let Some(bytes) = memory_max {
            let _ = cgroup.write("memory.max", &bytes.to_string());
        }
        Ok(cgroup)
    }

    /// For CLONE_INTO_CGROUP.
    pub fn as_raw_fd(&self) -> RawFd {
        self.directory.as_raw_fd()
    }

    /// The most memory that the group held at once, in bytes (since Linux 5.19).
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        read(self.memory_peak.as_ref()?)?.trim().parse().ok()
    }

    /// User and system time of everything that ran in the group, in microseconds.
    pub fn cpu_time_us(&self) -> Option<u64> {
        field(&read(self.cpu_stat.as_ref()?)?, "usage_usec")
    }

    /// How many of its processes the out-of-memory killer took, for the group's limit or the guest's.
    pub fn oom_kills(&self) -> Option<u64> {
        field(&read(self.memory_events.as_ref()?)?, "oom_kill")
    }

    fn write(&self, file: &str, value: &str) -> std::io::Result<()> {
        fs::write(self.path.join(file), value)
    }
}

/// What a group's file says now: some hundred bytes at most.
fn read(file: &File) -> Option<String> {
    let mut bytes = vec![0; 4096];
    let length = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.write("cgroup.kill", "1");
        // Nothing runs in it once its init was waited for, but a program may have made groups below.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Whether the out-of-memory killer took a process of a stage: asked before it runs, and at its end.
#[derive(Debug)]
pub struct OomWatch {
    /// The kernel's own count, where the group has none: the kernel adds up all its statistics for it.
    kernel_before: Option<u64>,
}

impl OomWatch {
    /// Before the stage runs, in `cgroup` if it has one.
    pub fn start(cgroup: Option<&Cgroup>) -> Self {
        let group_counts = cgroup.and_then(Cgroup::oom_kills).is_some();
        let kernel_before = (!group_counts).then(kernel_oom_kills).flatten();
        OomWatch { kernel_before }
    }

    /// After the stage has ended.
    pub fn killed(&self, cgroup: Option<&Cgroup>) -> bool {
        match cgroup.and_then(Cgroup::oom_kills) {
            Some(kills) => kills > 0,
            None => kernel_oom_kills()
                .zip(self.kernel_before)
                .is_some_and(|(now, before)| now > before),
        }
    }
}

/// The value of `name` in lines of `name value`.
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

/// Memory that could be given out now, in bytes.
pub fn available_memory() -> Option<u64> {
    meminfo("MemAvailable:")
}

/// What a program may use of what is available: all but a little, with which the agent can still
/// say that it was too much.
pub fn program_memory(available: u64) -> u64 {
    const AT_LEAST: u64 = 4 << 20;
    available
        .saturating_sub((available / 32).max(AT_LEAST))
        .max(AT_LEAST)
}

/// All memory and swap that the kernel has, in bytes.
pub fn total_memory() -> Option<u64> {
    Some(meminfo("MemTotal:")? + meminfo("SwapTotal:").unwrap_or(0))
}

/// A field of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// How many processes the kernel's out-of-memory killer took since boot (since Linux 4.13).
fn kernel_oom_kills() -> Option<u64> {
    field(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

/// Where cgroup2 is mounted.
pub fn find_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "low 1\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), Some(2));
        assert_eq!(field(text, "max"), None);
    }

    #[test]
    fn available_memory_is_less_than_the_address_space() {
        let bytes = available_memory().unwrap();
        assert!(bytes > 1 << 20 && bytes < 1 << 47, "{bytes}");
    }
}
