//! The files and the isolation of a server.

use serde::{Deserialize, Serialize};

/// The response to `GET /v1/installation`: paths on the server. Bytes of paths that are not UTF-8 are replaced.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Installation {
    /// The server's version.
    pub version: String,
    /// The guest kernel.
    pub kernel: InstalledKernel,
    /// The directory of initramfs images.
    pub images: String,
    /// The directory of languages.
    pub languages: String,
    /// Days without a comparison with its source after which an image counts as old; never if 0.
    #[serde(default = "default_image_max_age_days")]
    pub image_max_age_days: u64,
    /// The directory of the job store, the lock and the run directory.
    pub state_dir: String,
    /// The directory of kernels, blobs, images and templates.
    pub cache_dir: String,
    /// The `cloude-vmm` binary.
    pub worker: String,
    /// The agent's binary.
    pub agent: String,
    /// The walls around each VM's process; empty from servers without them.
    #[serde(default)]
    pub isolation: Vec<IsolationWall>,
}

/// A wall around each VM's process.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IsolationWall {
    /// Its name in `isolation.require` of the server's configuration.
    pub name: String,
    /// Why VMs do not have it; absent if they have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The change of the host that adds the wall.
    pub fix: String,
}

/// After how many days an image counts as old, unless the configuration says otherwise.
pub const IMAGE_MAX_AGE_DAYS: u64 = 30;

fn default_image_max_age_days() -> u64 {
    IMAGE_MAX_AGE_DAYS
}

/// A server's guest kernel.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstalledKernel {
    /// A kernel directory, or a kernel file.
    pub path: String,
    /// The kernel exists.
    pub present: bool,
    /// The path is a directory, which can have modules.
    pub modules: bool,
    /// The kernel's release, from the file `release`.
    pub release: Option<String>,
}
