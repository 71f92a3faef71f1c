//! Writes the program's files below the work directory; openat2(2) refuses every path that leaves it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cloude_protocol::agent;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use crate::user::User;

/// A file of the request was not written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path is malformed or leaves the work directory.
    #[error(
        "files: path {path:?} {reason}; give a path relative to the work directory, without `..`"
    )]
    Path {
        /// From the request.
        path: String,
        /// The problem, to follow the path.
        reason: &'static str,
    },
    /// Permission bits beyond 0o7777.
    #[error("files: mode {mode:#o} of {path:?} has more than permission bits; give 0 to 0o7777")]
    Mode {
        /// From the request.
        path: String,
        /// From the request.
        mode: u32,
    },
    /// Another file of the request is in the way, as `a` is of `a/b`.
    #[error(
        "files: {path:?} conflicts with another file of the request, or is behind a symbolic link"
    )]
    Conflict {
        /// From the request.
        path: String,
    },
    /// A system call failed, most often for lack of memory.
    #[error(
        "cannot write {path:?} in the VM: {error}; the work directory is in memory, give the VM more"
    )]
    Write {
        /// From the request.
        path: String,
        /// The system call's error.
        error: std::io::Error,
    },
}

/// Checks path and mode without writing.
pub fn check(file: &agent::File) -> Result<(), FileError> {
    let path = file.path.as_str();
    let refuse = |reason| {
        Err(FileError::Path {
            path: path.to_owned(),
            reason,
        })
    };
    if path.is_empty() {
        return refuse("is empty");
    }
    if path.contains('\0') {
        return refuse("contains a NUL byte");
    }
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    if path.len() > 4095 {
        return refuse("is longer than 4095 bytes");
    }
    if path.ends_with('/') {
        return refuse("names a directory");
    }
    for name in path.split('/') {
        match name {
            ".." => return refuse("contains `..`"),
            "." | "" => return refuse("contains an empty or `.` part"),
            name if name.len() > 255 => return refuse("has a part longer than 255 bytes"),
            _ => {}
        }
    }
    match file.mode {
        Some(mode) if mode > 0o7777 => Err(FileError::Mode {
            path: path.to_owned(),
            mode,
        }),
        _ => Ok(()),
    }
}

/// Writes `files` below `work_dir`, in order. They and the directories made for them belong to `user`. The
/// kernel follows no symbolic link (RESOLVE_NO_SYMLINKS).
pub fn write(work_dir: &Path, files: &[agent::File], user: &User) -> Result<(), FileError> {
    for file in files {
        check(file)?;
        write_one(work_dir, file, user).map_err(|error| {
            let path = file.path.clone();
            match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                Errno::ENOTDIR | Errno::EISDIR | Errno::EEXIST | Errno::ELOOP | Errno::EXDEV => {
                    FileError::Conflict { path }
                }
                _ => FileError::Write { path, error },
            }
        })?;
    }
    Ok(())
}

fn write_one(work_dir: &Path, file: &agent::File, user: &User) -> std::io::Result<()> {
    let mut directory: OwnedFd = File::open(work_dir)?.into();
    let (parents, name) = match file.path.rsplit_once('/') {
        Some((parents, name)) => (Some(parents), name),
        None => (None, file.path.as_str()),
    };
    for parent in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let made = match mkdirat(&directory, parent, Mode::from_bits_truncate(0o755)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(error.into()),
        };
        directory = open_below(&directory, parent, OFlag::O_DIRECTORY | OFlag::O_RDONLY)?;
        if made {
            own(&directory, user)?;
            fchmod(&directory, Mode::from_bits_truncate(0o755))?;
        }
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
    let mut target = File::from(open_below(&directory, name, flags)?);
    target.write_all(&file.content.0)?;
    own(&target, user)?;
    // After fchown, which clears set-user-ID bits.
    fchmod(
        &target,
        Mode::from_bits_truncate(file.mode.unwrap_or(0o644)),
    )?;
    Ok(())
}

fn open_below(directory: impl AsFd, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let mode = if flags.contains(OFlag::O_CREAT) {
        Mode::from_bits_truncate(0o600)
    } else {
        Mode::empty()
    };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(directory, name, how)
}

fn own(file: impl AsFd, user: &User) -> nix::Result<()> {
    fchown(
        file,
        Some(Uid::from_raw(user.uid)),
        Some(Gid::from_raw(user.gid)),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn file(path: &str, content: &str, mode: Option<u32>) -> agent::File {
        agent::File {
            path: path.into(),
            content: content.into(),
            mode,
        }
    }

    fn myself() -> User {
        let (uid, gid) = (
            nix::unistd::getuid().as_raw(),
            nix::unistd::getgid().as_raw(),
        );
        User {
            name: String::new(),
            uid,
            gid,
            groups: vec![gid],
            home: "/".into(),
        }
    }

    #[test]
    fn files_are_written_with_parents_and_modes() {
        let work = tempfile::tempdir().unwrap();
        let files = [
            file("a/b/run.sh", "one", Some(0o4755)),
            file("c", "two", None),
            file("c", "3", None),
        ];
        write(work.path(), &files, &myself()).unwrap();
        let script = work.path().join("a/b/run.sh");
        assert_eq!(std::fs::read_to_string(&script).unwrap(), "one");
        assert_eq!(
            script.metadata().unwrap().permissions().mode() & 0o7777,
            0o4755
        );
        assert_eq!(
            script.parent().unwrap().metadata().unwrap().mode() & 0o7777,
            0o755
        );
        let second = work.path().join("c");
        assert_eq!(std::fs::read_to_string(&second).unwrap(), "3");
        assert_eq!(second.metadata().unwrap().mode() & 0o7777, 0o644);
    }

    #[test]
    fn paths_out_of_the_work_directory_are_refused() {
        for path in [
            "",
            "/etc/x",
            "../x",
            "a/../../x",
            "a/..",
            "a//b",
            "./a",
            "a/",
            "a\0b",
        ] {
            assert!(
                matches!(check(&file(path, "", None)), Err(FileError::Path { .. })),
                "{path:?}"
            );
        }
        assert!(check(&file(&"x".repeat(256), "", None)).is_err());
        assert!(check(&file(&"x/".repeat(2100), "", None)).is_err());
        assert!(check(&file("..a/b..", "", None)).is_ok());
    }

    #[test]
    fn modes_beyond_permissions_are_refused() {
        assert!(matches!(
            check(&file("a", "", Some(0o10000))),
            Err(FileError::Mode { .. })
        ));
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let work = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), work.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("f"), work.path().join("file")).unwrap();
        for path in ["link/f", "file"] {
            let error = write(work.path(), &[file(path, "x", None)], &myself()).unwrap_err();
            assert!(matches!(error, FileError::Conflict { .. }), "{error}");
        }
        assert_eq!(outside.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_file_where_a_directory_is_needed_is_a_conflict() {
        let work = tempfile::tempdir().unwrap();
        for files in [["a", "a/b"], ["a/b", "a"]] {
            let files = files.map(|path| file(path, "x", None));
            let error = write(work.path(), &files, &myself()).unwrap_err();
            assert!(matches!(error, FileError::Conflict { .. }), "{error}");
        }
    }
}
