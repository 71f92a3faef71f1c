//! Saves the artifacts of an execution below a folder. Their paths come from the backend, and so from the program: no path
//! leads out of the folder, also through a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use cloude_protocol::api::{Artifact, Execution};
use futures_util::StreamExt as _;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

use crate::client::Backend;
use crate::error::{CliError, LocalError};
use crate::terminal;

/// The file that is being written, for [`remove_partial`].
static PARTIAL: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Saves all artifacts. Goes on after a local failure, and returns the first one in the end.
pub async fn save(
    execution: &Execution,
    folder: &Path,
    force: bool,
    backend: &Backend,
) -> Result<(), CliError> {
    if execution.artifacts_dropped > 0 {
        terminal::note(&format!(
            "{} artifacts were left out: past `--limit artifacts`, not regular files, or with names that are not UTF-8",
            execution.artifacts_dropped
        ));
    }
    let mut first = None;
    for artifact in &execution.artifacts {
        match save_one(artifact, &execution.id, folder, force, backend).await {
            Ok(()) => {}
            Err(CliError::Local(error)) => {
                if let Some(earlier) = first.replace(error) {
                    terminal::error(&earlier.to_string());
                }
            }
            Err(error) => return Err(error),
        }
    }
    match first {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Removes the file that is being written, if any. For the end of the process by Ctrl-C.
pub fn remove_partial() {
    if let Ok(mut partial) = PARTIAL.lock()
        && let Some(path) = partial.take()
    {
        let _ = std::fs::remove_file(path);
    }
}

async fn save_one(
    artifact: &Artifact,
    id: &str,
    folder: &Path,
    force: bool,
    backend: &Backend,
) -> Result<(), CliError> {
    let Some((parents, name)) = components(&artifact.path) else {
        return Err(LocalError::ArtifactPath {
            path: artifact.path.clone(),
        }
        .into());
    };
    let path = folder.join(&artifact.path);
    let failed = |error: io::Error| LocalError::ArtifactWrite {
        path: path.clone(),
        error,
    };
    let parent = make_folders(folder, &parents).map_err(failed)?;
    if !force && exists(&parent, name) {
        return Err(LocalError::ArtifactExists { path }.into());
    }
    let partial = OsString::from(format!(".cloude-{}.part", std::process::id()));
    let shown = path.with_file_name(&partial);
    let mut file = create(&parent, &partial, artifact.mode).map_err(failed)?;
    let guard = Partial::of(shown);
    let mut chunks = backend
        .get_artifact(id, &artifact.path)
        .await?
        .bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| backend.broken(&error))?;
        file.write_all(&chunk).map_err(failed)?;
    }
    rename(&parent, &partial, name, force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => LocalError::ArtifactExists { path: path.clone() },
        _ => failed(error),
    })?;
    guard.done();
    Ok(())
}

/// The folders and the name of a relative path without `.` and `..`; none for any other path.
fn components(path: &str) -> Option<(Vec<&OsStr>, &OsStr)> {
    if path.contains('\0') || path.ends_with('/') {
        return None;
    }
    let mut names = Path::new(path)
        .components()
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let name = names.pop()?;
    Some((names, name))
}

/// Makes the folder, and `names` below it one in the other. Follows symbolic links up to the folder and none below it.
fn make_folders(folder: &Path, names: &[&OsStr]) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(folder)?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let mut parent = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    for name in names {
        match rustix::fs::mkdirat(&parent, *name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        parent = rustix::fs::openat(&parent, *name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(parent)
}

fn exists(parent: &OwnedFd, name: &OsStr) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// A new file with the artifact's permission bits as the umask allows, without set-user-ID bits.
fn create(parent: &OwnedFd, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode & 0o777 | 0o600);
    Ok(rustix::fs::openat(parent, name, flags, mode)?.into())
}

/// Gives a file its name. Without `force` this fails if there is a file of that name.
fn rename(parent: &OwnedFd, from: &OsStr, to: &OsStr, force: bool) -> io::Result<()> {
    if force {
        return Ok(rustix::fs::renameat(parent, from, parent, to)?);
    }
    match rustix::fs::renameat_with(parent, from, parent, to, RenameFlags::NOREPLACE) {
        // File systems without RENAME_NOREPLACE, such as NFS.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            rustix::fs::linkat(parent, from, parent, to, AtFlags::empty())?;
            Ok(rustix::fs::unlinkat(parent, from, AtFlags::empty())?)
        }
        result => Ok(result?),
    }
}

/// Removes a file on drop unless it is done.
struct Partial;

impl Partial {
    fn of(path: PathBuf) -> Self {
        if let Ok(mut partial) = PARTIAL.lock() {
            *partial = Some(path);
        }
        Partial
    }

    fn done(self) {
        if let Ok(mut partial) = PARTIAL.lock() {
            *partial = None;
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        remove_partial();
    }
}

#[cfg(test)]
mod tests {
    use super::components;

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            ".",
            "a\0b",
            "a/",
        ] {
            assert!(components(path).is_none(), "{path:?}");
        }
        assert!(components("a/b/..c").is_some());
    }
}
