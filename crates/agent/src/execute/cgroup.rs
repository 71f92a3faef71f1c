//! A cgroup v2 for each stage: CPU time, peak memory, limits of memory and processes, out-of-memory kills. A guest without a
//! cgroup2 file system runs its stages without.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cloude_protocol::agent::ProcessLimits;

/// The cgroup of a stage. Dropping it kills its processes and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
    /// Opened before the program runs, so that reading them after it takes one system call each. None if the
    /// kernel lacks the file.
    cpu_stat: Option<File>,
    memory_peak: Option<File>,
    memory_events: Option<File>,
    /// The pids controller, whose `pids.max` was set. The guest's kernel may lack it.
    pids: Option<Pids>,
}

/// The files `pids.*` of a stage.
#[derive(Debug)]
enum Pids {
    /// In the stage's cgroup.
    Same,
    /// In a directory of cgroup v1, of which this is `cgroup.procs`.
    V1 { path: PathBuf, procs: File },
}

/// The mount points of the cgroup file systems.
#[derive(Clone, Debug)]
pub struct Roots {
    /// cgroup2.
    pub unified: PathBuf,
    /// The pids controller of cgroup v1, on a machine that has it there. No VM has.
    pub pids_v1: Option<PathBuf>,
}

impl Cgroup {
    /// Creates `name` below `roots` ([`enable_controllers`]), with `memory.max` of `memory_max` bytes and
    /// `memory.oom.group`: the out-of-memory killer takes the whole stage. The limit is below the guest's memory, so that
    /// the agent can still report it. `pids.max` is `processes`.
    pub fn create(
        roots: &Roots,
        name: &str,
        memory_max: Option<u64>,
        processes: u64,
    ) -> std::io::Result<Cgroup> {
        let path = roots.unified.join(name);
        fs::create_dir(&path)?;
        let directory = File::open(&path).inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        })?;
        let open = |file| File::open(path.join(file)).ok();
        let mut cgroup = Cgroup {
            pids: None,
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
        cgroup.pids = match &roots.pids_v1 {
            None => Some(Pids::Same),
            Some(root) => Pids::v1(root.join(name)),
        };
        if !cgroup.set_processes(processes) {
            cgroup.pids = None;
        }
        Ok(cgroup)
    }

    /// For CLONE_INTO_CGROUP.
    pub fn as_raw_fd(&self) -> RawFd {
        self.directory.as_raw_fd()
    }

    /// `memory.peak` in bytes (since Linux 5.19).
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        read(self.memory_peak.as_ref()?)?.trim().parse().ok()
    }

    /// `usage_usec` of cpu.stat: user and system time of all its processes, in microseconds.
    pub fn cpu_time_us(&self) -> Option<u64> {
        field(&read(self.cpu_stat.as_ref()?)?, "usage_usec")
    }

    /// `oom_kill` of memory.events: processes killed at the cgroup's limit or because the guest ran out of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        field(&read(self.memory_events.as_ref()?)?, "oom_kill")
    }

    /// True if the kernel bounds the number of its processes and threads.
    pub fn bounds_processes(&self) -> bool {
        self.pids.is_some()
    }

    /// Sets `pids.max`. False if the kernel lacks the controller.
    pub fn set_processes(&self, most: u64) -> bool {
        let path = self.pids_file("pids.max");
        path.is_some_and(|path| fs::write(path, most.to_string()).is_ok())
    }

    /// `pids.current`: its processes and threads now.
    pub fn process_count(&self) -> Option<u64> {
        let path = self.pids_file("pids.current")?;
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// The `cgroup.procs` into which a process of the stage writes "0", on a machine with cgroup v1.
    pub fn procs_v1(&self) -> Option<RawFd> {
        match &self.pids {
            Some(Pids::V1 { procs, .. }) => Some(procs.as_raw_fd()),
            _ => None,
        }
    }

    /// `max` of pids.events, how often a fork or a thread was refused, and the `pids.max` that refused it; none if that
    /// never happened.
    pub fn refused_forks(&self) -> Option<(u64, u64)> {
        let read = |file| fs::read_to_string(self.pids_file(file)?).ok();
        let refused = field(&read("pids.events")?, "max").filter(|refused| *refused > 0)?;
        Some((refused, read("pids.max")?.trim().parse().ok()?))
    }

    /// Its processes, as ids of the agent's PID namespace.
    pub fn processes(&self) -> Vec<i32> {
        let ids = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        ids.lines().filter_map(|id| id.parse().ok()).collect()
    }

    fn pids_file(&self, file: &str) -> Option<PathBuf> {
        match self.pids.as_ref()? {
            Pids::Same => Some(self.path.join(file)),
            Pids::V1 { path, .. } => Some(path.join(file)),
        }
    }

    fn write(&self, file: &str, value: &str) -> std::io::Result<()> {
        fs::write(self.path.join(file), value)
    }
}

impl Pids {
    fn v1(path: PathBuf) -> Option<Pids> {
        fs::create_dir(&path).ok()?;
        match File::options().write(true).open(path.join("cgroup.procs")) {
            Ok(procs) => Some(Pids::V1 { path, procs }),
            Err(_) => {
                let _ = fs::remove_dir(&path);
                None
            }
        }
    }
}

/// Lets the children of `root` have the controllers that stages use. Call it once.
pub fn enable_controllers(root: &Path) {
    // One write each: a kernel without one controller refuses a line with all. Without any, a cgroup still counts
    // CPU time and bounds `cgroup.kill`.
    for controller in ["+memory", "+cpu", "+pids"] {
        let _ = fs::write(root.join("cgroup.subtree_control"), controller);
    }
}

/// The most processes and threads of a stage: half of what the kernel has room for (threads-max, some eight for
/// each MiB of memory), so that the agent always has room.
pub fn process_limit() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let most = fs::read_to_string("/proc/sys/kernel/threads-max").ok();
        let most = most.and_then(|text| text.trim().parse().ok());
        half_of(most.unwrap_or(2048))
    })
}

/// [`process_limit`], or less if `limits` says so.
pub fn process_limit_of(limits: &ProcessLimits) -> u64 {
    let most = process_limit();
    limits
        .processes
        .map_or(most, |processes| most.min(processes.into()))
}

fn half_of(threads_max: u64) -> u64 {
    (threads_max / 2).clamp(16, 16384)
}

/// Reads a cgroup file, which has some hundred bytes at most.
fn read(file: &File) -> Option<String> {
    let mut bytes = vec![0; 4096];
    let length = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(length);
    String::from_utf8(bytes).ok()
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.write("cgroup.kill", "1");
        // Fails if the program made cgroups below; the VM ends soon.
        let _ = fs::remove_dir(&self.path);
        if let Some(Pids::V1 { path, .. }) = &self.pids {
            let _ = fs::remove_dir(path);
        }
    }
}

/// Detects that the out-of-memory killer killed a process of a stage.
#[derive(Debug)]
pub struct OomWatch {
    /// `oom_kill` of /proc/vmstat before the stage, for a kernel without memory.events. Reading it is slow: the
    /// kernel sums all its statistics.
    kernel_before: Option<u64>,
}

impl OomWatch {
    /// Call before the stage runs.
    pub fn start(cgroup: Option<&Cgroup>) -> Self {
        let group_counts = cgroup.and_then(Cgroup::oom_kills).is_some();
        let kernel_before = (!group_counts).then(kernel_oom_kills).flatten();
        OomWatch { kernel_before }
    }

    /// Call after the stage has ended.
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

/// MemAvailable in bytes.
pub fn available_memory() -> Option<u64> {
    meminfo("MemAvailable:")
}

/// The memory limit of a program: MemAvailable less 1/32 or 4 MiB, which the agent needs to report an
/// out-of-memory kill.
pub fn program_memory(available: u64) -> u64 {
    const AT_LEAST: u64 = 4 << 20;
    available
        .saturating_sub((available / 32).max(AT_LEAST))
        .max(AT_LEAST)
}

/// MemTotal and SwapTotal in bytes.
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

/// `oom_kill` of /proc/vmstat: processes killed since boot (since Linux 4.13).
fn kernel_oom_kills() -> Option<u64> {
    field(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill")
}

/// The mount points of this machine.
pub fn find_roots() -> Option<Roots> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let find = |wanted: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let found = kind == wanted && options.split(',').any(|known| known == option);
            found.then(|| PathBuf::from(path))
        })
    };
    Some(Roots {
        unified: find("cgroup2", "rw")?,
        pids_v1: find("cgroup", "pids"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_matched_by_its_whole_name() {
        let text = "low 1\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), Some(2));
        assert_eq!(field(text, "max"), None);
    }

    #[test]
    fn a_stage_has_half_of_the_kernels_threads() {
        assert_eq!(half_of(2400), 1200);
        assert_eq!(half_of(1_000_000), 16384);
    }

    #[test]
    fn available_memory_is_less_than_the_address_space() {
        let bytes = available_memory().unwrap();
        assert!(bytes > 1 << 20 && bytes < 1 << 47, "{bytes}");
    }
}
