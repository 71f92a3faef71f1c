//! Mounts the file systems that Linux programs expect, and makes the links in /dev.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The work directory: files of the program, and its current directory.
pub const WORK_DIR: &str = "/work";

/// Where the file system of the work directory is mounted first.
const STAGING: &str = "/.cloude/disk";

/// The mount point of cgroup2.
pub const CGROUP: &str = "/sys/fs/cgroup";

struct Mount {
    kind: &'static str,
    path: &'static str,
    flags: MsFlags,
    options: &'static str,
    need: Need,
}

#[derive(PartialEq)]
enum Need {
    /// Boot fails without it.
    Required,
    /// A failure is ignored: the kernel may lack it.
    Optional,
    /// Not mounted over files of the image: the root file system is in memory and writable anyway.
    WhereEmpty,
}

const QUIET: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
const NO_NODES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

#[rustfmt::skip]
const fn entry(kind: &'static str, path: &'static str, flags: MsFlags, options: &'static str, need: Need) -> Mount {
    Mount { kind, path, flags, options, need }
}

/// In the order of mounting: parents first.
#[rustfmt::skip]
const MOUNTS: [Mount; 7] = [
    entry("proc", "/proc", QUIET, "", Need::Required),
    entry("sysfs", "/sys", QUIET, "", Need::Required),
    entry("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=755", Need::Required),
    entry("devpts", "/dev/pts", NO_PROGRAMS, "mode=620,gid=5,ptmxmode=666", Need::Optional),
    entry("tmpfs", "/dev/shm", NO_NODES, "mode=1777", Need::Required),
    entry("tmpfs", "/run", NO_NODES, "mode=755", Need::WhereEmpty),
    entry("cgroup2", CGROUP, QUIET, "", Need::Optional),
];

/// Mounts everything and makes the links in /dev.
pub fn mount_all() -> Result<(), String> {
    for entry in &MOUNTS {
        let path = Path::new(entry.path);
        make_mount_point(path);
        if entry.need == Need::WhereEmpty && holds_anything(path) {
            continue;
        }
        if let Err(errno) = mount_one(entry)
            && entry.need != Need::Optional
        {
            return Err(format!(
                "cannot mount {} on {}: {errno}; the kernel must have the file system built in, and the image \
                 a directory or nothing at that path",
                entry.kind, entry.path
            ));
        }
    }
    // Files of the image in /tmp stay visible.
    let tmp = Path::new("/tmp");
    make_mount_point(tmp);
    let tmp = Some(tmp).filter(|tmp| !holds_anything(tmp));
    disk(Path::new(STAGING), Path::new(WORK_DIR), tmp)?;
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ];
    for (target, link) in links {
        if link == "/dev/ptmx" && Path::new("/dev/pts/ptmx").exists() {
            let _ = fs::remove_file(link);
        }
        let _ = symlink(target, link);
    }
    Ok(())
}

/// Makes `path` a directory. A file or a dangling link of the image is replaced. A failure shows when the file
/// system is mounted.
fn make_mount_point(path: &Path) {
    if fs::create_dir_all(path).is_err() && !path.is_dir() {
        let _ = fs::remove_file(path);
        let _ = fs::create_dir(path);
    }
}

fn holds_anything(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

fn mount_one(entry: &Mount) -> nix::Result<()> {
    let options = Some(entry.options).filter(|options| !options.is_empty());
    match mount(
        Some(entry.kind),
        entry.path,
        Some(entry.kind),
        entry.flags,
        options,
    ) {
        Err(Errno::EBUSY) => Ok(()), // The kernel mounted it (CONFIG_DEVTMPFS_MOUNT).
        result => result,
    }
}

/// Opens /dev/console as standard input, output and error; /dev/null on a machine without a console.
pub fn open_console() {
    let open = |path| fs::OpenOptions::new().read(true).write(true).open(path);
    let Ok(console) = open("/dev/console").or_else(|_| open("/dev/null")) else {
        return;
    };
    for stream in 0..=2 {
        // SAFETY: dup2(2) with numbers; no object of this program owns descriptors 0 to 2.
        unsafe { libc::dup2(console.as_raw_fd(), stream) };
    }
    if console.as_raw_fd() <= 2 {
        std::mem::forget(console); // Its descriptor is a standard stream.
    }
}

/// Mounts one tmpfs on `work_dir` and on `tmp`, so that its size limits the files in both. It is mounted on `staging`,
/// a path that is free, until both have their part of it.
pub fn disk(staging: &Path, work_dir: &Path, tmp: Option<&Path>) -> Result<(), String> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| {
        format!("cannot mount tmpfs on {}: {error}", path.display())
    };
    for path in [staging, work_dir] {
        fs::create_dir_all(path).map_err(|error| failed(path, &error))?;
    }
    mount(
        Some("tmpfs"),
        staging,
        Some("tmpfs"),
        NO_NODES,
        Some("mode=755"),
    )
    .map_err(|errno| failed(staging, &errno))?;
    let parts = [(Some(work_dir), "work", 0o755), (tmp, "tmp", 0o1777)];
    for (path, name, mode) in parts {
        let Some(path) = path else { continue };
        let (part, none) = (staging.join(name), None::<&str>);
        fs::create_dir(&part)
            .and_then(|()| fs::set_permissions(&part, PermissionsExt::from_mode(mode)))
            .map_err(|error| failed(path, &error))?;
        mount(Some(&part), path, none, MsFlags::MS_BIND, none)
            .map_err(|errno| failed(path, &errno))?;
    }
    umount2(staging, MntFlags::MNT_DETACH).map_err(|errno| failed(staging, &errno))?;
    let _ = fs::remove_dir(staging);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mount_point_is_made_with_its_parents() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sys/fs/cgroup");

        make_mount_point(&path);

        assert!(path.is_dir());
    }

    #[test]
    fn a_dangling_link_is_replaced_by_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tmp");
        symlink("nowhere/at/all", &path).unwrap();

        make_mount_point(&path);

        assert!(path.symlink_metadata().unwrap().is_dir());
    }

    #[test]
    fn links_to_each_other_lead_to_the_mount_point() {
        let root = tempfile::tempdir().unwrap();
        let (run, var_run) = (root.path().join("run"), root.path().join("var/run"));
        fs::create_dir(root.path().join("var")).unwrap();
        symlink("var/run", &run).unwrap();
        symlink("../run", &var_run).unwrap();

        make_mount_point(&run);

        fs::write(var_run.join("file"), "").unwrap();
        assert!(run.join("file").is_file());
    }

    #[test]
    fn a_link_to_a_directory_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tmp");
        fs::create_dir_all(root.path().join("var/tmp")).unwrap();
        symlink("var/tmp", &path).unwrap();

        make_mount_point(&path);

        assert!(path.is_symlink() && path.is_dir());
    }

    #[test]
    fn a_directory_with_a_file_holds_something() {
        let root = tempfile::tempdir().unwrap();
        assert!(!holds_anything(root.path()));

        fs::write(root.path().join("file"), "").unwrap();

        assert!(holds_anything(root.path()));
    }
}
