//! What an initramfs carries for the agent, beside the image's own tree.
//!
//! Two segments are loaded one behind the other. The first is the image: its tree, and
//! [`IMAGE_CONFIG`]. The second, small, is made at boot: the agent, the kernel's modules, and
//! [`BOOT_CONFIG`]. A new agent or kernel rebuilds no image.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Everything of ours lives in this directory, mode 0700.
pub const DIR: &str = "/.cloude";
/// The agent's binary; the kernel's `rdinit=`.
pub const AGENT: &str = "/.cloude/agent";
/// An [`ImageConfig`], in the image's segment.
pub const IMAGE_CONFIG: &str = "/.cloude/image.json";
/// A [`BootConfig`], in the boot segment. The agent deletes it once read.
pub const BOOT_CONFIG: &str = "/.cloude/boot.json";
/// Uncompressed kernel modules, to be inserted in the order of [`MODULES_LIST`].
pub const MODULES_DIR: &str = "/.cloude/modules";
/// One file name a line, dependencies before dependents.
pub const MODULES_LIST: &str = "/.cloude/modules/modules.list";

/// What the image says about how to run programs in it (OCI image configuration, `config`).
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct ImageConfig {
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    pub user: String,
    /// Absolute, or empty.
    pub working_dir: String,
    /// The image's entry point.
    pub entrypoint: Vec<String>,
    /// The image's command.
    pub cmd: Vec<String>,
}

/// What one VM is told at boot.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct BootConfig {
    /// What requests to the agent must carry. 64 hexadecimal digits from the host's generator.
    pub token: String,
    /// The VM's host name.
    pub hostname: String,
    /// Its network, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfig>,
    /// Copy what programs print to the console too.
    #[serde(default)]
    pub copy_output_to_console: bool,
    /// Serve no requests: run the image's shell on the console, and power off when it ends.
    #[serde(default)]
    pub shell: bool,
    /// The VM is to be warmed ([`crate::agent::WarmRequest`]) and forked. It executes nothing but
    /// what comes with an [`crate::agent::Identity`], and its interface has no address before that.
    #[serde(default)]
    pub template: bool,
}

/// The VM's one Ethernet interface.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Its own address.
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix, 1 to 32.
    pub prefix_len: u8,
    /// The default route, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers for /etc/resolv.conf.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Bytes, 1500 if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}
