//! Ownership of links: an alias (IFLA_IFALIAS) on every bridge and TAP, and a lock for each bridge.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use rustix::net::sockopt::socket_peercred;
use sha2::{Digest, Sha256};

/// The start of the alias of every link of Cloude.
const PREFIX: &str = "cloude:";
/// The longest path in an alias, which the kernel limits to 255 bytes (IFALIASZ).
const MAX_PATH: usize = 200;

/// The alias of the links of one engine: `cloude:` and its run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// The mark of the engine with this run directory. A path that is too long is hashed.
    pub fn of(run_dir: &Path) -> Self {
        let path = run_dir
            .canonicalize()
            .unwrap_or_else(|_| run_dir.to_owned());
        let path = path.display().to_string();
        let name = if path.len() <= MAX_PATH {
            path
        } else {
            const_hex::encode(Sha256::digest(path.as_bytes()))
        };
        Mark(format!("{PREFIX}{name}"))
    }

    /// The alias.
    pub fn alias(&self) -> &str {
        &self.0
    }
}

/// The run directory of the engine that owns a link with this alias; `None` if no engine does.
pub fn owner(alias: Option<&str>) -> Option<&str> {
    alias?.strip_prefix(PREFIX)
}

/// The right to use a bridge of this name in this network namespace.
///
/// An abstract Unix socket belongs to a network namespace like the bridge itself, and ends with its process.
#[derive(Debug)]
pub struct BridgeLock {
    _listener: UnixListener,
}

/// A lock that was not taken.
#[derive(Debug)]
pub enum LockError {
    /// The process that holds it, if it is known.
    Held(Option<i32>),
    /// A system call failed.
    Io(io::Error),
}

impl BridgeLock {
    /// Takes the lock, or names the process that holds it.
    pub fn take(bridge: &str) -> Result<Self, LockError> {
        let name = format!("cloude/bridge/{bridge}");
        let address = SocketAddr::from_abstract_name(name).map_err(LockError::Io)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(BridgeLock {
                _listener: listener,
            }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // SO_PEERCRED of a connected socket is the process that called listen(2).
                let holder = UnixStream::connect_addr(&address)
                    .ok()
                    .and_then(|stream| socket_peercred(&stream).ok())
                    .map(|peer| peer.pid.as_raw_nonzero().get());
                Err(LockError::Held(holder))
            }
            Err(error) => Err(LockError::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_its_owner() {
        let mark = Mark::of(Path::new("/var/lib/cloude-none/run"));
        assert_eq!(mark.alias(), "cloude:/var/lib/cloude-none/run");
        assert_eq!(owner(Some(mark.alias())), Some("/var/lib/cloude-none/run"));
        assert_eq!((owner(Some("uplink")), owner(None)), (None, None));
    }

    #[test]
    fn a_long_path_fits_the_kernels_limit() {
        let path = format!("/{}", "x".repeat(400));
        assert!(Mark::of(Path::new(&path)).alias().len() < 255);
    }

    #[test]
    fn a_lock_names_its_holder_and_ends_with_it() {
        let name = format!("test-{}", std::process::id());
        let first = BridgeLock::take(&name).unwrap();
        let Err(LockError::Held(holder)) = BridgeLock::take(&name) else {
            panic!("the lock was taken twice");
        };
        assert_eq!(holder, Some(std::process::id() as i32));
        drop(first);
        BridgeLock::take(&name).unwrap();
    }
}
