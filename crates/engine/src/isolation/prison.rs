//! Which walls this host can give, and a [`Cell`] for each worker.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloude_vmm::control;
use cloude_vmm::jail::{Wall, Walls};

use super::cell::Cell;
use super::cgroup::Cgroups;
use super::leaf::Limits;
use super::uids::Uids;
use crate::config::Isolation;

/// The engine cannot isolate its workers as the configuration asks for.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// A wall of `isolation.require` cannot be had.
    #[error(
        "`isolation.require` has `{wall}`, which this host cannot give: {reason}; {fix}, or take it out of the list",
        fix = .wall.fix()
    )]
    Missing {
        /// The wall.
        wall: Wall,
        /// The failed step.
        reason: String,
    },
    /// The worker fails even without a wall.
    #[error(
        "the worker `{path}` does not start: {reason}; build cloude-vmm, or set `vm.worker` (CLOUDE_VM_WORKER)"
    )]
    Worker {
        /// The worker's binary.
        path: PathBuf,
        /// The failed step.
        reason: String,
    },
}

/// A wall, and the reason if workers do not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WallState {
    /// The wall.
    pub wall: Wall,
    /// `None` if every worker has it.
    pub missing: Option<String>,
}

/// Makes the cells of an engine's workers.
#[derive(Debug)]
pub struct Prison {
    walls: Walls,
    states: Vec<WallState>,
    cgroups: Option<Arc<Cgroups>>,
    uids: Uids,
}

impl Prison {
    /// Finds the walls of this host by starting workers that serve no VM, and removes cgroups that a killed engine
    /// left. Blocks.
    ///
    /// Afterwards a worker that lacks one of the found walls does not start.
    pub fn open(config: &Isolation, run_dir: &Path, worker: &Path) -> Result<Self, IsolationError> {
        let (cgroups, no_cgroup) = match Cgroups::open(run_dir) {
            Ok(cgroups) => (Some(Arc::new(cgroups)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let mut prison = Prison {
            walls: Wall::ALL
                .into_iter()
                .filter(|wall| !config.skip.has(*wall))
                .collect(),
            states: Vec::new(),
            cgroups,
            uids: Uids::new(config.first_uid),
        };
        prison.find(config, no_cgroup.as_deref(), worker)?;
        for state in &prison.states {
            let Some(reason) = &state.missing else {
                continue;
            };
            if config.require.has(state.wall) {
                return Err(IsolationError::Missing {
                    wall: state.wall,
                    reason: reason.clone(),
                });
            }
            tracing::warn!(wall = %state.wall, %reason, fix = state.wall.fix(), "workers lack a wall");
        }
        tracing::info!(walls = %prison.walls, "isolation of workers");
        Ok(prison)
    }

    /// Workers without walls.
    #[cfg(test)]
    pub fn none() -> Self {
        Prison {
            walls: Walls::NONE,
            states: Vec::new(),
            cgroups: None,
            uids: Uids::new(1),
        }
    }

    /// Each wall, and why it is missing.
    pub fn states(&self) -> &[WallState] {
        &self.states
    }

    /// A cell for a worker. Blocks: it makes a cgroup.
    pub fn cell(&self, limits: &Limits) -> io::Result<Cell> {
        self.cell_with(self.walls, limits)
    }

    fn cell_with(&self, walls: Walls, limits: &Limits) -> io::Result<Cell> {
        let mut cell = Cell {
            walls,
            ..Cell::default()
        };
        if walls.has(Wall::Uid) {
            let uid = self.uids.lease();
            cell.uid =
                Some(uid.ok_or_else(|| io::Error::other("every user of workers is in use"))?);
        }
        if walls.has(Wall::Cgroup) {
            cell.cgroups = self.cgroups.clone();
            let leaf = cell.cgroups.as_ref().map(|cgroups| cgroups.leaf(limits));
            cell.leaf = leaf.transpose()?;
        }
        Ok(cell)
    }

    /// Takes out the walls that this host cannot give.
    fn find(
        &mut self,
        config: &Isolation,
        no_cgroup: Option<&str>,
        worker: &Path,
    ) -> Result<(), IsolationError> {
        let wanted = self.walls;
        let root = rustix::process::geteuid().is_root();
        let known = |wall: Wall| match wall {
            wall if config.skip.has(wall) => Some("`isolation.skip` has it".to_owned()),
            Wall::Uid if !root => Some("clouded does not run as root".to_owned()),
            Wall::Cgroup => no_cgroup.map(str::to_owned),
            _ => None,
        };
        let mut missing: Vec<Option<String>> = Wall::ALL.into_iter().map(known).collect();
        let left = |missing: &[Option<String>]| {
            let walls = Wall::ALL.into_iter().zip(missing);
            let lost = walls.filter(|(_, reason)| reason.is_some());
            lost.fold(wanted, |walls, (wall, _)| walls.without(wall))
        };
        if self.probe(left(&missing), worker).is_err() {
            // One of them, or the worker itself.
            self.probe(Walls::NONE, worker)
                .map_err(|reason| IsolationError::Worker {
                    path: worker.to_owned(),
                    reason,
                })?;
            for (wall, reason) in Wall::ALL.into_iter().zip(&mut missing) {
                if reason.is_none() {
                    *reason = self.probe(with_needs(wall), worker).err();
                }
            }
        }
        self.walls = left(&missing);
        self.states = Wall::ALL
            .into_iter()
            .zip(missing)
            .map(|(wall, missing)| WallState {
                missing: match self.walls.has(wall) {
                    true => None,
                    false => Some(missing.unwrap_or_else(|| "it needs `namespaces`".to_owned())),
                },
                wall,
            })
            .collect();
        Ok(())
    }

    /// Starts a worker with these walls and lets it end.
    fn probe(&self, walls: Walls, worker: &Path) -> Result<(), String> {
        let cell = self.cell_with(walls, &Limits::of(1, 32, false));
        let cell = cell.map_err(|error| error.to_string())?;
        let options = cell.options().map_err(|error| error.to_string())?;
        control::probe(worker, &options)
    }
}

/// The wall, and the one that it needs.
fn with_needs(wall: Wall) -> Walls {
    let alone = Walls::NONE.with(wall);
    match wall {
        Wall::Uid | Wall::Root => alone.with(Wall::Namespaces),
        _ => alone,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory with a worker that is a script.
    fn worker(body: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    fn open(config: &Isolation, body: &str) -> Result<Prison, IsolationError> {
        let (dir, worker) = worker(body);
        Prison::open(config, dir.path(), &worker)
    }

    /// Fails where `$2`, the list of walls, has the word.
    fn lacks(wall: &str) -> String {
        format!("case \"$2\" in *{wall}*) exit 1;; esac")
    }

    #[test]
    fn a_wall_that_the_worker_cannot_have_is_left_out_and_named() {
        let prison = open(&Isolation::default(), &lacks("landlock")).unwrap();
        assert!(!prison.walls.has(Wall::Landlock));
        assert!(prison.walls.has(Wall::Seccomp));
        let state = prison
            .states()
            .iter()
            .find(|state| state.wall == Wall::Landlock);
        let reason = state.unwrap().missing.clone().unwrap();
        assert!(reason.contains("exit code 1"), "{reason}");
    }

    #[test]
    fn a_required_wall_that_is_missing_prevents_the_start() {
        let config = Isolation {
            require: Walls::NONE.with(Wall::Landlock),
            ..Isolation::default()
        };
        let error = open(&config, &lacks("landlock")).unwrap_err().to_string();
        for part in ["`landlock`", "exit code 1", "lsm=", "isolation.require"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_skipped_wall_is_not_set_up() {
        let config = Isolation {
            skip: Walls::NONE.with(Wall::Seccomp),
            ..Isolation::default()
        };
        let prison = open(&config, "exit 0").unwrap();
        assert!(!prison.walls.has(Wall::Seccomp) && prison.walls.has(Wall::Landlock));
    }

    #[test]
    fn a_worker_that_fails_in_any_jail_is_an_error() {
        let error = open(&Isolation::default(), "exit 3")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit code 3") && error.contains("vm.worker"),
            "{error}"
        );
    }
}
