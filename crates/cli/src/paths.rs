//! Where things lie on this machine: docs/architecture.md has the table.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The cache: `CLOUDE_CACHE_DIR`, else `$XDG_CACHE_HOME/cloude`, else `~/.cache/cloude`.
pub fn cache() -> PathBuf {
    if let Some(path) = variable("CLOUDE_CACHE_DIR") {
        return path;
    }
    if let Some(path) = variable("XDG_CACHE_HOME") {
        return path.join("cloude");
    }
    variable("HOME")
        .unwrap_or_else(|| PathBuf::from("/root"))
        .join(".cache/cloude")
}

/// The kernel: `VM_KERNEL_PATH`, else the tuned one if it is there, else the stock one.
pub fn kernel() -> PathBuf {
    if let Some(path) = variable("VM_KERNEL_PATH") {
        return path;
    }
    let kernels = cache().join("kernels");
    let tuned = kernels.join("tuned");
    if tuned.join("vmlinux").exists() {
        tuned
    } else {
        kernels.join("stock")
    }
}

/// The images: `VM_INITRAMFS_DIR`, else the cache's.
pub fn images() -> PathBuf {
    variable("VM_INITRAMFS_DIR").unwrap_or_else(|| cache().join("images"))
}

/// The language files: `LANGUAGES_CONFIG_PATH`, else `languages/` here, else beside the folder of
/// the program, else in the checkout that the program was built in.
pub fn languages() -> Option<PathBuf> {
    if let Some(path) = variable("LANGUAGES_CONFIG_PATH") {
        return Some(path);
    }
    let here = PathBuf::from("languages");
    let beside = std::env::current_exe()
        .ok()
        .into_iter()
        .flat_map(|program| {
            // bin/cloude, or target/debug/cloude of a checkout.
            program
                .ancestors()
                .skip(2)
                .take(2)
                .map(|folder| folder.join("languages"))
                .collect::<Vec<_>>()
        });
    std::iter::once(here)
        .chain(beside)
        .find(|path| path.is_dir())
}

/// A program of ours, beside this one or in PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join(name)));
    beside
        .into_iter()
        .find(|path| is_program(path))
        .or_else(|| find_in_path(name))
}

/// A program in PATH, or where a system keeps those that only root uses.
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

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
