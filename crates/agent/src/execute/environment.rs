//! Where and as whom programs run.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use cloude_protocol::agent::ProcessLimits;
use cloude_protocol::boot::ImageConfig;

use super::cgroup::Roots;
use super::command;
use super::disk::DiskLimits;
use crate::user::{User, UserError};

/// Where and as whom programs run.
#[derive(Debug)]
pub struct Environment {
    /// The program's files are written here. Owned by the program's user.
    pub work_dir: PathBuf,
    /// Environment variables and user of the image.
    pub image: ImageConfig,
    /// /tmp, if it is of this VM alone and not of the machine's other programs.
    pub tmp: Option<PathBuf>,
    /// A directory that each stage covers with an empty file system.
    pub hidden: Option<PathBuf>,
    /// The mounted cgroup file systems.
    pub cgroups: Option<Roots>,
    /// Receives a copy of the output of programs. Non-blocking.
    pub console: Option<File>,
    /// Set in a VM that is to be saved and forked.
    pub template: Option<Template>,
}

/// Additions for a template.
#[derive(Debug, Default)]
pub struct Template {
    /// Bind-mounted over /proc/sys/kernel/random/boot_id of each stage.
    pub boot_id: Option<PathBuf>,
    /// Directory of the runner's hook files, `/run/cloude-hook` if none.
    pub hook_dir: Option<PathBuf>,
}

impl Environment {
    pub(super) fn boot_id(&self) -> Option<CString> {
        let path = self.template.as_ref()?.boot_id.as_deref()?;
        Some(command::c_path(path))
    }

    pub(super) fn disk_limits(&self, limits: &ProcessLimits) -> DiskLimits<'_> {
        DiskLimits {
            work_dir: &self.work_dir,
            tmp: self.tmp.as_deref(),
            file_bytes: limits.file_bytes,
        }
    }

    /// The user of programs that ask for none ([`User::of_programs`]).
    pub fn user(&self) -> Result<User, UserError> {
        User::of_programs(&self.image.user, Path::new("/"))
    }

    /// The user that a request asks for; the work directory then belongs to it.
    pub fn requested_user(&self, spec: &str) -> Result<User, String> {
        let user = User::look_up(spec, Path::new("/")).map_err(|error| error.to_string())?;
        chown(&self.work_dir, Some(user.uid), Some(user.gid))
            .map_err(|error| format!("{}: {error}", self.work_dir.display()))?;
        Ok(user)
    }
}
