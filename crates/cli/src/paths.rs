//! Paths on this machine: from environment variables, else the defaults of `clouded`
//! ([`cloude_protocol::paths`]).

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cloude_protocol::paths;

fn variable(name: &str) -> Option<PathBuf> {
    paths::variable(name).map(PathBuf::from)
}

/// The kernel: `VM_KERNEL_PATH`, else the default.
pub fn kernel() -> PathBuf {
    variable("VM_KERNEL_PATH").unwrap_or_else(paths::kernel)
}

/// The images: `VM_INITRAMFS_DIR`, else the default.
pub fn images() -> PathBuf {
    variable("VM_INITRAMFS_DIR").unwrap_or_else(paths::images)
}

/// The folder of languages: `LANGUAGES_CONFIG_PATH`, else the default.
pub fn languages() -> PathBuf {
    variable("LANGUAGES_CONFIG_PATH").unwrap_or_else(|| paths::languages(is_root()))
}

/// True if the effective user is root: it owns /proc/self.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Finds a program of Cloude in the folder of this one, else in PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    Some(paths::sibling(name))
        .filter(|path| is_program(path))
        .or_else(|| find_in_path(name))
}

/// Finds a program in PATH, /usr/sbin or /sbin.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
