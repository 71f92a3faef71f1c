//! Notes for the start after a crash: the workers to end, the last address, the sysctl to restore.
//! A lock keeps a second engine out.
//!
//! `workers/PID-START_TIME` holds the host's boot id, so that a later process of the same number is not mistaken
//! for the worker. `last-address` holds an IPv4 address.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const LOCK: &str = "lock";
const WORKERS: &str = "workers";
const LAST_ADDRESS: &str = "last-address";

/// The run directory of an engine. Clones share its lock.
#[derive(Clone, Debug)]
pub struct RunDir {
    dir: PathBuf,
    _lock: Arc<File>,
    /// Held by the writer of the last address.
    last_address: Arc<Mutex<()>>,
}

/// A run directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// It cannot be created or read.
    #[error(
        "the run directory `{path}`: {source}; set `EngineConfig::run_dir` (`state_dir` of clouded) to one that this user may write"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// The failed system call's error.
        source: io::Error,
    },
    /// Another process holds its lock.
    #[error(
        "the run directory `{0}` is in use by another process; stop that, or set another one (`state_dir` of clouded)"
    )]
    InUse(PathBuf),
}

/// A worker of an earlier process, as its file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedWorker {
    /// The process id.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, in clock ticks since boot.
    pub start_time: u64,
}

/// The file of a running worker. Dropping it removes the file.
#[derive(Debug)]
pub struct WorkerFile {
    path: PathBuf,
}

impl Drop for WorkerFile {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "removing a worker's file");
    }
}

impl RunDir {
    /// Creates the directory (mode 0700) where it is missing, and locks it for as long as this process lives
    /// or a clone of the returned value exists.
    pub fn open(dir: &Path) -> Result<Self, RunDirError> {
        let failed = |source| RunDirError::Io {
            path: dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.join(WORKERS))
            .map_err(failed)?;
        let lock = File::create(dir.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(RunDir {
                dir: dir.to_owned(),
                _lock: Arc::new(lock),
                last_address: Arc::default(),
            }),
            Err(TryLockError::WouldBlock) => Err(RunDirError::InUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Records a worker, until the returned value is dropped. `None` if it cannot be recorded: the process has
    /// ended already, or the disk is full, which is logged.
    pub fn record(&self, pid: i32) -> Option<WorkerFile> {
        let start_time = start_time(pid)?;
        // The start time in the name, so that the record of a later process of this number is another file.
        let path = self.dir.join(WORKERS).join(format!("{pid}-{start_time}"));
        // Without fsync(2): after a power cut there are no workers.
        match std::fs::write(&path, boot_id()) {
            Ok(()) => Some(WorkerFile { path }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "recording a worker");
                remove(&path);
                None
            }
        }
    }

    /// The workers that an earlier process recorded in this boot of the host. Dropping a [`WorkerFile`] forgets
    /// the worker. Other files are removed.
    pub fn workers(&self) -> Vec<(RecordedWorker, WorkerFile)> {
        let boot_id = boot_id();
        let mut workers = Vec::new();
        let files = std::fs::read_dir(self.dir.join(WORKERS));
        for entry in files.into_iter().flatten().flatten() {
            let path = entry.path();
            let boot = std::fs::read_to_string(&path).unwrap_or_default();
            let worker = (|| {
                let (pid, start_time) = path.file_name()?.to_str()?.split_once('-')?;
                let (pid, start_time) = (pid.parse().ok()?, start_time.parse().ok()?);
                (boot == boot_id).then_some(RecordedWorker { pid, start_time })
            })();
            let file = WorkerFile { path };
            workers.extend(worker.map(|worker| (worker, file)));
        }
        workers
    }

    /// Records the address that was given out last.
    pub fn set_last_address(&self, address: Ipv4Addr) {
        let _writer = self.last_address.lock();
        let path = self.dir.join(LAST_ADDRESS);
        // Replaced and not overwritten: a crash in between leaves the old address.
        let new = path.with_extension("new");
        let written = std::fs::write(&new, address.to_string());
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, &path)) {
            tracing::warn!(path = %path.display(), %error, "recording the last address");
        }
    }

    /// The address that an earlier process gave out last.
    pub fn last_address(&self) -> Option<Ipv4Addr> {
        let text = std::fs::read_to_string(self.dir.join(LAST_ADDRESS)).ok()?;
        text.trim().parse().ok()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

/// Field 22 of /proc/PID/stat (proc(5)): when the process started, in clock ticks since boot.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 2, the name, is in parentheses, and may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_dir() -> (tempfile::TempDir, RunDir) {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        (dir, run_dir)
    }

    fn recorded(run_dir: &RunDir) -> Vec<RecordedWorker> {
        let workers = run_dir.workers();
        let recorded = workers.iter().map(|(worker, _)| worker.clone()).collect();
        // As after a crash: the files stay.
        std::mem::forget(workers);
        recorded
    }

    #[test]
    fn a_worker_is_recorded_until_its_file_is_dropped() {
        let (_dir, run_dir) = run_dir();
        let pid = std::process::id() as i32;
        let file = run_dir.record(pid).unwrap();
        let worker = RecordedWorker {
            pid,
            start_time: start_time(pid).unwrap(),
        };
        assert_eq!(recorded(&run_dir), [worker]);

        drop(file);

        assert_eq!(recorded(&run_dir), []);
    }

    #[test]
    fn files_of_another_boot_or_without_sense_are_removed() {
        let (dir, run_dir) = run_dir();
        let workers = dir.path().join(WORKERS);
        std::fs::write(workers.join("7-9"), "another-boot").unwrap();
        std::fs::write(workers.join("8-9"), "").unwrap();
        std::fs::write(workers.join("x"), boot_id()).unwrap();

        assert_eq!(recorded(&run_dir), []);

        assert_eq!(std::fs::read_dir(workers).unwrap().count(), 0);
    }

    #[test]
    fn the_last_address_survives() {
        let (dir, run_dir) = run_dir();
        assert_eq!(run_dir.last_address(), None);
        run_dir.set_last_address(Ipv4Addr::new(10, 0, 0, 9));

        drop(run_dir);
        let next = RunDir::open(dir.path()).unwrap();

        assert_eq!(next.last_address(), Some(Ipv4Addr::new(10, 0, 0, 9)));
    }

    #[test]
    fn a_second_user_of_the_directory_is_refused() {
        let (dir, _run_dir) = run_dir();
        let error = RunDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, RunDirError::InUse(_)), "{error}");
    }
}
