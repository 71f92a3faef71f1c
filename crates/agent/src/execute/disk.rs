//! The limits of a program's files: the size of the file system of the work directory and of /tmp, and the size of one
//! file.

use std::ops::ControlFlow;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::stat::SFlag;
use nix::sys::statvfs::statvfs;

use super::walk::{kind, walk};

/// Sets the size of the tmpfs that is mounted on `work_dir`. A waiting interpreter has the same file system in its mount
/// namespace, so that the limit holds for it, too.
pub fn set_size(work_dir: &Path, bytes: u64) -> nix::Result<()> {
    let none: Option<&str> = None;
    // A remount sets the flags of the mount anew.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // 0 would be no limit.
    let options = format!("size={}", bytes.max(1));
    mount(none, work_dir, none, flags, Some(options.as_str()))
}

/// The places that a stage's files are in, and the limit of one file.
#[derive(Debug)]
pub struct DiskLimits<'a> {
    /// The work directory.
    pub work_dir: &'a Path,
    /// /tmp, if it is of this VM alone.
    pub tmp: Option<&'a Path>,
    /// RLIMIT_FSIZE of the stage.
    pub file_bytes: Option<u64>,
}

impl DiskLimits<'_> {
    /// The limit at which a write of a program that has just failed was probably refused: the kernel counts neither
    /// ENOSPC nor EFBIG. A program that removes its files before it ends is not recognized.
    pub fn reached(&self) -> Option<String> {
        if let Ok(state) = statvfs(self.work_dir)
            && (state.blocks_free() == 0 || state.files() > 0 && state.files_free() == 0)
        {
            let bytes = state.blocks() * state.fragment_size();
            return Some(format!(
                "the file system of the work directory and of /tmp is full: it has {bytes} bytes"
            ));
        }
        // Interpreters ignore SIGXFSZ. A write that crosses the limit fills the file up to it and is cut there; only the next
        // one fails (`generic_write_check_limits`, fs/read_write.c).
        let limit = self.file_bytes?;
        let roots = [Some(self.work_dir), self.tmp].into_iter().flatten();
        let mut found = None;
        for root in roots {
            walk(root, |path, stat| {
                if kind(stat) != SFlag::S_IFREG || stat.st_size as u64 != limit {
                    return ControlFlow::Continue(());
                }
                let path = root.join(String::from_utf8_lossy(path).as_ref());
                found = Some(format!(
                    "{} has {limit} bytes, the largest file that is allowed",
                    path.display()
                ));
                ControlFlow::Break(())
            });
        }
        found
    }
}
