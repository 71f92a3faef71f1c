//! Where things lie unless told otherwise; see "Where things lie" in docs/architecture.md.

use std::path::{Path, PathBuf};

fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

/// `CLOUDE_CACHE_DIR`, else `$XDG_CACHE_HOME/cloude`, else `~/.cache/cloude`.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("CLOUDE_CACHE_DIR") {
        return dir.into();
    }
    std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| home().join(".cache"), PathBuf::from)
        .join("cloude")
}

/// `/var/lib/cloude` as root, else `$XDG_STATE_HOME/cloude`.
pub fn state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/cloude".into();
    }
    std::env::var_os("XDG_STATE_HOME")
        .map_or_else(|| home().join(".local/state"), PathBuf::from)
        .join("cloude")
}

/// The tuned kernel where it was built, else the stock one.
pub fn kernel() -> PathBuf {
    let kernels = cache_dir().join("kernels");
    let tuned = kernels.join("tuned");
    if tuned.join("vmlinux").exists() {
        tuned
    } else {
        kernels.join("stock")
    }
}

fn exe_dir() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// A binary in our own executable's folder.
pub fn sibling(name: &str) -> PathBuf {
    exe_dir().join(name)
}

/// `../languages` beside the binary's folder, else `languages` of a checkout above the binary or
/// above the working directory.
pub fn languages() -> PathBuf {
    let exe = exe_dir();
    let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    exe.ancestors()
        .skip(1)
        .chain(cwd.ancestors())
        .map(|dir| dir.join("languages"))
        .find(|dir| dir.join("python.toml").exists())
        .unwrap_or_else(|| cwd.join("languages"))
}
