//! `--file SRC[:PATH]`: files, and folders with everything below them.

use std::fs::{File as OsFile, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cloude_protocol::Data;
use cloude_protocol::agent::File;
use rustix::fs::OFlags;

use crate::error::UsageError;

/// The most files that the backend takes.
const MAX_FILES: usize = 999;
/// Bytes of all files together: more than the backend takes by default, so that its own limit is what a user meets.
const MAX_BYTES: u64 = 1 << 30;
/// Folders within folders.
const MAX_DEPTH: usize = 64;

/// Reads all files. Those of folders are in the order of their paths.
pub fn files(specs: &[String]) -> Result<Vec<File>, UsageError> {
    let mut tree = Tree::default();
    for spec in specs {
        tree.add(spec)?;
    }
    Ok(tree.files)
}

#[derive(Default)]
struct Tree {
    files: Vec<File>,
    bytes: u64,
}

impl Tree {
    /// A path that exists is not split at its colon.
    fn add(&mut self, spec: &str) -> Result<(), UsageError> {
        let (path, name) = match spec.rsplit_once(':') {
            Some((path, name)) if !Path::new(spec).exists() && !name.is_empty() => {
                (Path::new(path), name.to_owned())
            }
            _ => (Path::new(spec), own_name(spec)?),
        };
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
        if metadata.is_dir() {
            return self.folder(path, name.trim_end_matches('/'), MAX_DEPTH);
        }
        // A pipe or a device that is named by itself is read, as in `--file <(command):data`.
        let file = OsFile::open(path).map_err(|error| unreadable(path, error))?;
        self.file(path, file, &metadata, name)
    }

    fn folder(&mut self, folder: &Path, name: &str, depth: usize) -> Result<(), UsageError> {
        if depth == 0 {
            let limit = "64 folders within each other";
            return Err(UsageError::TooMuch { limit });
        }
        let failed = |error| unreadable(folder, error);
        let entries = std::fs::read_dir(folder).map_err(failed)?;
        let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let path = entry.path();
            let Ok(last) = entry.file_name().into_string() else {
                return Err(UsageError::NameNotUtf8 { path });
            };
            let name = match name {
                "." | "" => last,
                name => format!("{name}/{last}"),
            };
            let kind = entry
                .file_type()
                .map_err(|error| unreadable(&path, error))?;
            if kind.is_dir() {
                self.folder(&path, &name, depth - 1)?;
                continue;
            }
            if !kind.is_file() {
                return Err(not_regular(path, kind));
            }
            // The file may have become something else meanwhile.
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(flags.bits() as i32)
                .open(&path)
                .map_err(|error| unreadable(&path, error))?;
            let metadata = file.metadata().map_err(|error| unreadable(&path, error))?;
            if !metadata.is_file() {
                return Err(not_regular(path, metadata.file_type()));
            }
            self.file(&path, file, &metadata, name)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        file: OsFile,
        metadata: &Metadata,
        name: String,
    ) -> Result<(), UsageError> {
        if self.files.len() == MAX_FILES {
            let limit = "999 files";
            return Err(UsageError::TooMuch { limit });
        }
        let mut content = Vec::new();
        let room = MAX_BYTES - self.bytes;
        file.take(room + 1)
            .read_to_end(&mut content)
            .map_err(|error| unreadable(path, error))?;
        self.bytes += content.len() as u64;
        if self.bytes > MAX_BYTES {
            let limit = "1 GiB in all files together";
            return Err(UsageError::TooMuch { limit });
        }
        let mode = metadata
            .is_file()
            .then(|| metadata.permissions().mode() & 0o777);
        self.files.push(File {
            path: name,
            content: Data(content),
            mode,
        });
        Ok(())
    }
}

/// The last component, `.` for the working directory.
fn own_name(spec: &str) -> Result<String, UsageError> {
    if matches!(spec, "." | "./") {
        return Ok(".".to_owned());
    }
    let name = Path::new(spec).file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| UsageError::FileWithoutName {
            spec: spec.to_owned(),
        })
}

fn not_regular(path: PathBuf, kind: std::fs::FileType) -> UsageError {
    let kind = match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    UsageError::NotRegular { path, kind }
}

fn unreadable(path: &Path, error: io::Error) -> UsageError {
    UsageError::ReadFile {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(specs: &[String]) -> Vec<(String, Option<u32>)> {
        let files = files(specs).unwrap();
        files
            .into_iter()
            .map(|file| (file.path, file.mode))
            .collect()
    }

    #[test]
    fn folders_are_sent_in_order_with_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let src = dir.path().join("src");
        std::fs::create_dir_all(src.join("b/c")).unwrap();
        for (name, mode) in [("b/c/two", 0o640), ("a", 0o755)] {
            std::fs::write(src.join(name), name).unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(src.join(name), mode).unwrap();
        }
        let spec = src.display().to_string();
        let tree = |root: &str| {
            let paths = [("a", 0o755), ("b/c/two", 0o640)];
            paths.map(|(path, mode)| (format!("{root}{path}"), Some(mode)))
        };
        assert_eq!(paths(std::slice::from_ref(&spec)), tree("src/"));
        assert_eq!(paths(&[format!("{spec}:x/y")]), tree("x/y/"));
        assert_eq!(paths(&[format!("{spec}:.")]), tree(""));
    }

    #[test]
    fn a_symbolic_link_below_a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let spec = format!("{}:x", dir.path().display());
        let error = files(&[spec]).unwrap_err();
        let is_link =
            matches!(error, UsageError::NotRegular { kind, .. } if kind == "a symbolic link");
        assert!(is_link, "{error}");
    }

    #[test]
    fn a_fifo_below_a_folder_is_refused_and_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let (cwd, kind) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(cwd, dir.path().join("pipe"), kind, mode, 0).unwrap();
        let spec = format!("{}:x", dir.path().display());
        let error = files(&[spec]).unwrap_err().to_string();
        assert!(error.contains("pipe is a FIFO"), "{error}");
    }

    #[test]
    fn the_thousandth_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..1000 {
            std::fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        let error = files(&[format!("{}:x", dir.path().display())]).unwrap_err();
        assert!(error.to_string().contains("more than 999 files"), "{error}");
    }
}
