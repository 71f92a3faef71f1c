//! Cgroups of version 2, the unified hierarchy.

use std::io;
use std::path::{Path, PathBuf};

use super::leaf::{Leaf, Limits};

/// The controllers that a worker's limits need.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// The parent of the workers' cgroups.
#[derive(Debug)]
pub struct Unified {
    parent: PathBuf,
}

impl Unified {
    /// Makes the parent `name`: below the own cgroup if that was delegated to this process alone, or as root at the top
    /// of the hierarchy at `mount`. `own` is the own cgroup's path in the hierarchy.
    pub fn open(mount: &Path, own: &str, name: &str) -> io::Result<Self> {
        let own = mount.join(own.trim_start_matches('/'));
        if own != mount && delegated(&own) {
            return Self::below(&own, name, true);
        }
        if rustix::process::geteuid().is_root() {
            return Self::below(mount, name, false);
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} was not delegated to this process", own.display()),
        ))
    }

    fn below(base: &Path, name: &str, own: bool) -> io::Result<Self> {
        let has = std::fs::read_to_string(base.join("cgroup.controllers"))?;
        let lacks = CONTROLLERS
            .iter()
            .find(|controller| !has.split_whitespace().any(|has| has == **controller));
        if let Some(controller) = lacks {
            let message = format!("{} lacks the controller {controller}", base.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        if own {
            // A cgroup with controllers for its children may not hold processes itself.
            let supervisor = base.join("clouded");
            make(&supervisor)?;
            std::fs::write(supervisor.join("cgroup.procs"), "0")?;
        }
        let parent = base.join(name);
        for directory in [base, &parent] {
            make(directory)?;
            let enable = CONTROLLERS.map(|controller| format!("+{controller}"));
            std::fs::write(directory.join("cgroup.subtree_control"), enable.join(" "))?;
        }
        Ok(Unified { parent })
    }

    /// The parents of leaves.
    pub fn parents(&self) -> Vec<PathBuf> {
        vec![self.parent.clone()]
    }

    /// Makes a leaf.
    pub fn leaf(&self, name: &str, limits: &Limits) -> io::Result<Leaf> {
        let directory = self.parent.join(name);
        make(&directory)?;
        let leaf = Leaf::new(vec![directory.clone()], true);
        let set = |file: &str, value: String| std::fs::write(directory.join(file), value);
        set("memory.max", limits.memory.to_string())?;
        // Missing where the kernel has no swap.
        if directory.join("memory.swap.max").exists() {
            set("memory.swap.max", "0".to_owned())?;
        }
        set("pids.max", limits.threads.to_string())?;
        set("cpu.weight", (100 * u64::from(limits.vcpus)).to_string())?;
        set("cpu.max", format!("{} {}", limits.quota(), Limits::PERIOD))?;
        Ok(leaf)
    }
}

/// True if this process may make children of the cgroup, and is alone in it.
fn delegated(own: &Path) -> bool {
    let writable = rustix::fs::access(
        own.join("cgroup.subtree_control"),
        rustix::fs::Access::WRITE_OK,
    );
    let processes = std::fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
    let me = std::process::id().to_string();
    writable.is_ok() && processes.lines().all(|line| line == me)
}

fn make(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files of a hierarchy's top.
    fn hierarchy(controllers: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        dir
    }

    fn read(path: PathBuf) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_leaf_has_all_limits() {
        let dir = hierarchy("cpuset cpu io memory pids");
        let unified = Unified::below(dir.path(), "cloude-x", false).unwrap();
        let leaf = unified.leaf("vm-0", &Limits::of(2, 512, false)).unwrap();
        let at = |file: &str| read(dir.path().join("cloude-x/vm-0").join(file));
        assert_eq!(at("memory.max"), ((512 + 16 + 64) << 20).to_string());
        assert_eq!(at("pids.max"), "10");
        assert_eq!(at("cpu.max"), "300000 100000");
        assert_eq!(at("cpu.weight"), "200");
        assert!(leaf.entry().unwrap().directory.is_some());
        assert_eq!(
            read(dir.path().join("cloude-x/cgroup.subtree_control")),
            "+memory +pids +cpu"
        );
    }

    #[test]
    fn clouded_leaves_its_own_cgroup_before_that_gets_controllers() {
        let dir = hierarchy("memory pids cpu");
        Unified::below(dir.path(), "cloude-x", true).unwrap();
        assert_eq!(read(dir.path().join("clouded/cgroup.procs")), "0");
    }

    #[test]
    fn a_missing_controller_is_named() {
        let dir = hierarchy("memory pids");
        let error = Unified::below(dir.path(), "cloude-x", false).unwrap_err();
        assert!(error.to_string().contains("controller cpu"), "{error}");
    }
}
