//! Gives the account a cgroup, below which the engine makes those of the workers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// The mount point of the unified hierarchy (cgroup 2).
const MOUNT: &str = "/sys/fs/cgroup";

/// Files that the owner of a delegated cgroup may write (Documentation/admin-guide/cgroup-v2.rst, "Model of Delegation").
const FILES: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// Gives this process's cgroup to a user, so that it may make children: that of the service manager if the process is
/// alone in it, else a new one, which stays for the next start with the same state folder. Does nothing on a host
/// without the unified hierarchy.
pub fn delegate(state_dir: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let mount = Path::new(MOUNT);
    if !mount.join("cgroup.controllers").exists() {
        return Ok(());
    }
    let own = own_cgroup(mount)?;
    let cgroup = match own.filter(|own| is_alone_in(own)) {
        Some(own) => own,
        None => enter_new(mount, state_dir)?,
    };
    let files = FILES.iter().map(|file| cgroup.join(file));
    for path in std::iter::once(cgroup.clone()).chain(files) {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// The cgroup of this process; none if it is the root of the hierarchy.
fn own_cgroup(mount: &Path) -> io::Result<Option<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(path
        .filter(|path| !path.is_empty())
        .map(|path| mount.join(path)))
}

fn is_alone_in(cgroup: &Path) -> bool {
    let me = std::process::id().to_string();
    let processes = std::fs::read_to_string(cgroup.join("cgroup.procs"));
    processes.is_ok_and(|list| list.lines().eq([me.as_str()]))
}

fn enter_new(mount: &Path, state_dir: &Path) -> io::Result<PathBuf> {
    // The engine checks the controllers, and says which of them is missing.
    let _ = std::fs::write(mount.join("cgroup.subtree_control"), "+memory +pids +cpu");
    let mut hasher = DefaultHasher::new();
    state_dir.hash(&mut hasher);
    let name = format!("clouded-{:08x}", hasher.finish() as u32);
    let mut failed = None;
    // Another number where a killed clouded left workers that have not ended yet.
    for number in 0..8 {
        let cgroup = mount.join(format!("{name}-{number}"));
        remove_empty(&cgroup);
        let entered = make(&cgroup).and_then(|()| std::fs::write(cgroup.join("cgroup.procs"), "0"));
        match entered {
            Ok(()) => return Ok(cgroup),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

fn make(cgroup: &Path) -> io::Result<()> {
    match std::fs::create_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Removes a cgroup and those below it, as far as no process is in them.
fn remove_empty(cgroup: &Path) {
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove_empty(&entry.path());
    }
    let _ = std::fs::remove_dir(cgroup);
}
