//! A listening Unix socket and its file.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::net::{UnixListener, UnixStream};

/// Owner and group may connect, which needs write access to the file (unix(7)).
const MODE: u32 = 0o660;
/// Mode of folders that are created for the file. Its own mode says who may connect.
const FOLDER_MODE: u32 = 0o755;
/// Maximum connections that wait for accept(2).
const BACKLOG: i32 = 1024;

/// A listening Unix socket. Dropping it removes its file, unless another file has taken the path.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl UnixSocket {
    /// Listens on `path` with mode 0660. Replaces the socket of a server that has ended. `group`: a name or a number,
    /// or empty for the group of this process.
    pub fn bind(path: &Path, group: &str) -> io::Result<Self> {
        let group = group_id(group)?;
        if let Some(folder) = path.parent() {
            create_folders(folder)?;
        }
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        // From here on an error removes the file, too.
        let file = identity(path)?;
        let removed = RemoveOnDrop { path, file };
        chown(path, None, group)?;
        std::fs::set_permissions(path, Permissions::from_mode(MODE))?;
        // Until listen(2) every connect is refused, so nobody connects before the mode is set.
        listen(&socket, BACKLOG)?;
        let listener = UnixListener::from_std(socket.into())?;
        std::mem::forget(removed);
        Ok(UnixSocket {
            listener,
            path: path.to_owned(),
            file,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let (path, file) = (&self.path, self.file);
        drop(RemoveOnDrop { path, file });
    }
}

/// Removes the file at `path` if it is still `file`.
struct RemoveOnDrop<'a> {
    path: &'a Path,
    file: (u64, u64),
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        if identity(self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a socket on which nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        let message = "the file exists and is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
        Ok(_) => {
            let message = "another server listens on it";
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
    }
}

/// Creates missing folders with [`FOLDER_MODE`] whatever the umask is.
fn create_folders(folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|folder| !folder.exists());
    let missing: Vec<_> = missing.collect();
    for folder in missing.into_iter().rev() {
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => std::fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))?,
        }
    }
    Ok(())
}

fn group_id(group: &str) -> io::Result<Option<u32>> {
    if group.is_empty() {
        return Ok(None);
    }
    if let Ok(id) = group.parse() {
        return Ok(Some(id));
    }
    let found = nix::unistd::Group::from_name(group)?;
    let unknown = || {
        let message = format!("the group `{group}` of `api.socket_group` does not exist");
        io::Error::new(io::ErrorKind::NotFound, message)
    };
    Ok(Some(found.ok_or_else(unknown)?.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_has_mode_0660_and_goes_with_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/cloude/api.sock");

        let socket = UnixSocket::bind(&path, "").unwrap();

        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        // std does not remove the file when it closes the socket.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

        UnixSocket::bind(&path, "").unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_a_running_server_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let first = UnixSocket::bind(&path, "").unwrap();

        let error = UnixSocket::bind(&path, "").unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        StdStream::connect(&path).unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, "text").unwrap();

        let error = UnixSocket::bind(&path, "").unwrap_err().to_string();

        assert!(error.contains("no socket"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
    }

    #[tokio::test]
    async fn an_unknown_group_is_an_error_that_names_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");

        let error = UnixSocket::bind(&path, "no-such-group").unwrap_err();

        assert!(error.to_string().contains("api.socket_group"), "{error}");
        assert!(!path.exists());
    }
}
