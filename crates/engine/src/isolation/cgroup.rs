//! The cgroups of all workers of an engine, of whichever version the host has.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::cgroup_v1::Legacy;
use super::cgroup_v2::Unified;
use super::leaf::{Leaf, Limits};

/// The parent of the workers' cgroups. Dropping it removes the parent, once the leaves are gone.
#[derive(Debug)]
pub struct Cgroups {
    version: Version,
    made: AtomicU64,
}

#[derive(Debug)]
enum Version {
    Unified(Unified),
    Legacy(Legacy),
}

impl Cgroups {
    /// Makes the parent for the engine whose run directory this is, and kills and removes what a killed engine with the
    /// same directory left. The caller holds the directory's lock.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let name = parent_name(run_dir);
        let mounts = Mounts::read()?;
        let version = match &mounts.unified {
            Some((mount, own)) if controls(mount) => {
                Version::Unified(Unified::open(mount, own, &name)?)
            }
            _ => Version::Legacy(Legacy::open(
                |controller| mounts.controller(controller).map(|(mount, _)| mount),
                |controller| mounts.controller(controller).map(|(_, own)| own),
                &name,
            )?),
        };
        let cgroups = Cgroups {
            version,
            made: AtomicU64::new(0),
        };
        cgroups.remove_left();
        Ok(cgroups)
    }

    /// Makes the cgroup of a worker.
    pub fn leaf(&self, limits: &Limits) -> io::Result<Leaf> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("vm-{number}");
        match &self.version {
            Version::Unified(unified) => unified.leaf(&name, limits),
            Version::Legacy(legacy) => legacy.leaf(&name, limits),
        }
    }

    fn parents(&self) -> Vec<PathBuf> {
        match &self.version {
            Version::Unified(unified) => unified.parents(),
            Version::Legacy(legacy) => legacy.parents(),
        }
    }

    fn remove_left(&self) {
        for parent in self.parents() {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            for entry in entries.filter(|entry| entry.path().is_dir()) {
                tracing::warn!(
                    cgroup = %entry.path().display(),
                    "removing a worker's cgroup that an earlier process left"
                );
                drop(Leaf::new(
                    vec![entry.path()],
                    matches!(self.version, Version::Unified(_)),
                ));
            }
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for parent in self.parents() {
            // Fails while a leaf exists; the next start removes both.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// A name for each run directory, so that two engines share no cgroup.
fn parent_name(run_dir: &Path) -> String {
    let path = std::fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_owned());
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    format!("cloude-{}", const_hex::encode(&digest[..6]))
}

/// True if the hierarchy of version 2 has the memory controller: on a host that uses both versions it has none.
fn controls(mount: &Path) -> bool {
    let controllers = std::fs::read_to_string(mount.join("cgroup.controllers"));
    controls_memory(&controllers.unwrap_or_default())
}

fn controls_memory(controllers: &str) -> bool {
    controllers.split_whitespace().any(|name| name == "memory")
}

/// Where the hierarchies are mounted, and the own cgroup in each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    unified: Option<(PathBuf, String)>,
    /// Controllers, mount point, own path.
    legacy: Vec<(Vec<String>, PathBuf, String)>,
}

impl Mounts {
    fn read() -> io::Result<Self> {
        let read = std::fs::read_to_string;
        Ok(Self::of(
            &read("/proc/self/mountinfo")?,
            &read("/proc/self/cgroup")?,
        ))
    }

    /// From the texts of /proc/self/mountinfo and /proc/self/cgroup (proc(5), cgroups(7)).
    fn of(mountinfo: &str, cgroup: &str) -> Self {
        let own = |controllers: &str| {
            cgroup.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (names, path) = rest.split_once(':')?;
                let is = names == controllers
                    || !controllers.is_empty() && names.split(',').any(|name| name == controllers);
                is.then(|| path.to_owned())
            })
        };
        let mut mounts = Mounts::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let mount = before.split(' ').nth(4).map(PathBuf::from);
            let mut fields = after.split(' ');
            let (kind, options) = (fields.next(), fields.nth(1).unwrap_or_default());
            match (kind, mount) {
                (Some("cgroup2"), Some(mount)) if mounts.unified.is_none() => {
                    mounts.unified = own("").map(|own| (mount, own));
                }
                (Some("cgroup"), Some(mount)) => {
                    let controllers: Vec<_> = options.split(',').map(str::to_owned).collect();
                    if let Some(own) = controllers.iter().find_map(|name| own(name)) {
                        mounts.legacy.push((controllers, mount, own));
                    }
                }
                _ => {}
            }
        }
        mounts
    }

    fn controller(&self, name: &str) -> Option<(PathBuf, String)> {
        let has = |controllers: &[String]| controllers.iter().any(|controller| controller == name);
        let found = self.legacy.iter().find(|(names, ..)| has(names));
        found.map(|(_, mount, own)| (mount.clone(), own.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unified_hierarchy_is_found_with_the_own_cgroup() {
        let mounts = Mounts::of(
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/system.slice/clouded.service\n",
        );
        let own = "/system.slice/clouded.service".to_owned();
        assert_eq!(mounts.unified, Some(("/sys/fs/cgroup".into(), own)));
        assert_eq!(mounts.controller("memory"), None);
    }

    #[test]
    fn controllers_of_version_1_are_found_where_they_share_a_mount() {
        let mounts = Mounts::of(
            "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            "4:memory:/user\n3:cpu,cpuacct:/\n0::/\n",
        );
        assert_eq!(mounts.unified, None);
        let found = |name| mounts.controller(name).unwrap();
        assert_eq!(
            found("cpu"),
            ("/sys/fs/cgroup/cpu,cpuacct".into(), "/".into())
        );
        assert_eq!(
            found("memory"),
            ("/sys/fs/cgroup/memory".into(), "/user".into())
        );
    }

    #[test]
    fn every_run_directory_has_a_cgroup_of_its_own() {
        let name = parent_name(Path::new("/nowhere/a"));
        assert_ne!(name, parent_name(Path::new("/nowhere/b")));
        assert!(name.starts_with("cloude-") && name.len() == 19, "{name}");
    }
}
