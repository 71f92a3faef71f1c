//! A bounded walk over the files below a directory that a program wrote. Symbolic links and mounts are not followed.

use std::ffi::OsStr;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag, fstatat};

/// Entries that a walk looks at.
const MAX_ENTRIES: usize = 100_000;

/// Bytes of the paths of directories that it has yet to read: they are in the agent's memory.
const MAX_PENDING_BYTES: usize = 2 << 20;

/// The file type of a mode.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Opens `path` below `root`. The kernel follows no symbolic link and enters no other mount.
pub fn open_below(root: impl AsFd, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(root, OsStr::from_bytes(path), how)
}

/// Calls `each` with the path below `root` and the status of everything there but directories, in any order. Returns
/// false if entries are left that it has not looked at.
pub fn walk(root: &Path, each: impl FnMut(&[u8], &FileStat) -> ControlFlow<()>) -> bool {
    walk_some(root, MAX_ENTRIES, each)
}

/// [`walk`] over at most `left` entries.
fn walk_some(
    root: &Path,
    mut left: usize,
    mut each: impl FnMut(&[u8], &FileStat) -> ControlFlow<()>,
) -> bool {
    let Ok(root) = File::open(root) else {
        return false;
    };
    let (mut complete, mut pending_bytes) = (true, 0);
    let mut pending = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        pending_bytes -= directory.len();
        let path: &[u8] = if directory.is_empty() {
            b"."
        } else {
            &directory
        };
        let opened = open_below(&root, path, OFlag::O_DIRECTORY).and_then(Dir::from_fd);
        let Ok(mut opened) = opened else {
            complete = false; // The path is longer than PATH_MAX.
            continue;
        };
        // Looks entries up by its descriptor while it is read.
        let Ok(handle) = opened.as_fd().try_clone_to_owned() else {
            return false;
        };
        for entry in opened.iter() {
            let Ok(entry) = entry else {
                complete = false;
                break;
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if left == 0 {
                return false;
            }
            left -= 1;
            let Ok(stat) = fstatat(&handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
                complete = false;
                continue;
            };
            let mut below = directory.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(name.to_bytes());
            if kind(&stat) != SFlag::S_IFDIR {
                if each(&below, &stat).is_break() {
                    return complete;
                }
            } else if pending_bytes + below.len() > MAX_PENDING_BYTES {
                complete = false;
            } else {
                pending_bytes += below.len();
                pending.push(below);
            }
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths(root: &Path) -> (Vec<String>, bool) {
        let mut found = Vec::new();
        let complete = walk(root, |path, _| {
            found.push(String::from_utf8_lossy(path).into_owned());
            ControlFlow::Continue(())
        });
        found.sort();
        (found, complete)
    }

    #[test]
    fn links_are_entries_and_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/file"), "").unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();

        let (found, complete) = paths(root.path());

        assert_eq!(found, ["a/b/file", "link"]);
        assert!(complete);
    }

    #[test]
    fn a_huge_tree_is_cut() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("file"), "").unwrap();
        }
        let mut seen = 0;
        let mut count = |left| {
            let complete = walk_some(root.path(), left, |_, _| {
                seen += 1;
                ControlFlow::Continue(())
            });
            (std::mem::take(&mut seen), complete)
        };

        assert_eq!(count(5), (2, false));
        assert_eq!(count(6), (3, true));
    }

    #[test]
    fn directories_that_wait_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join(vec!["x".repeat(250); 12].join("/"));
        std::fs::create_dir_all(&deep).unwrap();
        for number in 0..MAX_PENDING_BYTES / 3200 {
            std::fs::create_dir(deep.join(format!("{number:0200}"))).unwrap();
        }

        assert!(!paths(root.path()).1);
    }

    #[test]
    fn a_path_with_a_link_in_it_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("real")).unwrap();
        std::fs::write(root.path().join("real/file"), "").unwrap();
        symlink("real", root.path().join("link")).unwrap();
        let handle = File::open(root.path()).unwrap();

        assert!(open_below(&handle, b"real/file", OFlag::empty()).is_ok());
        assert!(open_below(&handle, b"link/file", OFlag::empty()).is_err());
        assert!(open_below(&handle, b"../etc/passwd", OFlag::empty()).is_err());
    }
}
