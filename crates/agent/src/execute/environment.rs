//! Where and as whom programs run.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use cloude_protocol::boot::ImageConfig;

use super::command;
use crate::user::{User, UserError};

/// Where and as whom programs run.
#[derive(Debug)]
pub struct Environment {
    /// Files are written here, and programs start here. Owned by the image's user.
    pub work_dir: PathBuf,
    /// What the image says.
    pub image: ImageConfig,
    /// A directory that programs see empty.
    pub hidden: Option<PathBuf>,
    /// A mounted cgroup2 file system.
    pub cgroup_root: Option<PathBuf>,
    /// Takes a copy of what programs print. Does not block.
    pub console: Option<File>,
    /// This VM is to be forked.
    pub template: Option<Template>,
}

/// What a template has beside.
#[derive(Debug, Default)]
pub struct Template {
    /// Bound over the stages' /proc/sys/kernel/random/boot_id.
    pub boot_id: Option<PathBuf>,
    /// Where a hook's files go, `/run/cloude-hook` if none.
    pub hook_dir: Option<PathBuf>,
}

impl Environment {
    pub(super) fn boot_id(&self) -> Option<CString> {
        let path = self.template.as_ref()?.boot_id.as_deref()?;
        Some(command::c_path(path))
    }

    /// The image's user, as its own files have it.
    pub fn user(&self) -> Result<User, UserError> {
        User::look_up(&self.image.user, Path::new("/"))
    }
}
