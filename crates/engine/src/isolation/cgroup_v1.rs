//! Cgroups of version 1: one hierarchy for each controller.

use std::io;
use std::path::{Path, PathBuf};

use super::leaf::{Leaf, Limits};

/// The parents of the workers' cgroups, one for each controller.
#[derive(Debug)]
pub struct Legacy {
    memory: PathBuf,
    pids: PathBuf,
    cpu: PathBuf,
}

impl Legacy {
    /// Makes the parents `name` below the own cgroups. `mounts` has the mount point of each controller, `own` the own
    /// cgroup's path in a controller's hierarchy.
    pub fn open(
        mount: impl Fn(&str) -> Option<PathBuf>,
        own: impl Fn(&str) -> Option<String>,
        name: &str,
    ) -> io::Result<Self> {
        let parent = |controller: &str| {
            let (mount, own) = mount(controller).zip(own(controller)).ok_or_else(|| {
                let message = format!("no hierarchy has the controller {controller}");
                io::Error::new(io::ErrorKind::NotFound, message)
            })?;
            let parent = mount.join(own.trim_start_matches('/')).join(name);
            std::fs::create_dir_all(&parent)?;
            Ok::<_, io::Error>(parent)
        };
        Ok(Legacy {
            memory: parent("memory")?,
            pids: parent("pids")?,
            cpu: parent("cpu")?,
        })
    }

    /// The parents of leaves. Controllers that are mounted together share one.
    pub fn parents(&self) -> Vec<PathBuf> {
        let mut parents = vec![self.memory.clone(), self.pids.clone(), self.cpu.clone()];
        parents.sort();
        parents.dedup();
        parents
    }

    /// Makes a leaf.
    pub fn leaf(&self, name: &str, limits: &Limits) -> io::Result<Leaf> {
        let directories: Vec<_> = self
            .parents()
            .iter()
            .map(|parent| parent.join(name))
            .collect();
        for directory in &directories {
            std::fs::create_dir_all(directory)?;
        }
        let leaf = Leaf::new(directories, false);
        let set = |parent: &Path, file: &str, value: String| {
            std::fs::write(parent.join(name).join(file), value)
        };
        let memory = limits.memory.to_string();
        set(&self.memory, "memory.limit_in_bytes", memory.clone())?;
        // Missing where the kernel does not account for swap.
        let with_swap = "memory.memsw.limit_in_bytes";
        match self.memory.join(name).join(with_swap).exists() {
            true => set(&self.memory, with_swap, memory)?,
            false => set(&self.memory, "memory.swappiness", "0".to_owned())?,
        }
        set(&self.pids, "pids.max", limits.threads.to_string())?;
        set(
            &self.cpu,
            "cpu.shares",
            (1024 * u64::from(limits.vcpus)).to_string(),
        )?;
        // Missing where the kernel has no CFS_BANDWIDTH.
        if self.cpu.join(name).join("cpu.cfs_quota_us").exists() {
            set(&self.cpu, "cpu.cfs_period_us", Limits::PERIOD.to_string())?;
            set(&self.cpu, "cpu.cfs_quota_us", limits.quota().to_string())?;
        }
        Ok(leaf)
    }
}
